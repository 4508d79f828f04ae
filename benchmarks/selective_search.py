"""Measures time and memory of selective search, and compares the time with OpenCV-contrib's fast mode.

    python -m venv contrib && contrib/bin/pip install opencv-contrib-python
    python benchmarks/selective_search.py ILSVRC_FOLDER --peer-python contrib/bin/python

opencv-contrib-python cannot be installed beside opencv-python, so OpenCV-contrib runs in a separate environment. The
two programs alternate on the same pictures at width 500, so other load on the machine affects both equally.
With `--growth`, the benchmark instead times full-resolution search on mosaics of the pictures with 0.25, 1, 4 and 16
megapixels.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from inception_rcnn import read_image, selective_search
from inception_rcnn.data.ilsvrc import open_dataset

PEER = Path(__file__).with_name("opencv_peer.py")


class Peer:
    """OpenCV-contrib in a separate process."""

    def __init__(self, python: str, threads: int, boxes: bool = False) -> None:
        command = [python, str(PEER), str(threads), *(["--boxes"] if boxes else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def search(self, path: Path) -> dict:
        """Returns the answer of opencv_peer.py for a picture: "seconds", "count", and "boxes" if requested."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def at_width_500(path: Path) -> np.ndarray:
    """Reads a picture and resizes it to width 500 as the peer does, so that neither time includes resizing."""
    image = read_image(path)
    height, width = image.shape[:2]
    shrinks = cv2.INTER_AREA if width > 500 else cv2.INTER_LINEAR
    return cv2.resize(image, (500, round(height * 500 / width)), interpolation=shrinks)


def compare(paths: list[Path], threads: int, peer_python: str | None) -> None:
    """Prints the median times of both programs on the same pictures."""
    cv2.setNumThreads(threads)
    peer = Peer(peer_python, threads) if peer_python else None
    ours, theirs, ours_count, theirs_count = [], [], [], []
    selective_search(at_width_500(paths[0]), threads=threads)
    for path in paths:
        image = at_width_500(path)
        start = time.perf_counter()
        proposals = selective_search(image, min_side=0, threads=threads)
        ours.append(time.perf_counter() - start)
        ours_count.append(len(proposals))
        if peer:
            answer = peer.search(path)
            theirs.append(answer["seconds"])
            theirs_count.append(answer["count"])
    line = (
        f"{threads} thread(s), {len(paths)} pictures: {np.median(ours) * 1e3:.1f} ms, {np.mean(ours_count):.0f} boxes"
    )
    if peer:
        line += f"; OpenCV-contrib fast {np.median(theirs) * 1e3:.0f} ms, {np.mean(theirs_count):.0f} boxes"
        line += f"; ratio of medians {np.median(theirs) / np.median(ours):.1f}"
    print(line, flush=True)


def memory(paths: list[Path]) -> None:
    """Prints the growth of peak resident memory over that of the process after loading the compiled kernels."""
    selective_search(np.zeros((8, 8, 3), np.uint8), width=None)
    images = [at_width_500(path) for path in paths]
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for image in images:
        selective_search(image)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - baseline
    print(f"peak memory over {len(images)} pictures: {grown / 1024:.0f} MiB over the loaded process", flush=True)


def growth(paths: list[Path]) -> None:
    """Prints the processor time per pixel of full-resolution search on one thread, the better of two runs."""
    cv2.setNumThreads(1)
    selective_search(np.zeros((8, 8, 3), np.uint8), width=None)
    for side in (512, 1024, 2048, 4096):
        image = np.zeros((side, side, 3), np.uint8)
        corners = [(y, x) for y in range(0, side, 256) for x in range(0, side, 256)]
        for number, (y, x) in enumerate(corners):
            part = read_image(paths[number % len(paths)])[:256, :256]
            image[y : y + part.shape[0], x : x + part.shape[1]] = part
        times = []
        for _ in range(2):
            start = time.thread_time()
            count = len(selective_search(image, width=None, threads=1))
            times.append(time.thread_time() - start)
        print(
            f"{side * side / 2**20:5.2f} Mpx: {min(times) / side**2 * 1e9:4.0f} ns a pixel, {count} boxes", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ilsvrc", type=Path, help="data set in the ILSVRC DET layout; the val split is used")
    parser.add_argument("--count", type=int, default=100, help="number of pictures, spread evenly over val")
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("INCEPTION_RCNN_CONTRIB_PYTHON"),
        help="Python interpreter with opencv-contrib-python (default: $INCEPTION_RCNN_CONTRIB_PYTHON)",
    )
    parser.add_argument(
        "--growth", action="store_true", help="time full-resolution search from 0.25 to 16 megapixels instead"
    )
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.ilsvrc, "val")
    step = max(1, len(dataset) // arguments.count)
    paths = [dataset[i].path for i in range(0, len(dataset), step)][: arguments.count]
    if arguments.growth:
        growth(paths)
    elif arguments.memory:
        memory(paths)
    else:
        for threads in (1, 2):
            compare(paths, threads, arguments.peer_python)
        # A new process, so that the peak memory is that of these pictures alone.
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--memory"], check=True)


if __name__ == "__main__":
    main()
