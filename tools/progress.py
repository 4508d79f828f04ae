"""Shows how far a command is: bars on a terminal, a line every 30 seconds in a pipe or a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from ..runtime.duration import duration

T = TypeVar("T")

# Seconds between two lines where there is no terminal. The lines of a run of a day make a file of 300 KB.
SECONDS_BETWEEN_LINES = 30.0


class Rate:
    """The mean rate of steps since the first of them began, and the time that the others take at this rate.

    rich's `Task.speed` averages the latest steps only. It can be far too high, because pictures that share a batch are
    finished at nearly the same time.

    Args:
        already: the number of steps that an earlier run did, which do not count for the rate.
        clock: returns the time in seconds.
    """

    def __init__(self, already: int = 0, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._already = already
        self._began = self._latest = clock()
        self._done = already

    def update(self, done: int) -> None:
        """Note that `done` steps are done now."""
        self._done, self._latest = done, self._clock()

    def text(self, unit: str, total: int) -> str:
        """Rate and time left, such as "0.04 images/s, about 40 min left"; empty before the first step is done."""
        steps = self._done - self._already
        # When all steps are done, the rate does not fall any more.
        seconds = (self._latest if self._done >= total else self._clock()) - self._began
        if steps <= 0 or seconds <= 0:
            return ""
        rate = f"{_three_digits(steps / seconds)} {unit}/s"
        if self._done >= total:
            return f"{rate}, {duration(seconds)}"
        return f"{rate}, about {duration(seconds / steps * (total - self._done))} left"


def _three_digits(rate: float) -> str:
    """A positive rate with three digits and no exponent: "0.0412", "4.12", "412", "41,200"."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}" if rate >= 1e-4 else f"{rate:.6f}"


class _Stage:
    """How far a stage is.

    Args:
        name: name of the stage.
        done: the number of steps that an earlier run did.
        unit: what a step counts, in the plural ("images").
        clock: returns the time in seconds.
    """

    def __init__(self, name: str, done: int, unit: str, clock: Callable[[], float]):
        self._name, self._unit = name, unit
        self._rate = Rate(done, clock)
        self._done = self._total = 0
        self._figures = ""

    def update(self, done: int, total: int, figures: dict[str, float]) -> None:
        self._done, self._total = done, total
        self._figures = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        self._rate.update(done)

    def line(self) -> str:
        """Such as "detecting: 40 of 200 images (20 %), 1.25 images/s, about 2 min left"."""
        done, total = self._done, self._total
        parts = [
            f"{self._name}: {done:,} of {total:,} {self._unit} ({100 * done // max(total, 1)} %)",
            self._rate.text(self._unit, total),
            self._figures,
        ]
        return ", ".join(filter(None, parts))


class _LineColumn(ProgressColumn):
    """The line of a stage, from the task's field "stage". A narrow terminal cuts its end."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        return Text(task.fields["stage"].line())


class _Lines:
    """Prints a line at regular times, until it is stopped.

    Args:
        console: where to print.
        line: computes the line.
        every: seconds between two lines.
    """

    def __init__(self, console: Console, line: Callable[[], str], every: float):
        self._stopped = threading.Event()

        def print_lines() -> None:
            while not self._stopped.wait(every):
                text = line()
                if text:
                    console.print(text, markup=False, highlight=False, soft_wrap=True)

        self._thread = threading.Thread(target=print_lines, daemon=True, name="progress")
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


class StageProgress:
    """The progress of the stages of a command, with messages above the bars.

        with StageProgress(console) as progress:
            train_detector(..., report=progress.report, warn=progress.warn)

    On a terminal each stage has a bar. Elsewhere, a line every 30 seconds says how far the present stage is, and
    another line when it ends.

    Args:
        console: where to draw or print.
        unit: what a step counts, in the plural ("images").
        disable: True draws nothing. In distributed training only the first process draws.
        clock: returns the time in seconds.
        every: seconds between two lines.
    """

    def __init__(
        self,
        console: Console,
        unit: str = "steps",
        *,
        disable: bool = False,
        clock: Callable[[], float] = time.monotonic,
        every: float = SECONDS_BETWEEN_LINES,
    ):
        self._console, self._unit, self._clock, self._every = console, unit, clock, every
        self._disable = disable
        self._bars = Progress(
            BarColumn(bar_width=10),
            _LineColumn(),
            console=console,
            disable=disable or not console.is_terminal,
        )
        self._lines: _Lines | None = None
        self._tasks: dict[str, TaskID] = {}
        self._stages: dict[str, _Stage] = {}
        self._present: _Stage | None = None
        self._began = clock()

    def report(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        """Show that `done` of `total` steps of `stage` are done.

        The steps of the first report of a stage do not count for its rate: an earlier run may have done them.

        Args:
            stage: name of the stage; a new name adds a bar.
            done, total: numbers of steps.
            figures: values shown beside the bar, such as {"loss": 0.412}.
        """
        if stage not in self._stages:
            self._stages[stage] = _Stage(stage, done, self._unit, self._clock)
            self._tasks[stage] = self._bars.add_task(stage, total=total, stage=self._stages[stage])
        self._present = self._stages[stage]
        self._present.update(done, total, figures)
        self._bars.update(self._tasks[stage], completed=done, total=total)
        if done >= total and not self._console.is_terminal:
            self._print_line()

    def line(self) -> str:
        """How far the present stage is: "detecting: 40 of 200 images (20 %), 1.25 images/s, about 2 min left"."""
        if self._present is None:
            return f"working for {duration(self._clock() - self._began)}"
        return self._present.line()

    def _print_line(self) -> None:
        if not self._disable:
            self._console.print(self.line(), markup=False, highlight=False, soft_wrap=True)

    def print(self, line: str) -> None:
        """Print a line above the bars, without interpreting markup in it."""
        if not self._disable:
            self._console.print(escape(line), soft_wrap=True)

    def warn(self, warning: str) -> None:
        """Print a warning above the bars, without interpreting markup in it."""
        if not self._disable:
            self._console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)

    def __enter__(self) -> StageProgress:
        self._bars.start()
        if not self._disable and not self._console.is_terminal:
            self._lines = _Lines(self._console, self.line, self._every)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.stop()
        if not self._bars.disable:  # rich before 14.3 prints an empty line for a disabled bar
            self._bars.stop()


def with_progress(console: Console, stage: str, items: Sequence[T]) -> Iterator[T]:
    """Yields the pictures of a sequence and shows how many are done.

    Args:
        console: where to draw or print.
        stage: what is done with the pictures ("proposing").
        items: the pictures.
    """
    with StageProgress(console, "images") as progress:
        progress.report(stage, 0, len(items), {})
        for done, item in enumerate(items, 1):
            yield item
            progress.report(stage, done, len(items), {})


@contextmanager
def working(console: Console, what: str, *, every: float = SECONDS_BETWEEN_LINES) -> Iterator[None]:
    """Shows that the block works, without knowing how far it is: a spinner on a terminal, else lines of text.

    Args:
        console: where to draw or print.
        what: the work, such as "loading the model".
        every: seconds between two lines.
    """
    if console.is_terminal:
        with console.status(f"{escape(what)} ..."):
            yield
        return
    began = time.monotonic()
    console.print(f"{what} ...", markup=False, highlight=False, soft_wrap=True)
    lines = _Lines(console, lambda: f"{what}: {duration(time.monotonic() - began)} so far", every)
    try:
        yield
    finally:
        lines.stop()
