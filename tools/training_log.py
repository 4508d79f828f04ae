"""The figures of a training, step by step: log.csv, and curves for TensorBoard."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import typer

_COLUMNS = ("stage", "step", "loss", "learning rate", "seconds")


class TrainingLog:
    """Writes a row for each step that reports a loss. A training that resumes continues the file.

        with TrainingLog(out / "training" / "log.csv", tensorboard) as log:
            train_detector(..., report=log.report)

    The columns are stage, step, loss, learning rate, and seconds since the command started. Rows of steps that are done
    again after an interruption replace the earlier rows.

    Args:
        file: the CSV file. Its folder is created with the first row.
        tensorboard: folder for the curves, whose names are STAGE/FIGURE; None writes no curves.
        clock: returns the time in seconds.

    Raises:
        typer.BadParameter: TensorBoard is not installed.
    """

    def __init__(self, file: Path, tensorboard: Path | None, clock: Callable[[], float] = time.monotonic):
        self._file = file
        self._clock = clock
        self._began = clock()
        self._curves = _summary_writer(tensorboard)
        self._opened: TextIO | None = None
        self._known: set[str] = set()

    def report(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        """Note the figures of a step. The arguments are those of `Report`."""
        if self._curves is not None:
            for name, value in figures.items():
                self._curves.add_scalar(f"{stage}/{name}", value, done)
        if "loss" not in figures:
            return
        if stage not in self._known:
            self._known.add(stage)
            self._continue(stage, done)
        assert self._opened is not None
        values = (f"{figures['loss']:.6g}", f"{figures.get('learning rate', float('nan')):.6g}")
        csv.writer(self._opened).writerow([stage, done, *values, f"{self._clock() - self._began:.1f}"])
        self._opened.flush()

    def _continue(self, stage: str, step: int) -> None:
        """Open the file without the rows of this stage from this step on."""
        self.close()
        kept: list[list[str]] = []
        if self._file.exists():
            with self._file.open(newline="", encoding="utf-8", errors="replace") as file:
                rows = [row for row in csv.reader(file) if len(row) == len(_COLUMNS) and row[1].isdecimal()]
            kept = [row for row in rows if row[0] != stage or int(row[1]) < step]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._opened = self._file.open("w", newline="", encoding="utf-8")
        csv.writer(self._opened).writerows([_COLUMNS, *kept])

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._curves is not None:
            self._curves.close()


def _summary_writer(folder: Path | None) -> Any:
    """TensorBoard's writer for the folder; None for None."""
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise typer.BadParameter(
            f"needs the package tensorboard ({error}): pip install 'inception-rcnn[train]'",
            param_hint="--tensorboard",
        ) from error
    return SummaryWriter(str(folder))
