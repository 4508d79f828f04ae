"""The entry points of the installed commands.

A command handles Ctrl-C before it imports its module, because the imports take some tenths of a second. It ends its
process without freeing every object, because that takes a second after torch was imported.
"""

import atexit
import os
import sys
from importlib import import_module

from ..runtime.interruption import end_on_signals


def _start(module: str) -> None:
    end_on_signals()
    try:
        import_module(f".{module}", __package__).main()
    except SystemExit as end:
        if isinstance(end.code, int):
            _end_at_once(end.code)
        raise


def _end_at_once(code: int) -> None:
    """End the process with this exit code. If its output cannot be written, return: Python then reports the error."""
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # the reader of a pipe has gone, or the stream is closed
        return
    os._exit(code)


def detect() -> None:
    """The command `detect`."""
    _start("detect")


def detect_architecture() -> None:
    """The command `detect-architecture`."""
    _start("detect_architecture")


def detect_classify() -> None:
    """The command `detect-classify`."""
    _start("detect_classify")


def detect_evaluate() -> None:
    """The command `detect-evaluate`."""
    _start("detect_evaluate")


def detect_export() -> None:
    """The command `detect-export`."""
    _start("detect_export")


def detect_propose() -> None:
    """The command `detect-propose`."""
    _start("detect_propose")


def detect_recall() -> None:
    """The command `detect-recall`."""
    _start("detect_recall")


def detect_train() -> None:
    """The command `detect-train`."""
    _start("detect_train")


def detect_train_classifier() -> None:
    """The command `detect-train-classifier`."""
    _start("detect_train_classifier")


def detect_train_multibox() -> None:
    """The command `detect-train-multibox`."""
    _start("detect_train_multibox")
