"""The error messages of the training commands."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from ..data.annotation import AnnotationError
from ..data.categories import CategoryError
from ..data.coco import CocoError
from ..data.ilsvrc import LayoutError
from ..data.images import ImageError
from ..data.partial import PartialAnnotationError


@contextmanager
def errors_as_messages(console: Console) -> Iterator[None]:
    """Turn errors that a user can resolve into messages. The exit code is 2 for data and settings, 1 for the disk."""
    from safetensors import SafetensorError

    from ..detection.engines.engine import EngineError
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
        ImageError,
        LayoutError,
        ModelError,
        PartialAnnotationError,
        TrainingError,
    ) as error:
        raise typer.BadParameter(str(error)) from error
    except (OSError, sqlite3.Error, SafetensorError) as error:
        reason = escape(str(error))
        console.print(
            f"[red]stopped:[/red] {reason}\nresolve the error and repeat the command: finished work is kept",
            soft_wrap=True,
        )
        raise typer.Exit(1) from error
