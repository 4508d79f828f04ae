"""A data set as a detector sees it that knows only some of its classes, or numbers them differently."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ...data.boxes import area
from ...data.categories import Category
from ...data.dataset import Dataset, Sample


def with_known_classes(dataset: Dataset, categories: tuple[Category, ...]) -> Dataset:
    """`dataset` with the classes `categories`, without the objects of other classes and boxes of area 0.

    Classes are compared by name, because layouts without a class list number the classes of each split separately.
    """
    ids = {category.name: category.id for category in categories}
    new_ids = {category.id: ids[category.name] for category in dataset.categories if category.name in ids}
    return Dataset(dataset.name, categories, range(len(dataset)), partial(_known_at, dataset, new_ids))


def warn_of_unknown_classes(
    dataset: Dataset,
    counts: Mapping[int, int],
    categories: Sequence[Category],
    model: str,
    warn: Callable[[str], None],
) -> None:
    """Warn if the data set has objects of classes that a model does not know.

    Args:
        dataset: the data set.
        counts: the number of its objects of each category id.
        categories: the classes of the model.
        model: name of the model in the warning.
        warn: called with the warning.
    """
    known = {category.name for category in categories}
    unknown = [one.name for one in dataset.categories if counts.get(one.id) and one.name not in known]
    if unknown:
        warn(f"{model} does not know some classes, whose objects are left out: {', '.join(unknown)}")


def _known_at(dataset: Dataset, ids: Mapping[int, int], index: int) -> Sample:
    """A sample with the labels that `ids` maps its labels to, without other objects and boxes of area 0."""
    sample = dataset[index]
    known = np.isin(sample.labels, list(ids)) & (area(sample.boxes) > 0)
    labels = np.array([ids[label] for label in sample.labels[known].tolist()], np.int64)
    return replace(
        sample,
        boxes=sample.boxes[known],
        labels=labels,
        difficult=sample.difficult[known],
        outside=None,
        annotated=None if sample.annotated is None else frozenset(ids[one] for one in sample.annotated if one in ids),
    )
