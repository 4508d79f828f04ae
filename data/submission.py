"""Reads and writes ILSVRC submission files: text with one detection per line.

    image_index det_id confidence xmin ymin xmax ymax

`image_index` is the number of the picture in the image list (1-based). The box is in pixels, 1-based and inclusive.
"""

from __future__ import annotations

import codecs
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ..runtime.atomic_write import atomic_write
from .boxes import LARGEST_COORDINATE, from_inclusive, to_inclusive
from .picture_detections import PictureDetections

_COLUMNS = ("image_index", "det_id", "confidence", "xmin", "ymin", "xmax", "ymax")
_EXPECTED = f"seven finite numbers, {' '.join(_COLUMNS)}, the first two being whole numbers of at least 1"
_ENCODING = "utf-8-sig"  # with or without a byte order mark
_BLOCK = 100_000  # number of lines that are formatted at once: some 10 MB of text


class SubmissionError(ValueError):
    """A submission file cannot be used; the message names the file, the line and the expected format."""


@dataclass(frozen=True, eq=False)
class Submission:
    """N detections as in the file, in the order of its lines. The order breaks ties in the evaluation.

    Attributes:
        image_indices: int64 [N], numbers of the pictures in the image list, at least 1.
        labels: int64 [N], DET ids, at least 1.
        scores: float64 [N].
        inclusive: float64 [N, 4], `(xmin, ymin, xmax, ymax)`, 1-based and inclusive. Boxes may extend beyond the
            picture and may be inverted; the evaluation decides how to treat them.
        skipped: number of malformed lines that a lenient reader skipped.
    """

    image_indices: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    inclusive: npt.NDArray[np.float64]
    skipped: int = 0

    @classmethod
    def from_boxes(
        cls, image_indices: npt.ArrayLike, labels: npt.ArrayLike, scores: npt.ArrayLike, boxes: npt.ArrayLike
    ) -> Submission:
        """Makes a submission from boxes [N, 4] in the program's convention (0-based, half-open)."""
        return cls(
            np.asarray(image_indices, dtype=np.int64),
            np.asarray(labels, dtype=np.int64),
            np.asarray(scores, dtype=np.float64),
            to_inclusive(boxes),
        )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """The boxes in the program's convention, float32 [N, 4]."""
        return from_inclusive(self.inclusive)


def read_submission(path: str | Path, lenient: bool = False) -> Submission:
    """Reads a submission file in about 2 s per million lines. Empty lines are ignored. The file may be empty.

    Args:
        lenient: skip malformed lines and count them in `Submission.skipped`.

    Raises:
        SubmissionError: the file cannot be read; or, unless `lenient`, a line does not consist of seven finite numbers
            with whole numbers of at least 1 in the first two columns, or places a box millions of pixels away.
    """
    path = Path(path)
    try:
        rows = _load(path)
        if rows is None or not _is_valid(rows).all():
            rows = _load_by_line(path)
        valid = _is_valid(rows)
        if not valid.all() and not lenient:
            number, line = next(islice(_lines(path), int(np.argmin(valid)), None))
            raise SubmissionError(f"{path}, line {number}: expected {_EXPECTED}; got {line.strip()[:80]!r}")
    except OSError as error:
        raise SubmissionError(f"{path}: cannot read the submission file: {error.strerror}") from error
    skipped = int(len(rows) - valid.sum())
    rows = rows[valid]
    return Submission(
        rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64), rows[:, 2].copy(), rows[:, 3:].copy(), skipped
    )


