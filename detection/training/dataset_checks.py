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
from ...data.images import ImageError, read_size
from .errors import TrainingError

# What becomes of boxes that reach beyond their picture: cut off at its border, or left out.
OutsidePolicy = Literal["clip", "drop"]
# A class with fewer boxes is trained all the same, but its user is told not to expect much.
FEW_BOXES = 20
_SHOWN = 5


def check_dataset(
    dataset: Dataset,
    outside: OutsidePolicy = "clip",
    warn: Callable[[str], None] = lambda warning: None,
    learns_classes: bool = True,
) -> tuple[Dataset, dict[int, int]]:
    """The data set as it can be trained on, and its objects of each class, difficult ones not counted.

    Every annotation is read, and of every picture its size. Objects without area are left out.

    Args:
        outside: what becomes of boxes that reach more than a pixel beyond their picture.
        warn: called with a sentence on pictures of another size than their annotation says, on boxes that were cut off
            or left out, and on classes with few objects or none.
        learns_classes: whether what is trained tells classes apart; else nothing is said of them.

    Returns:
        the data set; the number of objects by category id.

    Raises:
        TrainingError: there are no objects, or pictures or annotations are missing or malformed; all are counted and
            the first of them are named.
    """
    broken: list[str] = []
    beyond: list[str] = []
    sizes: list[tuple[int, int]] = []
    resized: list[str] = []
    empty: list[str] = []
    counts: Counter[int] = Counter()
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
        except AnnotationError as error:
            broken.append(str(error))
            continue
        try:
            sizes.append(read_size(sample.path))
        except ImageError as error:
            there = sample.path.is_file()
            broken.append(str(error) if there else f"{sample.path}: there is no such picture, though it is annotated")
            continue
        width, height = sizes[-1]
        if sample.size is not None and sample.size != (width, height):
            resized.append(f"{sample.image_id} ({width} x {height}, annotated as {sample.size[0]} x {sample.size[1]})")
        reaches = _outside(sample, width, height)
        beyond += _names(sample, reaches)
        empty += _names(sample, ~reaches & (box_ops.area(sample.boxes) == 0))
        usable = _usable(sample, outside, width, height)
        counts.update(usable.labels[~usable.difficult].tolist())
    if broken:
        lines = "\n".join(broken[:_SHOWN]) + ("\n..." if len(broken) > _SHOWN else "")
        raise TrainingError(f"{dataset.name}: {len(broken)} of {len(dataset)} pictures cannot be trained on:\n{lines}")
    if not counts:
        raise TrainingError(f"{dataset.name}: no picture of {len(dataset)} has an object of a known class")
    if resized:
        warn(
            f"{len(resized)} pictures have another size than their annotation says; boxes are taken as pixels of the "
            f"upright picture as it is now: {_some(resized)}"
        )
    if beyond:
        fate = {"clip": "are cut off at its border", "drop": "are left out"}[outside]
        warn(f"{len(beyond)} boxes reach beyond their picture and {fate}: {_some(beyond)}")
    if empty:
        warn(f"{len(empty)} boxes have no area and are left out: {_some(empty)}")
    few = [f"{one.name} {counts[one.id]}" for one in dataset.categories if 0 < counts[one.id] < FEW_BOXES]
    if few and learns_classes:
        warn(f"classes with fewer than {FEW_BOXES} boxes, which will hardly be found: {_some(few)}")
    none = [one.name for one in dataset.categories if not counts[one.id]]
    if none and learns_classes:
        of = f"{len(none)} of {len(dataset.categories)}"
        warn(f"{of} classes have no box, and the detector will not know them: {_some(none)}")
    usable_samples = Dataset(
        dataset.name, dataset.categories, range(len(dataset)), partial(_usable_at, dataset, outside, sizes)
    )
    return usable_samples, dict(counts)


def _usable_at(dataset: Dataset, outside: OutsidePolicy, sizes: Sequence[tuple[int, int]], index: int) -> Sample:
    return _usable(dataset[index], outside, *sizes[index])


def _usable(sample: Sample, outside: OutsidePolicy, width: int, height: int) -> Sample:
    boxes = box_ops.clip(sample.boxes, width, height)
    keep = box_ops.area(boxes) > 0
    if outside == "drop":
        keep &= ~_outside(sample, width, height)
    return replace(
        sample, boxes=boxes[keep], labels=sample.labels[keep], difficult=sample.difficult[keep], outside=None
    )


def _outside(sample: Sample, width: int, height: int) -> np.ndarray:
    """Boxes that reach beyond the picture, or did before they were clipped to its annotated size."""
    reaches = box_ops.reach_beyond(sample.boxes, width, height)
    return reaches if sample.outside is None else reaches | sample.outside


def _names(sample: Sample, which: np.ndarray) -> list[str]:
    return [f"{sample.image_id} (object {number + 1})" for number in np.flatnonzero(which).tolist()]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
