"""Regions a second of each engine, beside the bare network that it has compiled and beside plain torch in float32.

    python benchmarks/engines.py [--model FOLDER] [--threads 2] [--regions-from ILSVRC_FOLDER]

All engines take the same batches in turn, batch by batch, so that whatever else the machine does falls on all alike;
figures are medians, and ratios those of one run. Differences of probabilities from plain torch in float32 are taken
over 320 regions: of ILSVRC val where a folder is given, else of the photographs that come with scikit-image.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from inception_rcnn import read_image, selective_search
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.detection.engines.choice import Kind, Precision
from inception_rcnn.detection.engines.engine import Engine
from inception_rcnn.detection.model_files import load_model
from inception_rcnn.detection.warping.warp import warp_regions

REGIONS = 320
PER_PICTURE = 32


def region_crops(folder: Path | None) -> np.ndarray:
    """Proposals of pictures drawn at random: uint8 RGB [320, 224, 224, 3]."""
    rng = np.random.default_rng(0)
    if folder is not None:
        dataset = open_dataset(folder, "val")
        chosen = rng.choice(len(dataset), REGIONS // PER_PICTURE, replace=False)
        images = [read_image(dataset[int(index)].path) for index in chosen]
    else:
        from skimage import data

        images = [np.ascontiguousarray(image) for image in (data.astronaut(), data.chelsea(), data.coffee())]
    crops: list[np.ndarray] = []
    while len(crops) * PER_PICTURE < REGIONS:
        image = images[len(crops) % len(images)]
        boxes = selective_search(image, superpixel_scale=2.0).boxes
        crops.append(warp_regions(image, boxes[rng.choice(len(boxes), PER_PICTURE, replace=False)]))
    return np.concatenate(crops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--regions-from", type=Path, metavar="ILSVRC_FOLDER")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=20, help="batches that each engine is timed on")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    member = load_model(arguments.model).members[0]
    crops = region_crops(arguments.regions_from)

    asked: dict[str, tuple[Kind, Precision]] = {
        "torch float32": ("torch", "float32"),
        "OpenVINO float32": ("openvino", "float32"),
        "OpenVINO": ("openvino", "auto"),
        "OpenVINO 8 bits": ("openvino-int8", "auto"),
    }
    if torch.cuda.is_available():
        asked["torch compiled"] = ("torch-compiled", "auto")
    engines, seconds = {}, {}
    for name, (kind, precision) in asked.items():
        start = time.perf_counter()
        engines[name] = Engine(member, kind=kind, precision=precision, threads=arguments.threads)
        seconds[name] = time.perf_counter() - start

    probabilities = {}
    for name, engine in engines.items():
        probabilities[name] = engine(crops)
    called: dict[str, list[float]] = {name: [] for name in engines}
    bare: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(arguments.rounds):
        for name, engine in engines.items():
            start = number * engine.batch_size % (len(crops) - engine.batch_size + 1)
            batch = crops[start : start + engine.batch_size]
            forward = engine._forward._forward
            assert forward is not None
            pair = [
                (called[name], lambda e=engine, b=batch: e(b)),
                (bare[name], lambda f=forward, b=batch: finish(f(b))),
            ]
            for times, run in pair if number % 2 else reversed(pair):
                begin = time.perf_counter()
                run()
                times.append((time.perf_counter() - begin) / len(batch))

    reference = probabilities["torch float32"]
    slow = statistics.median(called["torch float32"])
    print(f"{arguments.threads} thread(s), load {os.getloadavg()[0]:.1f}")
    for name, engine in engines.items():
        print(f"{name}: {engine.description}")
    columns = "engine", "regions/s", "of its bare network", "of plain torch", "start, s", "largest, mean difference"
    print(f"| {' | '.join(columns)} | same best class |\n|{'---|' * (len(columns) + 1)}")
    for name in engines:
        each = statistics.median(called[name])
        difference = np.abs(probabilities[name] - reference)
        agree = (probabilities[name].argmax(1) == reference.argmax(1)).mean()
        print(
            f"| {name} | {1 / each:.0f} | {statistics.median(bare[name]) / each:.3f} | {slow / each:.1f} "
            f"| {seconds[name]:.1f} | {difference.max():.4f}, {difference.mean():.5f} | {agree:.3f} |"
        )


def finish(result: np.ndarray | torch.Tensor) -> None:
    """Wait for what a GPU still works on."""
    if isinstance(result, torch.Tensor) and result.device.type == "cuda":
        torch.cuda.synchronize(result.device)


if __name__ == "__main__":
    main()
