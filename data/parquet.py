"""Writes detections as a Parquet file, which pandas, DuckDB and Spark read. Requires pyarrow.

The file contains one row per picture, in the order of the pictures:

    picture        int64                    position of the picture in the list, from 0
    file_name      string
    width, height  int32                    size of the upright picture in pixels; null if it could not be read
    failure        string                   the reason why the picture could not be read; null if it was read
    boxes          list<list<float32>[4]>   x1, y1, x2, y2 in pixels (0-based, half-open), highest score first
    scores         list<float32>
    labels         list<int64>              `Category.id`
    names          list<string>             names of the classes
    finest_names   list<string>             "dog: Samoyed"; the name of the class if no finer name is known
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..runtime.atomic_write import atomic_write
from .categories import Category, Subclass, finest_name
from .picture_detections import PictureDetections

DETECTIONS = (
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("failure", pa.string()),
    pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4))),
    pa.field("scores", pa.list_(pa.float32())),
    pa.field("labels", pa.list_(pa.int64())),
)
"""The columns that hold the result of a picture."""

_SCHEMA = pa.schema(
    [
        pa.field("picture", pa.int64()),
        pa.field("file_name", pa.string()),
        *DETECTIONS,
        pa.field("names", pa.list_(pa.string())),
        pa.field("finest_names", pa.list_(pa.string())),
    ]
)
# Number of rows in a row group, which is kept in memory until it is complete: some 3 MB of detections.
_ROW_GROUP = 1000


class ParquetWriter:
    """Writes a Parquet file picture by picture. Its methods are the methods of `coco.DetectionsWriter`.

    The file appears when the `with` block ends; if the block raises an exception, an older file stays unchanged.

    Args:
        file: the file to write; its folder is created if missing.
        categories: the classes that the labels refer to.
        finest: the classes that subclasses refer to.
    """

    def __init__(self, file: str | Path, categories: Sequence[Category], finest: Sequence[Subclass] = ()):
        self._file = Path(file)
        self._finest = finest
        self._names = {category.id: category.name for category in categories}
        self._rows: list[dict[str, Any]] = []
        self._count = 0

    def __enter__(self) -> "ParquetWriter":
        with ExitStack() as opened:
            partial = opened.enter_context(atomic_write(self._file))
            self._stream = opened.enter_context(pq.ParquetWriter(partial, _SCHEMA))
            self._opened = opened.pop_all()
        return self

    def add(self, picture: PictureDetections) -> None:
        """Adds the detections of a picture."""
        labels = picture.labels.tolist()
        names = [self._names[label] for label in labels]
        self._append(
            {
                "file_name": picture.file_name,
                "width": picture.width,
                "height": picture.height,
                "boxes": picture.boxes.tolist(),
                "scores": picture.scores.tolist(),
                "labels": labels,
                "names": names,
                "finest_names": [
                    name if row < 0 else finest_name(name, self._finest[row])
                    for name, row in zip(names, picture.subclass_rows().tolist(), strict=True)
                ],
            }
        )

    def fail(self, file_name: str, reason: str) -> None:
        """Adds a picture that could not be read, with the reason."""
        nothing: dict[str, Any] = {"boxes": [], "scores": [], "labels": [], "names": [], "finest_names": []}
        self._append({"file_name": file_name, "failure": reason, **nothing})

    def _append(self, row: dict[str, Any]) -> None:
        self._rows.append({"picture": self._count, **row})
        self._count += 1
        if len(self._rows) == _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._stream.write_table(pa.Table.from_pylist(self._rows, _SCHEMA))
            self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._opened.__exit__(kind, error, trace)
            return
        with self._opened:
            self._flush()
