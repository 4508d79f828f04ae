"""Writes detections as a CSV file, which spreadsheets and pandas read: a row for each detection.

    file_name           name of the picture
    width, height       size of the upright picture in pixels
    x1, y1, x2, y2      box in pixels (0-based, half-open), see `data.boxes`
    score               probability of the class
    label, wnid, name   the class: `Category.id`, WordNet id, name
    finest_name         "dog: Samoyed"; the name of the class if no finer name is known

The pictures without detections, and those that could not be read, have no row.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from ..runtime.atomic_write import atomic_write
from .categories import Category, Subclass, finest_name
from .picture_detections import PictureDetections

_COLUMNS = ("file_name", "width", "height", "x1", "y1", "x2", "y2", "score", "label", "wnid", "name", "finest_name")


class CsvWriter:
    """Writes a CSV file picture by picture, UTF-8. Its methods are the methods of `coco.DetectionsWriter`.

    The file appears when the `with` block ends; if the block raises an exception, an older file stays unchanged.

    Args:
        file: the file to write; its folder is created if missing.
        categories: the classes that the labels refer to.
        finest: the classes that subclasses refer to.
    """

    def __init__(self, file: str | Path, categories: Sequence[Category], finest: Sequence[Subclass] = ()):
        self._file = Path(file)
        self._categories = {category.id: category for category in categories}
        self._finest = finest

    def __enter__(self) -> CsvWriter:
        with ExitStack() as opened:
            partial = opened.enter_context(atomic_write(self._file))
            # A name that is not UTF-8 has \\udcXX in place of its wrong bytes.
            stream = partial.open("w", encoding="utf-8", errors="backslashreplace", newline="")
            self._writer = csv.writer(opened.enter_context(stream), lineterminator="\n")
            self._writer.writerow(_COLUMNS)
            self._opened = opened.pop_all()
        return self

    def add(self, picture: PictureDetections) -> None:
        """Adds the detections of a picture."""
        columns = picture.boxes, picture.scores, picture.labels, picture.subclass_rows()
        for box, score, label, row in zip(*(column.tolist() for column in columns), strict=True):
            category = self._categories[label]
            finest = category.name if row < 0 else finest_name(category.name, self._finest[row])
            sides = [round(side, 3) for side in box]
            size = picture.width, picture.height
            self._writer.writerow(
                [picture.file_name, *size, *sides, score, label, category.wnid, category.name, finest]
            )

    def fail(self, file_name: str, reason: str) -> None:
        """Adds nothing: a picture that could not be read has no row."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)
