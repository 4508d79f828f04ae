"""Detections as a Parquet file, which pandas, DuckDB, Spark and the like read; written with pyarrow.

One row for each picture, in their order:

    picture        int64      its place in the list, from 0
    file_name      string     as it was named
    width, height  int32      pixels of the upright picture; null if it could not be read
    failure        string     why it could not be read; else null
    boxes          list<list<float32>[4]>   x1, y1, x2, y2 in pixels (0-based, half-open), best first
    scores         list<float32>
    labels         list<int64>              `Category.id`
    names          list<string>             of the classes
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .categories import Category

DETECTIONS = (
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("failure", pa.string()),
    pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4))),
    pa.field("scores", pa.list_(pa.float32())),
    pa.field("labels", pa.list_(pa.int64())),
)
"""The columns that say what became of a picture."""

_SCHEMA = pa.schema(
    [
        pa.field("picture", pa.int64()),
        pa.field("file_name", pa.string()),
        *DETECTIONS,
        pa.field("names", pa.list_(pa.string())),
    ]
)
# Rows that wait to be written together: a row group, some 3 MB of detections.
_ROWS = 1000


class ParquetWriter:
    """Writes a file picture by picture, with the methods of `coco.DetectionsWriter`.

    The file appears under its name when the `with` block ends; until then it is `<name>.partial`. After an exception
    in the block there is no new file, and one of that name is as it was.

    Args:
        file: the file to write; its folder is made if need be.
        categories: classes that labels refer to.
    """

    def __init__(self, file: str | Path, categories: Sequence[Category]):
        self._file = Path(file)
        self._partial = self._file.with_name(self._file.name + ".partial")
        self._names = {category.id: category.name for category in categories}
        self._rows: list[dict[str, Any]] = []
        self._count = 0

    def __enter__(self) -> "ParquetWriter":
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._stream = pq.ParquetWriter(self._partial, _SCHEMA)
        return self

    def add(
        self, file_name: str, width: int, height: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
    ) -> None:
        """One picture's detections: boxes [N, 4], scores [N], labels [N]."""
        ids = labels.tolist()
        self._append(
            {
                "file_name": file_name,
                "width": width,
                "height": height,
                "boxes": boxes.tolist(),
                "scores": scores.tolist(),
                "labels": ids,
                "names": [self._names[label] for label in ids],
            }
        )

    def fail(self, file_name: str, reason: str) -> None:
        """A picture that could not be read, and why."""
        self._append({"file_name": file_name, "failure": reason, "boxes": [], "scores": [], "labels": [], "names": []})

    def _append(self, row: dict[str, Any]) -> None:
        self._rows.append({"picture": self._count, **row})
        self._count += 1
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._stream.write_table(pa.Table.from_pylist(self._rows, _SCHEMA))
            self._rows = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
            self._stream.close()
            if error is None:
                self._partial.replace(self._file)
        finally:
            self._partial.unlink(missing_ok=True)
