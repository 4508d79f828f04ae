"""The one way in which this package writes a file: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(file: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """Gives the block a path to write to; when the block ends, what was written there becomes `file`.

        with atomic_write("found/report.json") as partial:
            partial.write_text(report)

    The block writes to `<name>.partial` beside `file`. Its content reaches the disk before it gets its name, so a
    reader finds the old file or the new one, whenever the program or the machine stops. If the block raises, `file`
    stays as it was and the partial file is deleted. A partial file that a killed program left is overwritten by the
    next call.

    Args:
        file: the file to write; its folder is made if it is missing.
        shared: whether several processes may write this file at the same time, as they do in a cache. The partial
            name then contains the process number.

    Raises:
        OSError: the file cannot be written; `file` stays as it was.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial" if shared else f"{file.name}.partial")
    try:
        yield partial
        _flush_to_disk(partial)
        partial.replace(file)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if os.name == "posix":  # The new name is on the disk when the folder is; Windows cannot open folders.
        _flush_to_disk(file.parent)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
