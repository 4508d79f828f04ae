"""Checks before the work begins that a command can write its results."""

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import typer

# A full disk may have room for an empty file.
_PROBE = bytes(65_536)


def check_folder(folder: Path | None, option: str) -> None:
    """Check that files can be written to a folder. A missing folder is not created.

    Args:
        folder: the folder; None for none.
        option: the option that names it, for the message.

    Raises:
        typer.BadParameter: the folder is a file, or it cannot be created or written to.
    """
    if folder is not None:
        _check(folder, folder, option)


def check_file(file: Path | None, option: str, inputs: Iterable[Path | str | None] = ()) -> None:
    """Check that a file can be written. Its folder may be missing. A device or a pipe is not checked.

    Args:
        file: the file; None for none.
        option: the option that names it, for the message.
        inputs: what the command reads, which it must not replace; None for nothing.

    Raises:
        typer.BadParameter: the file is a folder or one of the inputs, or its folder cannot be created or written to.
    """
    if file is None or (os.path.exists(file) and not os.path.isfile(file) and not os.path.isdir(file)):
        return
    if os.path.isdir(file):
        raise typer.BadParameter(f"cannot write {file}: it is a folder, expected a file", param_hint=option)
    if os.path.exists(file) and any(one and os.path.exists(one) and os.path.samefile(file, one) for one in inputs):
        raise typer.BadParameter(f"{file} is an input of the command, which would be replaced", param_hint=option)
    _check(file, Path(os.path.realpath(file)).parent, option)


def _check(named: Path, folder: Path, option: str) -> None:
    """Check that files can be written to `folder`. Messages name `named`."""
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise typer.BadParameter(f"cannot write {named}: {nearest} is not a folder", param_hint=option)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.stat(named)  # the name may be too long
        with tempfile.TemporaryFile(dir=nearest) as probe:
            probe.write(_PROBE)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise typer.BadParameter(f"cannot write {named}: {error.strerror or error}", param_hint=option) from error
