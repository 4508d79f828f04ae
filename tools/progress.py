"""Progress bars on the terminal, shared by all commands."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class MeanRate(ProgressColumn):
    """Steps per second, averaged since the task started.

    rich's `Task.speed` averages the latest steps only. It can be far too high, because pictures that share a batch are
    finished at nearly the same time.

    Args:
        unit: what a step counts, in the plural ("images").
    """

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate as text, such as "0.04 images/s"; empty before the first step is done."""
        seconds = task.finished_time if task.finished else task.elapsed
        return Text(f"{task.completed / seconds:.2f} {self._unit}/s" if task.completed and seconds else "")


def progress_bar(console: Console, unit: str) -> Progress:
    """A progress bar with the number of steps done, their mean rate and the remaining time.

    Args:
        console: where the bar is drawn.
        unit: what a step counts, in the plural ("images").
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        MeanRate(unit),
        TimeRemainingColumn(),
        console=console,
    )


class StageProgress:
    """A progress bar for each stage of training, with messages above the bars.

        with StageProgress(console) as progress:
            train_detector(..., report=progress.report, warn=progress.warn)

    Args:
        console: where the bars are drawn.
        disable: True draws nothing. In distributed training only the first process draws.
    """

    def __init__(self, console: Console, *, disable: bool = False):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=disable,
        )
        self._tasks: dict[str, TaskID] = {}

    def report(self, stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        """Show that `done` of `total` steps of `stage` are done.

        Args:
            stage: name of the stage; a new name adds a bar.
            done, total: numbers of steps.
            figures: values shown beside the bar, such as {"loss": 0.412}.
        """
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, figures="")
        text = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        self._progress.update(self._tasks[stage], completed=done, total=total, figures=text)

    def print(self, line: str) -> None:
        """Print a line above the bars, without interpreting markup in it."""
        self._progress.console.print(escape(line), soft_wrap=True)

    def warn(self, warning: str) -> None:
        """Print a warning above the bars, without interpreting markup in it."""
        self._progress.console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)

    def __enter__(self) -> StageProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
