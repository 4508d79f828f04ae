"""OpenCV-contrib's selective search for the benchmarks: run by another Python, one that has opencv-contrib-python.

Reads picture paths from standard input, one a line, and answers each with one line of JSON: seconds, and the boxes
when asked for. The picture is resized to width 500 first, outside the clock; boxes are in the given picture's pixels.

    python opencv_peer.py THREADS [--boxes]
"""

import json
import sys
import time

import cv2

WIDTH = 500


def main() -> None:
    cv2.setNumThreads(int(sys.argv[1]))
    with_boxes = "--boxes" in sys.argv
    for line in sys.stdin:
        image = cv2.imread(line.rstrip("\n"))
        height, width = image.shape[:2]
        high = round(height * WIDTH / width)
        image = cv2.resize(image, (WIDTH, high), interpolation=cv2.INTER_AREA if width > WIDTH else cv2.INTER_LINEAR)
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        start = time.perf_counter()
        search.setBaseImage(image)
        search.switchToSelectiveSearchFast()
        found = search.process()
        answer = {"seconds": time.perf_counter() - start, "count": len(found)}
        if with_boxes:
            across, down = width / WIDTH, height / high
            answer["boxes"] = [
                [float(x * across), float(y * down), float((x + w) * across), float((y + h) * down)]
                for x, y, w, h in found
            ]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
