"""Measure the throughput of `detect-classify`, from files to probabilities, as a share of raw forward passes.

    python benchmarks/classification.py PICTURES... --model bvlc_googlenet.caffemodel --crops 10

Blocks of pictures and raw forward passes of the same networks over noise take turns, so that other load on the machine
slows both alike. The share does not depend on the machine as much as pictures per second do.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from itertools import cycle, islice

import numpy as np

from inception_rcnn.data.listing import find_images
from inception_rcnn.detection.classification import Classifier, find_picture_model
from inception_rcnn.detection.engines.engine import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="PICTURES", help="pictures or folders")
    parser.add_argument("--model", default="default")
    parser.add_argument("--crops", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=96, help="number of pictures in all; they may repeat")
    parser.add_argument("--block", type=int, default=48, help="pictures between two measurements of raw passes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    paths = list(islice(cycle(find_images(arguments.inputs, recursive=True)), arguments.pictures))
    model = find_picture_model(arguments.model)
    members, columns = model.load()
    # The raw pass is that of the first network alone, so a model of several networks would share its lower blocks only
    # end to end.
    first = replace(model, networks=1, load=lambda: (members[:1], columns))
    classifier = Classifier([first], device=arguments.device, engine=arguments.engine)
    raw = Engine(members[0], device=arguments.device, kind=arguments.engine)
    noise = np.random.default_rng(0).integers(0, 256, (4 * raw.batch_size, 224, 224, 3), np.uint8)
    list(classifier.classify_files(paths[:2], [arguments.crops]))  # compiles networks and kernels
    raw.features(noise)

    print(f"{raw.description}, {arguments.crops} crop(s), load {os.getloadavg()[0]:.1f}")
    done, spent, raw_done, raw_spent = 0, 0.0, 0, 0.0
    for first in range(0, len(paths), arguments.block):
        block = paths[first : first + arguments.block]
        start = time.perf_counter()
        read = sum(one.error is None for one in classifier.classify_files(block, [arguments.crops]))
        took = time.perf_counter() - start
        done, spent = done + read * arguments.crops, spent + took
        start = time.perf_counter()
        while time.perf_counter() - start < took:
            raw.features(noise)
            raw_done += len(noise)
        raw_spent += time.perf_counter() - start
    rate, raw_rate = done / spent, raw_done / raw_spent
    print(f"end to end: {rate:.1f} crops/s; raw forward pass: {raw_rate:.1f} crops/s; share: {rate / raw_rate:.3f}")


if __name__ == "__main__":
    main()
