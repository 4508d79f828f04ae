"""Checks of a data set before a training, which takes hours."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np

from ...data import boxes as box_ops
from ...data.annotation import AnnotationError
from ...data.categories import Category
from ...data.dataset import Dataset, Sample
from ...data.images import ImageError, read_size
from .errors import TrainingError

# What to do with boxes that reach beyond their picture: clip them to the picture, or drop them.
OutsidePolicy = Literal["clip", "drop"]
# Classes with fewer boxes are trained, but with a warning.
FEW_BOXES = 20
# Number of pictures, boxes or classes that a message names.
_NAMED = 5


def check_dataset(
    dataset: Dataset,
    outside: OutsidePolicy = "clip",
    warn: Callable[[str], None] = lambda warning: None,
    learns_classes: bool = True,
) -> tuple[Dataset, dict[int, int]]:
    """Check all annotations and picture sizes, and clip or drop boxes so that the data set can be trained on.

    Args:
        dataset: the data set. Its pictures are not decoded.
        outside: what to do with boxes that reach more than a pixel beyond their picture.
        warn: called with a sentence about pictures whose size differs from their annotation, about boxes that are
            clipped or dropped, about classes with few boxes or none, and about names that differ in case only.
        learns_classes: whether the training distinguishes classes; if not, classes are not warned about.

    Returns:
        The data set without boxes of area 0, and with boxes clipped to their pictures;
        the number of objects of each category id, without difficult objects and categories without objects.

    Raises:
        TrainingError: there are no objects, or pictures or annotations are missing or malformed. The message has their
            number and names the first of them.
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
            broken.append(str(error) if os.path.isfile(sample.path) else f"{sample.path}: annotated picture is missing")
            continue
        width, height = sizes[-1]
        if sample.size is not None and sample.size != (width, height):
            resized.append(f"{sample.image_id} ({width} x {height}, annotated as {sample.size[0]} x {sample.size[1]})")
        reaches_beyond = _reaches_beyond(sample, width, height)
        beyond += _object_names(sample, reaches_beyond)
        empty += _object_names(sample, ~reaches_beyond & (box_ops.area(sample.boxes) == 0))
        usable = _usable(sample, outside, width, height)
        counts.update(usable.labels[~usable.difficult].tolist())
    if broken:
        lines = "\n".join(broken[:_NAMED]) + ("\n..." if len(broken) > _NAMED else "")
        raise TrainingError(f"{dataset.name}: {len(broken)} of {len(dataset)} pictures cannot be trained on:\n{lines}")
    if not counts:
        raise TrainingError(f"{dataset.name}: none of {len(dataset)} pictures has an object of a known class")
    if resized:
        warn(
            f"{len(resized)} pictures differ in size from their annotation; boxes are read as pixels of the upright "
            f"picture in the file: {_first(resized)}"
        )
    if beyond:
        fate = {"clip": "are clipped to it", "drop": "are left out"}[outside]
        warn(f"{len(beyond)} boxes reach beyond their picture and {fate}: {_first(beyond)}")
    if empty:
        warn(f"{len(empty)} boxes have no area and are left out: {_first(empty)}")
    if learns_classes:
        few = [f"{one.name} {counts[one.id]}" for one in dataset.categories if 0 < counts[one.id] < FEW_BOXES]
        if few:
            warn(f"classes with fewer than {FEW_BOXES} boxes will rarely be detected: {_first(few)}")
        without_boxes = [one.name for one in dataset.categories if not counts[one.id]]
        if without_boxes:
            share = f"{len(without_boxes)} of {len(dataset.categories)}"
            warn(f"{share} classes have no boxes, so the detector will not know them: {_first(without_boxes)}")
        for names in _same_but_for_case(dataset.categories, counts):
            warn(
                f"the names of classes differ in case or spaces only: {', '.join(names)} boxes; they are learnt as "
                "different classes, so give them one name in the annotations if they are one class"
            )
    usable_samples = Dataset(
        dataset.name, dataset.categories, range(len(dataset)), partial(_usable_at, dataset, outside, sizes)
    )
    return usable_samples, dict(counts)


def _same_but_for_case(categories: Sequence[Category], counts: Counter[int]) -> list[list[str]]:
    """Groups of classes with boxes whose names differ in case or spaces only: names and numbers of boxes."""
    groups: dict[str, list[str]] = {}
    for one in categories:
        if counts[one.id]:
            key = "".join(one.name.casefold().split())
            groups.setdefault(key, []).append(f"{one.name!r} with {counts[one.id]:,}")
    return [group for group in groups.values() if len(group) > 1]


def _usable_at(dataset: Dataset, outside: OutsidePolicy, sizes: Sequence[tuple[int, int]], index: int) -> Sample:
    return _usable(dataset[index], outside, *sizes[index])


def _usable(sample: Sample, outside: OutsidePolicy, width: int, height: int) -> Sample:
    """The sample with its boxes clipped to the picture, without boxes of area 0."""
    boxes = box_ops.clip(sample.boxes, width, height)
    keep = box_ops.area(boxes) > 0
    if outside == "drop":
        keep &= ~_reaches_beyond(sample, width, height)
    return replace(
        sample, boxes=boxes[keep], labels=sample.labels[keep], difficult=sample.difficult[keep], outside=None
    )


def _reaches_beyond(sample: Sample, width: int, height: int) -> np.ndarray:
    """Whether each box reaches beyond the picture, or did before it was clipped to the annotated size: bool [N]."""
    beyond = box_ops.reach_beyond(sample.boxes, width, height)
    return beyond if sample.outside is None else beyond | sample.outside


def _object_names(sample: Sample, which: np.ndarray) -> list[str]:
    return [f"{sample.image_id} (object {number + 1})" for number in np.flatnonzero(which).tolist()]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
