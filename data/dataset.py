"""Annotated pictures as a sequence, whatever the files they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .categories import Category

_CACHED_SAMPLES = 20_000  # about 1 KB each: the largest validation set stays in memory, ILSVRC train does not

_Record = TypeVar("_Record")


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and the objects in it.

    Attributes:
        image_id: name within the data set, for ILSVRC without suffix ("ILSVRC2013_val_00001737").
        index: number of the picture in the list that names it, as submission files count (1-based).
        path: the picture file. It is not opened.
        boxes: float32 [N, 4], see ``data.boxes``. N = 0 is a picture without objects.
        labels: int64 [N], each the ``Category.id`` of the object.
        difficult: bool [N], objects that an evaluation may leave out (PASCAL VOC).
        outside: bool [N], boxes that reached more than a pixel beyond the picture before they were clipped to it; None
            where nobody looked.
        size: width and height of the picture by its annotation; None where that says nothing of it.
    """

    image_id: str
    index: int
    path: Path
    boxes: npt.NDArray[np.float32] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    difficult: npt.NDArray[np.bool_] = field(repr=False)
    outside: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    size: tuple[int, int] | None = None


class Dataset(Sequence[Sample]):
    """A sequence of samples, each read from its file when it is first asked for.

    Samples are shared between calls: their arrays are read-only. A data set can be pickled if ``read`` can (a
    function of a module, or a ``functools.partial`` of one); what has been read does not travel.

    Args:
        name: for people ("ILSVRC val").
        categories: the classes that the labels of the samples belong to.
        records: one per picture: what ``read`` needs to find it.
        read: turns a record into a sample.
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
        """The sample at ``index``, or for a slice the data set of these samples."""
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

    def without(self, other: Dataset) -> Dataset:
        """This data set without the pictures, by their paths, that are in ``other`` too."""
        known = {sample.path for sample in other}
        rows = [row for row, sample in enumerate(self) if sample.path not in known]
        return Dataset(self.name, self.categories, [self._records[row] for row in rows], self._read)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, {len(self)} pictures, {len(self.categories)} categories)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_samples": {}}
