"""What is wrong with a data set, found before hours are spent on it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from ...data import boxes as box_ops
from ...data.annotation import AnnotationError
from ...data.dataset import Dataset, Sample
from .windows import TrainingError

# What becomes of boxes that reach beyond their picture: cut off at its border, or left out.
Outside = Literal["clip", "drop"]
# A class with fewer boxes is trained all the same, but its user is told not to expect much.
FEW_BOXES = 20
_SHOWN = 5


def checked(
    dataset: Dataset, outside: Outside = "clip", warn: Callable[[str], None] = lambda warning: None
) -> tuple[Dataset, dict[int, int]]:
    """The data set as it can be trained on, and its objects of each class, difficult ones not counted.

    Every annotation is read, no picture is opened. Objects without area are left out.

    Args:
        outside: what becomes of boxes that reach more than a pixel beyond their picture.
        warn: called with a sentence on boxes that were cut off or left out, and on classes with few objects.

    Returns:
        the data set; the number of objects by category id.

    Raises:
        TrainingError: there are no objects, or pictures or annotations are missing or malformed; all are counted and
            the first of them are named.
    """
    broken: list[str] = []
    beyond: list[str] = []
    empty: list[str] = []
    counts: Counter[int] = Counter()
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
        except AnnotationError as error:
            broken.append(str(error))
            continue
        if not sample.path.is_file():
            broken.append(f"{sample.path}: there is no such picture, though it is annotated")
        reaches = _outside(sample)
        beyond += _names(sample, reaches)
        empty += _names(sample, ~reaches & (box_ops.area(sample.boxes) == 0))
        usable = _usable(sample, outside)
        counts.update(usable.labels[~usable.difficult].tolist())
    if broken:
        lines = "\n".join(broken[:_SHOWN]) + ("\n..." if len(broken) > _SHOWN else "")
        raise TrainingError(f"{dataset.name}: {len(broken)} of {len(dataset)} pictures cannot be trained on:\n{lines}")
    if not counts:
        raise TrainingError(f"{dataset.name}: no picture of {len(dataset)} has an object of a known class")
    if beyond:
        fate = {"clip": "are cut off at its border", "drop": "are left out"}[outside]
        warn(f"{len(beyond)} boxes reach beyond their picture and {fate}: {_some(beyond)}")
    if empty:
        warn(f"{len(empty)} boxes have no area and are left out: {_some(empty)}")
    few = [f"{one.name} {counts[one.id]}" for one in dataset.categories if 0 < counts[one.id] < FEW_BOXES]
    if few:
        warn(f"classes with fewer than {FEW_BOXES} boxes, which will hardly be found: {_some(few)}")
    usable_samples = Dataset(
        dataset.name, dataset.categories, range(len(dataset)), partial(_usable_at, dataset, outside)
    )
    return usable_samples, dict(counts)


def _usable_at(dataset: Dataset, outside: Outside, index: int) -> Sample:
    return _usable(dataset[index], outside)


def _usable(sample: Sample, outside: Outside) -> Sample:
    keep = box_ops.area(sample.boxes) > 0
    if outside == "drop":
        keep &= ~_outside(sample)
    return replace(
        sample, boxes=sample.boxes[keep], labels=sample.labels[keep], difficult=sample.difficult[keep], outside=None
    )


def _outside(sample: Sample) -> np.ndarray:
    return np.zeros(len(sample.boxes), np.bool_) if sample.outside is None else sample.outside


def _names(sample: Sample, which: np.ndarray) -> list[str]:
    return [f"{sample.image_id} (object {number + 1})" for number in np.flatnonzero(which).tolist()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
