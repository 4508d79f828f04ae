"""ILSVRC submission files: all detections of a data set as text, one per line.

    image_index det_id confidence xmin ymin xmax ymax

``image_index`` is the picture's number in the image list (1-based), the box is 1-based and inclusive, in pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .boxes import from_inclusive, to_inclusive

_COLUMNS = ("image_index", "det_id", "confidence", "xmin", "ymin", "xmax", "ymax")
_EXPECTED = f"seven finite numbers, {' '.join(_COLUMNS)}, the first two whole and at least 1"
_ENCODING = "utf-8-sig"  # with or without a byte order mark
_BLOCK = 100_000  # lines formatted at a time: some 10 MB of text


class SubmissionError(ValueError):
    """A submission file that cannot be used; the message names file and line and what was expected there."""


@dataclass(frozen=True, eq=False)
class Submission:
    """Detections in the terms of the file, one row per line, in the order of the lines (which breaks ties).

    Attributes:
        image_indices: int64 [N], from 1, as in the image list.
        labels: int64 [N], DET ids, from 1.
        scores: float64 [N].
        inclusive: float64 [N, 4], ``(xmin, ymin, xmax, ymax)``, 1-based and inclusive. Boxes may reach beyond the
            picture and may be inverted: what that means is for the evaluation to say.
        skipped: malformed lines that a lenient reader left out.
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
        """Detections with boxes [N, 4] in the program's convention (0-based, half-open)."""
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
    """Reads a submission file; about 2 s per million lines. Empty lines are ignored; an empty file has no detections.

    Args:
        lenient: skip malformed lines and count them in ``Submission.skipped``.

    Raises:
        SubmissionError: no such file; or, unless ``lenient``, a line that is not seven finite numbers, the first two
            of them whole and at least 1.
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
    """Writes a submission file with all digits: reading it gives the same numbers.

    Raises:
        SubmissionError: arrays of different lengths, or a number that a file may not hold (an index or id below 1, a
            score or coordinate that is not finite). Nothing is written then.
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
    with open(path, "w", encoding="ascii", newline="\n") as file:
        for start in range(0, count, _BLOCK):
            block = slice(start, start + _BLOCK)
            rows = zip(*(column[block].tolist() for column in columns[:3]), columns[3][block].tolist(), strict=True)
            file.writelines(f"{i} {label} {score!r} {' '.join(map(repr, box))}\n" for i, label, score, box in rows)


def _load(path: Path) -> npt.NDArray[np.float64] | None:
    """All lines at once, float64 [N, 7]; None if there is a line of another form, wherever that is."""
    with warnings.catch_warnings(), open(path, encoding=_ENCODING) as file:
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        try:
            rows = np.loadtxt(file, dtype=np.float64, comments=None, ndmin=2)
        except ValueError:
            return None
    if rows.size == 0:
        return rows.reshape(0, len(_COLUMNS))
    return rows if rows.shape[1] == len(_COLUMNS) else None


def _load_by_line(path: Path) -> npt.NDArray[np.float64]:
    """The same line by line, several times slower, with NaN for lines of another form."""
    malformed = [np.nan] * len(_COLUMNS)
    rows = []
    for _, line in _lines(path):
        try:
            row = [float(text) for text in line.split()]
        except ValueError:
            row = malformed
        # float() reads 1_000 and the digits of every script; submission files have neither.
        proper = len(row) == len(_COLUMNS) and line.isascii() and "_" not in line
        rows.append(row if proper else malformed)
    return np.array(rows, dtype=np.float64).reshape(-1, len(_COLUMNS))


def _is_valid(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    whole = rows[:, :2]
    return np.isfinite(rows).all(axis=1) & ((whole == np.floor(whole)) & (whole >= 1) & (whole < 2**53)).all(axis=1)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    with open(path, encoding=_ENCODING, errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line
