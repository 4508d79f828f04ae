"""A data set: a sequence of annotated pictures, independent of the file format."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .annotation import Annotation
from .boxes import clip
from .categories import Category

_CACHED_SAMPLES = 20_000  # kept in memory, about 1 KB each; ILSVRC train has more samples than this

_Record = TypeVar("_Record")


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and its N objects. N may be 0.

    Attributes:
        image_id: name of the picture in the data set, for ILSVRC without suffix ("ILSVRC2013_val_00001737").
        index: number of the picture in the image list (1-based), which submission files use.
        path: the picture file.
        boxes: float32 [N, 4], see `data.boxes`.
        labels: int64 [N], the `Category.id` of each object.
        difficult: bool [N], objects that the evaluation ignores (PASCAL VOC).
        outside: bool [N], boxes that extended more than a pixel beyond the picture before they were clipped; None if
            not checked.
        size: width and height of the picture in pixels, from its annotation; None if the annotation has no size.
        annotated: the ids of the classes whose objects are all annotated, see `data.partial`; None for all classes.
    """

    image_id: str
    index: int
    path: Path
    boxes: npt.NDArray[np.float32] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    difficult: npt.NDArray[np.bool_] = field(repr=False)
    outside: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    size: tuple[int, int] | None = None
    annotated: frozenset[int] | None = None

    @classmethod
    def from_annotation(
        cls, image_id: str, index: int, path: Path, annotation: Annotation | None, ids: Mapping[str, int]
    ) -> Sample:
        """Makes a sample from an annotation; clips the boxes to the picture if the annotation has its size.

        Args:
            annotation: None for a picture without objects and without an annotation file.
            ids: class id by WNID and by name, from `categories.category_ids`.

        Raises:
            AnnotationError: the class of an object is not in `ids`.
        """
        known = annotation or Annotation(image_id, 0, 0)
        size = (known.width, known.height) if known.width and known.height else None
        width, height = size or (math.inf, math.inf)
        return cls(
            image_id=image_id,
            index=index,
            path=path,
            boxes=clip(known.boxes, width, height),
            labels=known.labels(ids),
            difficult=known.difficult,
            outside=known.outside,
            size=size,
        )


class Dataset(Sequence[Sample]):
    """A sequence of samples. A sample is read from its file on first access.

    Samples are kept and returned again, so their arrays are read-only. A data set can be pickled if `read` can be
    pickled (a module-level function or a `functools.partial` of it). The pickle does not contain the samples.

    Args:
        name: the name to print ("ILSVRC val").
        categories: the classes that the labels refer to.
        records: the arguments of `read`, one record per picture.
        read: reads the sample of a record.
    """

    def __init__(
        self,
        name: str,
        categories: Sequence[Category],
        records: Sequence[_Record],
        read: Callable[[_Record], Sample],
    ) -> None:
        self.name = name
        self.categories = tuple(categories)
        self._records: Sequence[Any] = records
        self._read: Callable[[Any], Sample] = read
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Sample | Dataset:
        """Returns the sample at `index`, or a data set of the samples in a slice."""
        if isinstance(index, slice):
            return Dataset(self.name, self.categories, self._records[index], self._read)
        position = range(len(self._records))[index]
        sample = self._samples.get(position)
        if sample is None:
            sample = self._read(self._records[position])
            for array in (sample.boxes, sample.labels, sample.difficult):
                array.setflags(write=False)
            if len(self._samples) < _CACHED_SAMPLES:
                self._samples[position] = sample
        return sample

    def part(self, rows: Sequence[int]) -> Dataset:
        """Returns a data set of the samples in some rows."""
        return Dataset(self.name, self.categories, [self._records[row] for row in rows], self._read)

    def hold_out(self, share: float, seed: int) -> tuple[Dataset, Dataset]:
        """Divides the pictures at random into a part to train on and a part to measure on.

        Args:
            share: share of the pictures in the second part, above 0 and below 1. Each part has at least one picture.
            seed: seed of the random choice.

        Raises:
            ValueError: the share is out of range, or there are fewer than two pictures.
        """
        if not 0 < share < 1:
            raise ValueError(f"the share is {share}, expected a number above 0 and below 1")
        if len(self) < 2:
            raise ValueError(f"{self.name} has {len(self)} pictures, expected at least 2 to hold some out")
        count = min(max(1, round(share * len(self))), len(self) - 1)
        order = np.random.default_rng([seed, 20]).permutation(len(self)).tolist()
        held_out = self.part(sorted(order[:count]))
        held_out.name = f"{self.name} (held out)"
        return self.part(sorted(order[count:])), held_out

    def without(self, other: Dataset) -> Dataset:
        """Returns a data set without the pictures of `other`. Pictures are compared by the files that paths link to."""
        known = {os.path.realpath(sample.path) for sample in other}
        rows = [row for row, sample in enumerate(self) if os.path.realpath(sample.path) not in known]
        return self.part(rows)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} pictures, {len(self.categories)} categories)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": {}}
