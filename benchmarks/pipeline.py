"""Measure the time of a picture, from file to detections, in units of one raw forward pass of one network.

    python benchmarks/pipeline.py ILSVRC_FOLDER --count 24

The unit does not depend on the machine. Detection of a block of pictures and raw forward passes of the first network
over noise take turns, so that other load on the machine slows both alike. Then each stage is timed alone on some of the
pictures, and the peak memory is printed.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inception_rcnn import Detector, read_image, selective_search
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.detection.detector import FileResult, ScoredPicture
from inception_rcnn.detection.engines.engine import Engine
from inception_rcnn.detection.model_files import load_model
from inception_rcnn.detection.pipeline import ScoredRegions
from inception_rcnn.detection.regression import LEAST_PROBABILITY
from inception_rcnn.detection.warping.warp import warp_regions
from inception_rcnn.proposals.combine import combine

BLOCK = 4  # pictures between two measurements of the raw forward pass


def raw_rate(engine: Engine, crops: np.ndarray, seconds: float) -> tuple[int, float]:
    """Run one network for at least `seconds`; return the number of regions and the time in seconds."""
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        engine.features(crops)
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
    spent: dict[str, float] = {}

    def timed(stage: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **options)
        spent[stage] = spent.get(stage, 0.0) + (time.perf_counter() - start) / len(paths)
        return result

    regions = detector.regions
    for path in paths:
        image = timed("decoding", read_image, path)
        height, width = image.shape[:2]
        proposals = timed(
            "selective search",
            selective_search,
            image,
            superpixel_scale=regions.superpixel_scale,
            min_side=regions.min_side,
            connectivity=regions.connectivity,
            threads=1,
        )
        if detector.multibox is not None:
            view = timed("MultiBox", detector.multibox.look, image)
            proposals = timed("union", combine, proposals, view.proposals)
            if detector.screen is not None:
                map_and_size = (view.feature_map, width, height)
                proposals = timed("screen", detector.screen.keep, proposals, *map_and_size, detector.max_regions)
        crops = timed("warping", warp_regions, image, proposals.boxes)
        found = timed("networks", detector.ensemble, crops)
        kept = np.flatnonzero(found.objectness >= LEAST_PROBABILITY)
        scores = ScoredRegions(found.probabilities, kept, found.features[kept])
        timed("detections", detector.detections, ScoredPicture(FileResult(path, image, None, None), proposals, scores))
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ilsvrc", type=Path, help="data in the ILSVRC DET layout; its val split is used")
    parser.add_argument("--count", type=int, default=24, help="number of pictures, spread evenly over val")
    parser.add_argument("--model", default="default")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--members", type=int)
    parser.add_argument("--cascade", choices=("on", "off"), default="on")
    parser.add_argument("--screen", choices=("on", "off"), default="on")
    parser.add_argument("--regions", type=int)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.ilsvrc, "val")
    paths = [dataset[i].path for i in np.linspace(0, len(dataset) - 1, arguments.count).astype(int)]
    detector = Detector.load(
        arguments.model,
        device=arguments.device,
        engine=arguments.engine,
        members=arguments.members,
        cascade=arguments.cascade == "on",
        screen=arguments.screen == "on",
        max_regions=arguments.regions,
    )
    raw = Engine(load_model(arguments.model).members[0], device=arguments.device)
    print(f"{len(detector.ensemble.engines)} network(s) on {detector.ensemble.description}; unit: {raw.description}")
    counted = 0
    propose = detector.propose

    def propose_and_count(image: np.ndarray, threads: int | None = None):
        nonlocal counted
        found = propose(image, threads)
        counted += len(found)
        return found

    crops = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), dtype=np.uint8)
    list(detector.detect_files(paths[:1]))  # compiles networks and kernels
    raw_done, raw_seconds = raw_rate(raw, crops, 2)
    detector.propose = propose_and_count  # type: ignore[method-assign]
    seconds, memory = 0.0, []
    for first in range(0, len(paths), BLOCK):
        start = time.perf_counter()
        for _ in detector.detect_files(paths[first : first + BLOCK]):
            pass
        took = time.perf_counter() - start
        seconds += took
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        done, spent = raw_rate(raw, crops, max(2.0, took / 4))
        raw_done, raw_seconds = raw_done + done, raw_seconds + spent
    unit = raw_seconds / raw_done
    each = seconds / len(paths)
    print(f"raw forward pass of one network: {1 / unit:.1f} regions/s")
    print(
        f"a picture: {each:.2f} s = {each / unit:.0f} raw forward passes, "
        f"{counted / len(paths):.0f} regions shown to the first network"
    )
    rate, eager = counted / seconds, eager_rate(arguments.model, crops)
    print(f"end to end: {rate:.1f} regions/s, {rate * unit:.2f} of the raw forward pass")
    print(f"plain torch float32: {eager:.1f} regions/s; end to end / plain torch: {rate / eager:.1f}")
    print(f"peak memory: {memory[0]:.0f} MiB after {min(BLOCK, len(paths))} pictures, {memory[-1]:.0f} after all")
    spent_by_stage = stage_times(detector, paths[:: max(1, len(paths) // 10)])
    whole = sum(spent_by_stage.values())
    print("| stage, alone | ms a picture | raw forward passes | share |")
    print("|---|---|---|---|")
    for name, value in spent_by_stage.items():
        print(f"| {name} | {value * 1e3:.1f} | {value / unit:.1f} | {value / whole:.1%} |")


if __name__ == "__main__":
    main()
