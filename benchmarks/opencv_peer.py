"""Runs OpenCV-contrib's selective search for the benchmarks, in a Python that has opencv-contrib-python.

The program reads picture paths from standard input, one per line. It answers each path with one line of JSON: seconds,
the number of boxes, and with --boxes the boxes in pixels of the original picture. The picture is first resized to width
500; the time does not include resizing.

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
            scale_x, scale_y = width / WIDTH, height / high
            answer["boxes"] = [
                [float(x * scale_x), float(y * scale_y), float((x + w) * scale_x), float((y + h) * scale_y)]
                for x, y, w, h in found
            ]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
