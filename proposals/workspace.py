"""Buffers that are reused from image to image: the first access to newly allocated memory is slow (tens of ms)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

KEPT_BYTES: Final = 64 * 2**20  # workspaces larger than this, which only huge images need, are not kept


class Workspace:
    """Named buffers. Each grows to the largest requested size and is never cleared."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}

    def take(self, name: str, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Returns an uninitialised C-contiguous array, which is valid until `name` is taken again."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) if isinstance(shape, tuple) else shape
        buffer = self._buffers.get(name)
        if buffer is None or buffer.dtype != dtype or buffer.size < size:
            # An eighth more than requested, because images of a folder differ slightly in size and growing is slow.
            buffer = np.empty(size + size // 8, dtype)
            self._buffers[name] = buffer
        return buffer[:size].reshape(shape)

    @property
    def nbytes(self) -> int:
        """The total size of the buffers in bytes."""
        return sum(buffer.nbytes for buffer in self._buffers.values())


_free: deque[Workspace] = deque()  # needs no lock: append and pop of a deque are atomic


@contextmanager
def borrow() -> Iterator[Workspace]:
    """Lends a workspace for the duration of a `with` block. Afterwards any thread can borrow it."""
    try:
        workspace = _free.pop()
    except IndexError:
        workspace = Workspace()
    try:
        yield workspace
    finally:
        _free.append(workspace)


def drop_large() -> None:
    """Frees the workspaces that are larger than `KEPT_BYTES` and not borrowed. Called after each image."""
    for _ in range(len(_free)):
        try:
            workspace = _free.popleft()
        except IndexError:  # another thread has borrowed it
            return
        if workspace.nbytes <= KEPT_BYTES:
            _free.append(workspace)
