"""Measure the size, the multiply-adds, the time on one core and the exactness of exported networks.

    detect-export MODEL --out onnx32/ && detect-export MODEL --out onnx8/ --int8
    detect-export MODEL --format openvino --out ov32/ && detect-export MODEL --format openvino --out ov8/ --int8
    python benchmarks/exported.py onnx32/ onnx8/ ov32/ ov8/ [--model MODEL]

Times are those of this process on one core: time in which other programs have the core does not count. The networks
take turns on the same crops, so the ratios of one run are more reliable than its times. ONNX Runtime runs an 8-bit
network twice, with and without the setting that the exported README.md names. Differences are those of the first
member's probabilities from plain torch, in float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from skimage import data

from inception_rcnn import selective_search
from inception_rcnn.detection.engines.engine import Engine
from inception_rcnn.detection.model_files import load_model
from inception_rcnn.detection.networks.costs import layer_costs
from inception_rcnn.detection.warping.warp import warp_regions

REGIONS = 64

Network = Callable[[np.ndarray], np.ndarray]


def region_crops() -> np.ndarray:
    """Crops of random proposals of a photograph of scikit-image: uint8 RGB [64, 224, 224, 3]."""
    image = np.ascontiguousarray(data.coffee())
    boxes = selective_search(image, superpixel_scale=2.0).boxes
    return warp_regions(image, boxes[np.random.default_rng(0).choice(len(boxes), REGIONS, replace=False)])


def onnx_network(file: Path, precise: bool) -> Network:
    """A network of ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", str(int(precise)))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda crops: session.run(None, {"pixels": crops})[0]


def openvino_network(file: Path) -> Network:
    """A network of OpenVINO on one thread, in float32 where it is not in 8 bits."""
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.compile_model(file, "CPU", settings)
    return lambda crops: compiled([crops])[0]


def megabytes(folder: Path, name: str) -> float:
    """Size of the files of a network, in MB of 1,000,000 bytes."""
    return sum(file.stat().st_size for file in folder.glob(f"{name}.*")) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of detect-export")
    parser.add_argument("--model", default="default", help="the model that was exported")
    parser.add_argument("--batch", type=int, default=1, help="regions in a forward pass that is timed")
    parser.add_argument("--rounds", type=int, default=15, help="forward passes of each network that are timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    networks: dict[str, tuple[Path, Network]] = {}
    for folder in arguments.folders:
        file = folder / "member_1.onnx"
        if not file.exists():
            networks[f"{folder.name}, OpenVINO"] = folder, openvino_network(folder / "member_1.xml")
            continue
        networks[f"{folder.name}, ONNX Runtime"] = folder, onnx_network(file, precise=False)
        if "## 8 bits" in (folder / "README.md").read_text(encoding="utf-8"):
            networks[f"{folder.name}, ONNX Runtime, precise"] = folder, onnx_network(file, precise=True)

    model = load_model(arguments.model)
    crops = region_crops()
    reference = Engine(model.members[0], kind="torch", columns=model.output_columns())(crops)
    found = {name: network(crops) for name, (_, network) in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    for number in range(arguments.rounds):
        batch = crops[number % REGIONS :][: arguments.batch]
        for name, (_, network) in networks.items():
            start = time.process_time()
            network(batch)
            times[name].append((time.process_time() - start) / len(batch))

    costs = layer_costs(model.members[0], 3, 224, 224).values()
    print(f"{sum(cost.multiply_adds for cost in costs) / 1e6:,.0f} M multiply-adds, load {os.getloadavg()[0]:.1f}")
    print("| network | member, MB | MultiBox, MB | ms a region | time of the first | largest, mean difference |")
    print("|---|---|---|---|---|---|")
    first = statistics.median(next(iter(times.values())))
    for name, (folder, _) in networks.items():
        median = statistics.median(times[name])
        difference = np.abs(found[name] - reference)
        print(
            f"| {name} | {megabytes(folder, 'member_1'):.1f} | {megabytes(folder, 'multibox'):.1f} "
            f"| {1000 * median:.0f} | {median / first:.2f} | {difference.max():.6f}, {difference.mean():.6f} |"
        )


if __name__ == "__main__":
    main()
