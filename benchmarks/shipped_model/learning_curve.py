"""Learning curves of a network: how much more windows, or more steps, would bring.

    python benchmarks/shipped_model/learning_curve.py joined/ --regions model/training/regions.npz \\
        --teacher bvlc_googlenet.caffemodel --teacher-classes imagenet_to_det.tsv --work curves/

The regions are those that `train.py` stores. A tenth of the pictures, drawn at random, is held out. A network starts
from the teacher and learns with a part of the windows of the other pictures, and then for other numbers of steps with
all of them. The tables show what it makes of the held-out windows: the share of windows of objects whose class it finds
with a probability of at least 0.5, the same for backgrounds, and the mean loss. An interrupted run goes on where it
stopped. Only the blocks from `--freeze-below` on are trained, so that a CPU can compute the curves.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from regions import Regions
from train import SEED, print_progress, with_teachers_outputs

from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.detection.model_files import RegionSettings
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training.finetune import FineTuneSettings, fine_tune, frozen_blocks
from inception_rcnn.detection.training.initial_network import initial_network
from inception_rcnn.detection.training.lower_features import LowerBlocks, stored_features, window_crops
from inception_rcnn.detection.training.teacher import Lesson, make_lesson, read_teacher, set_loss
from inception_rcnn.detection.training.windows import Windows, draw_pool
from inception_rcnn.detection.training.windows_stage import with_outputs

HELD_OUT = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that training_list.py made")
    parser.add_argument("--regions", type=Path, required=True, help="the file regions.npz that train.py stored")
    parser.add_argument("--teacher", required=True, help="a classifier of ImageNet's 1,000 classes")
    parser.add_argument("--teacher-classes", type=Path, required=True, help="see detect-train")
    parser.add_argument("--work", type=Path, required=True, help="folder for features and checkpoints")
    parser.add_argument("--freeze-below", default="inception_5a", help="the lowest block that is trained")
    parser.add_argument("--pool", type=int, default=8_000, help="number of all windows to learn from")
    parser.add_argument("--measured", type=int, default=2_000, help="number of held-out windows to measure on")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 1], help="parts of the pictures")
    parser.add_argument("--steps", type=int, nargs="+", default=[120, 60, 240], help="the first is for the parts")
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.data, "train")
    teacher = read_teacher(initial_network(arguments.teacher), arguments.teacher_classes, dataset.categories)
    boxed = {label for sample in dataset for label in sample.labels.tolist()}
    lesson = make_lesson(teacher, dataset, dataset.categories, boxed)
    assert lesson is not None
    torch.manual_seed(SEED)
    initial = with_teachers_outputs(lesson)
    regions = Regions.load(arguments.regions)
    windows = with_outputs(Windows(regions.images, regions.boxes, regions.labels), dataset.categories)
    settings = RegionSettings()
    pictures = np.random.default_rng(SEED).permutation(len(dataset))
    held_out, learned = np.split(pictures, [round(HELD_OUT * len(dataset))])
    measured = draw_pool(_of_pictures(windows, held_out), arguments.measured, SEED)
    arguments.work.mkdir(parents=True, exist_ok=True)
    frozen = frozen_blocks(initial, arguments.freeze_below)
    maps = stored_features(
        LowerBlocks(initial, frozen),
        partial(window_crops, dataset, measured, settings, SEED),
        len(measured),
        arguments.work / f"measured_{arguments.freeze_below}_{len(measured)}.npy",
        stage="held-out windows",
        report=print_progress,
    )

    def learn(share: float, steps: int, member: int) -> tuple[int, list[float]]:
        """Train a network, the member `member` of the networks with these windows; return their number and figures."""
        available = _of_pictures(windows, learned[: round(share * len(learned))])
        part = draw_pool(available, round(share * arguments.pool), SEED)
        network = copy.deepcopy(initial)
        recipe = FineTuneSettings(iterations=steps, freeze_below=arguments.freeze_below, pool=len(part), seed=SEED)
        folder = arguments.work / f"windows_{len(part)}"
        fine_tune(network, dataset, part, settings, recipe, folder, lesson=lesson, member=member, report=print_progress)
        return len(part), figures(network, frozen, maps, measured, lesson)

    print_table("windows", [learn(share, arguments.steps[0], 1) for share in arguments.shares])
    curve = [(steps, learn(1, steps, member)[1]) for member, steps in enumerate(arguments.steps, 1)]
    print_table("steps", sorted(curve))


def _of_pictures(windows: Windows, pictures: np.ndarray) -> Windows:
    """The windows of these pictures, which are given by number."""
    return windows[np.flatnonzero(np.isin(windows.images, pictures))]


@torch.inference_mode()
def figures(network: GoogLeNet, frozen: int, maps: np.ndarray, windows: Windows, lesson: Lesson) -> list[float]:
    """The shares of the windows of objects and of the backgrounds that are right, and the mean loss."""
    logits = torch.cat(
        [
            network.classify(network.trunk[frozen:](torch.from_numpy(maps[start : start + 128]).float()))
            for start in range(0, len(maps), 128)
        ]
    )
    right = lesson.right_outputs(windows.labels, windows.images, None)
    found = ((logits.softmax(1) * right).sum(1) >= 0.5).numpy()
    objects = windows.labels > 0
    return [float(found[objects].mean()), float(found[~objects].mean()), set_loss(logits, right).item()]


def print_table(name: str, rows: Sequence[tuple[int, Sequence[float]]]) -> None:
    """Print a curve as a table in Markdown."""
    print(f"\n| {name} | objects | backgrounds | loss |\n|---|---|---|---|")
    for number, (objects, backgrounds, loss) in rows:
        print(f"| {number:,} | {objects:.3f} | {backgrounds:.3f} | {loss:.3f} |")


if __name__ == "__main__":
    main()
