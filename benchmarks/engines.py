"""Measure regions per second of each engine, of its compiled network alone, and of plain torch in float32.

    python benchmarks/engines.py [--model FOLDER] [--threads 2] [--regions-from ILSVRC_FOLDER]

All engines take turns on the same batches, so that other load on the machine slows all of them alike. The figures are
medians; a ratio compares engines within one run. Differences of probabilities from plain torch in float32 are computed
on 320 regions of ILSVRC val, or of the photographs of scikit-image if no folder is given.
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
    """Crops of random proposals of random pictures: uint8 RGB [320, 224, 224, 3]."""
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
    parser.add_argument("--rounds", type=int, default=20, help="number of batches on which each engine is timed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    member = load_model(arguments.model).members[0]
    crops = region_crops(arguments.regions_from)

    requested: dict[str, tuple[Kind, Precision]] = {
        "torch float32": ("torch", "float32"),
        "OpenVINO float32": ("openvino", "float32"),
        "OpenVINO": ("openvino", "auto"),
        "OpenVINO 8 bits": ("openvino-int8", "auto"),
    }
    if torch.cuda.is_available():
        requested["torch compiled"] = ("torch-compiled", "auto")
    engines, seconds = {}, {}
    for name, (kind, precision) in requested.items():
        start = time.perf_counter()
        engines[name] = Engine(member, kind=kind, precision=precision, threads=arguments.threads)
        seconds[name] = time.perf_counter() - start

    probabilities = {}
    for name, engine in engines.items():
        probabilities[name] = engine(crops)
    engine_times: dict[str, list[float]] = {name: [] for name in engines}
    network_times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(arguments.rounds):
        for name, engine in engines.items():
            start = number * engine.batch_size % (len(crops) - engine.batch_size + 1)
            batch = crops[start : start + engine.batch_size]
            forward = engine._forward._forward
            assert forward is not None
            pair = [
                (engine_times[name], lambda e=engine, b=batch: e(b)),
                (network_times[name], lambda f=forward, b=batch: wait_for_gpu(f(b))),
            ]
            for times, run in pair if number % 2 else reversed(pair):
                begin = time.perf_counter()
                run()
                times.append((time.perf_counter() - begin) / len(batch))

    reference = probabilities["torch float32"]
    reference_time = statistics.median(engine_times["torch float32"])
    print(f"{arguments.threads} thread(s), load {os.getloadavg()[0]:.1f}")
    for name, engine in engines.items():
        print(f"{name}: {engine.description}")
    columns = "engine", "regions/s", "of its bare network", "of plain torch", "start, s", "largest, mean difference"
    print(f"| {' | '.join(columns)} | same best class |\n|{'---|' * (len(columns) + 1)}")
    for name in engines:
        engine_time = statistics.median(engine_times[name])
        difference = np.abs(probabilities[name] - reference)
        agree = (probabilities[name].argmax(1) == reference.argmax(1)).mean()
        print(
            f"| {name} | {1 / engine_time:.0f} | {statistics.median(network_times[name]) / engine_time:.3f} "
            f"| {reference_time / engine_time:.1f} | {seconds[name]:.1f} "
            f"| {difference.max():.4f}, {difference.mean():.5f} | {agree:.3f} |"
        )


def wait_for_gpu(result: np.ndarray | torch.Tensor) -> None:
    """Wait until the GPU, if `result` lies on one, has computed it."""
    if isinstance(result, torch.Tensor) and result.device.type == "cuda":
        torch.cuda.synchronize(result.device)


if __name__ == "__main__":
    main()
