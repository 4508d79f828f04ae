"""Writes files atomically: after an interruption, the old file or the complete new file exists."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

# The temporary files and folders that exist at present, for `discard_unfinished`.
_unfinished: set[Path] = set()
_registering = threading.RLock()


@contextmanager
def atomic_write(file: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces `file` when the block ends.

        with atomic_write("found/report.json") as partial:
            partial.write_text(report)

    The temporary file is `<name>.partial` beside `file`. It is flushed to the disk before it is renamed. Readers
    therefore find either the old file or the complete new file, even if the program is killed or the machine stops. If
    the block raises an exception, the temporary file is deleted and `file` stays unchanged. The next call overwrites
    a temporary file that a killed program left behind.

    A symbolic link stays a link: its target is replaced. A device or a pipe, such as /dev/stdout, is written directly.

    Args:
        file: the file to write; its folder is created if missing.
        shared: whether several threads or processes may write the file at the same time, as in a cache. The name of the
            temporary file then contains the ids of the process and the thread.

    Raises:
        OSError: the file cannot be written; `file` stays unchanged.
    """
    file = Path(file)
    if file.exists() and not file.is_file() and not file.is_dir():
        yield file
        return
    file = Path(os.path.realpath(file))
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.getpid()}-{threading.get_ident()}."
    partial = file.with_name(f"{file.name}.{writer if shared else ''}partial")
    with _registering:
        _unfinished.add(partial)
    try:
        partial.touch()
        permissions = partial.stat().st_mode
        yield partial
        partial.chmod(permissions)  # safetensors creates files that other users cannot read
        _flush_to_disk(partial)
        partial.replace(file)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    finally:
        _unfinished.discard(partial)
    if os.name == "posix":  # The rename is on the disk when the folder is flushed. Windows cannot open folders.
        _flush_to_disk(file.parent)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yields a new folder in `parent`, which is deleted when the block ends and by `discard_unfinished`."""
    with TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        with _registering:
            _unfinished.add(folder)
        try:
            yield folder
        finally:
            _unfinished.discard(folder)


def discard_unfinished() -> None:
    """Deletes the temporary files and folders of all threads. The process must end after this call.

    No thread can start another file: it waits, as the process is about to end.
    """
    _registering.acquire()
    for partial in list(_unfinished):
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):
                partial.unlink()


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
