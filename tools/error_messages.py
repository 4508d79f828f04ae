"""The error messages of the commands."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from ..data.annotation import AnnotationError
from ..data.categories import CategoryError
from ..data.coco import CocoError
from ..data.ground_truth import GroundTruthError
from ..data.ilsvrc import LayoutError
from ..data.images import ImageError

# Longest message. A message can quote a file, and a file can hold a line of any length.
_LONGEST = 2000
# Number of unreadable pictures that the last lines of a command name.
_NAMED = 20


def message_of(error: BaseException) -> str:
    """The message of an error. The middle of a long message is left out."""
    message = str(error)
    if len(message) <= _LONGEST:
        return message
    return f"{message[: _LONGEST // 2]} [...] {message[-_LONGEST // 2 :]}"


def print_failures(console: Console, failures: Sequence[tuple[Path | str, str]], pictures: int, file: Path) -> None:
    """Print the pictures that could not be read, with the reasons.

    Args:
        console: where to print.
        failures: pictures and reasons.
        pictures: number of all pictures.
        file: the file that has all failures in its list "failures".
    """
    if not failures:
        return
    console.print(f"[yellow]{len(failures)} of {pictures} pictures could not be read:[/yellow]")
    for picture, reason in failures[:_NAMED]:
        console.print(f"  {picture}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if len(failures) > _NAMED:
        more = f'  and {len(failures) - _NAMED} more: see "failures" in {file}'
        console.print(more, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def errors_as_messages(console: Console, *, resumes: bool) -> Iterator[None]:
    """Turn errors that a user can resolve into messages.

    The exit code is 2 for data and settings, 1 for the disk and the memory of a GPU.

    Args:
        console: where to print.
        resumes: whether the same command goes on after such an error; otherwise it starts again.
    """
    import torch
    from safetensors import SafetensorError

    from ..detection.engines.choice import EngineError
    from ..detection.evaluation.checks import EvaluationError
    from ..detection.networks.caffemodel import CaffeModelError
    from ..detection.networks.weights import ModelError
    from ..detection.training.errors import TrainingError

    try:
        yield
    except (
        AnnotationError,
        CaffeModelError,
        CategoryError,
        CocoError,
        EngineError,
        EvaluationError,
        GroundTruthError,
        ImageError,
        LayoutError,
        ModelError,
        TrainingError,
    ) as error:
        raise typer.BadParameter(message_of(error)) from error
    except (OSError, sqlite3.Error, SafetensorError, torch.OutOfMemoryError) as error:
        reason = escape(message_of(error))
        then = "finished work is kept" if resumes else "it starts again"
        console.print(f"[red]stopped:[/red] {reason}\nresolve the error and repeat the command: {then}", soft_wrap=True)
        raise typer.Exit(1) from error
