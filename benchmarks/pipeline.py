"""Measure `detect` against the raw forward pass of its network, the time of each stage, and the peak memory.

    python benchmarks/pipeline.py ILSVRC_FOLDER --count 100

Detection of a block of pictures and raw forward passes over noise take turns, so that other load on the machine slows
both alike. Then each stage is timed alone on some of the pictures. `--members` and `--cascade` measure the cost of an
ensemble: each region counts once, whatever the number of members that score it.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from inception_rcnn import Detector, read_image
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.detection.model_files import load_model
from inception_rcnn.detection.suppression import select_detections, vote_boxes
from inception_rcnn.detection.warping.warp import warp_regions

BLOCK = 10  # pictures between two measurements of the raw forward pass


def raw_rate(detector: Detector, crops: np.ndarray, seconds: float) -> tuple[int, float]:
    """Run the first member for at least `seconds`; return the number of regions and the time in seconds."""
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        detector.engines[0].features(crops)
        done += len(crops)
    return done, time.perf_counter() - start


def eager_rate(model: str, crops: np.ndarray) -> float:
    """Regions per second of the first member in plain torch, float32."""
    network = load_model(model).members[0]
    pixels = torch.from_numpy(crops[:32]).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        network(pixels)
        start = time.perf_counter()
        for _ in range(3):
            network(pixels)
    return 3 * len(pixels) / (time.perf_counter() - start)


def stage_times(detector: Detector, paths: list[Path]) -> dict[str, float]:
    """Mean seconds per picture of each stage, one stage at a time."""
    spent = dict.fromkeys(("decode", "proposals", "warp", "forward", "suppression and voting"), 0.0)
    ids = np.array([category.id for category in detector.categories])
    for path in paths:
        marks = [time.perf_counter()]
        image = read_image(path)
        marks.append(time.perf_counter())
        boxes = detector.propose(image, threads=1).boxes
        marks.append(time.perf_counter())
        crops = warp_regions(image, boxes)
        marks.append(time.perf_counter())
        probabilities = detector.engines[0](crops)
        marks.append(time.perf_counter())
        found = select_detections(boxes, probabilities, ids, score_threshold=0.01, max_detections=100)
        vote_boxes(found, boxes, probabilities, ids)
        marks.append(time.perf_counter())
        for name, seconds in zip(spent, np.diff(marks), strict=True):
            spent[name] += seconds / len(paths)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ilsvrc", type=Path, help="data in the ILSVRC DET layout; its val split is used")
    parser.add_argument("--count", type=int, default=100, help="number of pictures, spread evenly over val")
    parser.add_argument("--model", default="default")
    parser.add_argument("--members", type=int)
    parser.add_argument("--cascade", choices=("on", "off"), default="on")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.ilsvrc, "val")
    paths = [dataset[i].path for i in np.linspace(0, len(dataset) - 1, arguments.count).astype(int)]
    detector = Detector.load(
        arguments.model, device=arguments.device, members=arguments.members, cascade=arguments.cascade == "on"
    )
    print(f"{len(detector.engines)} network(s) on {detector.engines[0].description}")
    counted = 0
    propose = detector.propose

    def propose_and_count(image: np.ndarray, threads: int | None = None):
        nonlocal counted
        found = propose(image, threads)
        counted += len(found)
        return found

    crops = np.random.default_rng(0).integers(0, 256, (256, 224, 224, 3), dtype=np.uint8)
    list(detector.detect_files(paths[:1]))  # compiles networks and kernels
    raw_done, raw_seconds = raw_rate(detector, crops, 2)
    detector.propose = propose_and_count  # type: ignore[method-assign]
    seconds, memory = 0.0, []
    for first in range(0, len(paths), BLOCK):
        start = time.perf_counter()
        for _ in detector.detect_files(paths[first : first + BLOCK]):
            pass
        took = time.perf_counter() - start
        seconds += took
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        done, spent = raw_rate(detector, crops, took / 4)
        raw_done, raw_seconds = raw_done + done, raw_seconds + spent
    rate, raw = counted / seconds, raw_done / raw_seconds
    print(
        f"end to end: {len(paths) / seconds:.3f} pictures/s, {rate:.1f} regions/s "
        f"({counted / len(paths):.0f} regions a picture)"
    )
    print(f"raw forward of one member: {raw:.1f} regions/s; end to end / raw: {rate / raw:.3f}")
    eager = eager_rate(arguments.model, crops)
    print(f"plain torch float32: {eager:.1f} regions/s; end to end / plain torch: {rate / eager:.1f}")
    print(f"peak memory: {memory[0]:.0f} MiB after {min(BLOCK, len(paths))} pictures, {memory[-1]:.0f} after all")
    spent_by_stage = stage_times(detector, paths[:: max(1, len(paths) // 10)])
    whole = sum(spent_by_stage.values())
    for name, value in spent_by_stage.items():
        print(f"  {name}: {value * 1e3:.1f} ms a picture alone, {value / whole:.1%}")


if __name__ == "__main__":
    main()
