"""Compare the screen of a model with screens that start from it and are trained on few pictures.

    python benchmarks/training_list.py ILSVRC/ imagenet-val/ --out joined/
    python benchmarks/small_screen.py joined/ imagenet-val/ --numbers 8 32 96

Half of the pictures in `joined/held_out.txt` train screens, and pictures of the other half measure: the recall at IoU
0.5 with the best regions of each picture, and with the regions whose score reaches a threshold. The shipped model was
trained on none of them.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import numpy as np

from inception_rcnn.data.boxes import iou
from inception_rcnn.data.dataset import Dataset
from inception_rcnn.data.ilsvrc import open_dataset, read_image_list
from inception_rcnn.data.images import read_image
from inception_rcnn.detection.engines.multibox import MultiBoxEngine
from inception_rcnn.detection.model_files import Model, load_model
from inception_rcnn.detection.training.known_classes import with_known_classes
from inception_rcnn.detection.training.regions import Propose, all_regions
from inception_rcnn.detection.training.screen import ScreenSettings, train_screen
from inception_rcnn.proposals.screen import Screen, ScreenThresholds

COUNTS = (20, 40, 80, 150)
SCORES = (0.005, 0.025, 0.05, 0.1)
NMS = 0.7
SEED = 3


def labels_of(dataset: Dataset) -> set[int]:
    """The classes of which the data set has boxes."""
    return {label for sample in dataset for label in sample.labels.tolist()}


def line(name: str, screen: Screen, model: Model, pictures: Dataset, propose: Propose) -> str:
    """The row of a screen: recall with the best regions, and with those that reach a score, with their mean number."""
    assert model.multibox is not None
    screen.thresholds = ScreenThresholds(0.0, NMS)
    engine = MultiBoxEngine(model.multibox, screen)
    objects, found = 0, np.zeros(len(COUNTS) + len(SCORES))
    kept = np.zeros(len(SCORES))
    for sample in pictures:
        image = read_image(sample.path)
        feature_map = engine.look(image).feature_map
        assert feature_map is not None
        regions = screen.keep(propose(sample.path), feature_map, image.shape[1], image.shape[0])
        reaching = [int((regions.scores >= score).sum()) for score in SCORES]
        objects += len(sample.boxes)
        kept += reaching
        covered = iou(sample.boxes, regions.boxes) >= 0.5  # [objects, regions], best region first
        found += [covered[:, :count].any(axis=1).sum() for count in (*COUNTS, *reaching)]
    recall = [f"{value / objects:.3f}" for value in found]
    pairs = zip(recall[len(COUNTS) :], kept / len(pictures), strict=True)
    return f"| {name} | {' | '.join(recall[: len(COUNTS)])} | {' | '.join(f'{a} ({b:.0f})' for a, b in pairs)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("joined", type=Path, help="the folder that `benchmarks/training_list.py` makes")
    parser.add_argument("imagenet_val", type=Path, help="data in the ILSVRC DET layout with the split dev")
    parser.add_argument("--model", default="default")
    parser.add_argument("--numbers", type=int, nargs="+", default=[8, 32, 96], help="numbers of training pictures")
    parser.add_argument("--measured", type=int, default=60, help="largest number of pictures to measure on")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    assert model.multibox is not None
    assert model.screen is not None
    pictures = open_dataset(arguments.imagenet_val, "dev")
    held_out = {name for name, _ in read_image_list(arguments.joined / "held_out.txt")}
    rows = [row for row, one in enumerate(pictures) if one.image_id in held_out and len(one.boxes)]
    np.random.default_rng(SEED).shuffle(rows)
    middle = len(rows) // 2
    learned, measured = pictures.part(rows[:middle]), pictures.part(rows[middle : middle + arguments.measured])
    print(f"{len(measured)} pictures of {len(labels_of(measured))} classes; in brackets: regions of a picture")
    best = " | ".join(f"{count} regions" for count in COUNTS)
    print(f"| screen | {best} | {' | '.join(f'score {score}' for score in SCORES)} |")
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        with all_regions(work / "proposals.sqlite", model.regions, model.multibox) as propose:
            print(line("of the model", copy.deepcopy(model.screen), model, measured, propose))
            for number in arguments.numbers:
                few = learned.part(range(number))
                classes = tuple(one for one in few.categories if one.id in labels_of(few))
                screen = train_screen(
                    model.multibox,
                    with_known_classes(few, classes),
                    lambda sample: propose(sample.path),
                    classes,
                    ScreenSettings(),
                    work / str(number),
                    start=model.screen,
                )
                print(line(f"trained on {len(few)} pictures", screen, model, measured, propose), flush=True)


if __name__ == "__main__":
    main()