def write_submission(path: str | Path, submission: Submission) -> None:
    """Writes a submission file with all digits, so that `read_submission` returns the same numbers.

    Raises:
        SubmissionError: the arrays have different lengths, an index or id is below 1, or a score or coordinate is not
            finite. Then nothing is written.
    """
    count = len(submission)
    columns = (submission.image_indices, submission.labels, submission.scores, submission.inclusive)
    shapes = [np.shape(column) for column in columns]
    if shapes != [(count,), (count,), (count,), (count, 4)]:
        expected = "expected image_indices [N], labels [N], scores [N] and boxes [N, 4]"
        raise SubmissionError(f"{path}: not written: {expected}, got the shapes {shapes}")
    valid = _is_valid(np.column_stack(columns))
    if not valid.all():
        row = int(np.argmin(valid))
        got = [column[row].tolist() for column in columns]
        raise SubmissionError(f"{path}: not written: detection {row} of {count} is {got}; expected {_EXPECTED}")
    with atomic_write(path) as partial, open(partial, "w", encoding="ascii", newline="\n") as file:
        for start in range(0, count, _BLOCK):
            file.writelines(_text_lines(submission, slice(start, start + _BLOCK)))


class SubmissionWriter:
    """Writes a submission file picture by picture. Its methods are the methods of `coco.DetectionsWriter`.

    The file appears when the `with` block ends; if the block raises an exception, an older file stays unchanged.

    Args:
        file: the file to write; its folder is created if missing.
        indices: the number of each picture in the image list, by its file name.
    """

    def __init__(self, file: str | Path, indices: Mapping[str, int]):
        self._file = Path(file)
        self._indices = indices

    def __enter__(self) -> SubmissionWriter:
        with ExitStack() as opened:
            partial = opened.enter_context(atomic_write(self._file))
            self._stream = opened.enter_context(partial.open("w", encoding="ascii", newline="\n"))
            self._opened = opened.pop_all()
        return self

    def add(self, picture: PictureDetections) -> None:
        """Adds the detections of a picture. Subclasses are not written."""
        numbers = np.full(len(picture.labels), self._indices[picture.file_name])
        rows = Submission.from_boxes(numbers, picture.labels, picture.scores, picture.boxes)
        self._stream.writelines(_text_lines(rows))

    def fail(self, file_name: str, reason: str) -> None:
        """Adds nothing: a picture that could not be read has no line."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)


def _text_lines(submission: Submission, rows: slice = slice(None)) -> Iterator[str]:
    """The lines of detections, with all digits."""
    columns = (submission.image_indices, submission.labels, submission.scores, submission.inclusive)
    for image, label, score, box in zip(*(column[rows].tolist() for column in columns), strict=True):
        yield f"{image} {label} {score!r} {' '.join(map(repr, box))}\n"


def _load(path: Path) -> npt.NDArray[np.float64] | None:
    """Reads all lines at once, float64 [N, 7]; returns None if any line is malformed."""
    with warnings.catch_warnings(), open(path, "rb") as raw:
        if raw.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            raw.seek(0)
        # Letters outside ASCII are a ValueError: loadtxt would take some of them for blanks.
        file = TextIOWrapper(raw, encoding="ascii")
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        try:
            rows = np.loadtxt(file, dtype=np.float64, comments=None, ndmin=2)
        except ValueError:
            return None
    if rows.size == 0:
        return rows.reshape(0, len(_COLUMNS))
    return rows if rows.shape[1] == len(_COLUMNS) else None


def _load_by_line(path: Path) -> npt.NDArray[np.float64]:
    """Reads line by line, several times slower than `_load`; malformed lines become NaN. Returns float64 [N, 7]."""
    malformed = [np.nan] * len(_COLUMNS)
    rows = []
    for _, line in _lines(path):
        try:
            row = [float(text) for text in line.split()]
        except ValueError:
            row = malformed
        # float() also accepts "1_000" and digits outside ASCII; a submission file must not contain them.
        well_formed = len(row) == len(_COLUMNS) and line.isascii() and "_" not in line
        rows.append(row if well_formed else malformed)
    return np.array(rows, dtype=np.float64).reshape(-1, len(_COLUMNS))


def _is_valid(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    ids = rows[:, :2]
    in_range = (np.abs(rows[:, 3:]) <= LARGEST_COORDINATE).all(axis=1)
    return in_range & np.isfinite(rows).all(axis=1) & ((ids == np.floor(ids)) & (ids >= 1) & (ids < 2**53)).all(axis=1)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number and the text of each line that is not empty."""
    with open(path, encoding=_ENCODING, errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line
