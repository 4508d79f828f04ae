"""Buffers that are kept from picture to picture: fresh pages cost tens of milliseconds to touch for the first time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

KEPT_BYTES: Final = 64 * 2**20  # of a workspace; one that a huge picture has blown up is not kept for the next


class Workspace:
    """Named buffers that grow to the largest size asked for and are never cleared."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}

    def take(self, name: str, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised C-contiguous array; it is valid until `name` is taken again."""
        wanted = np.dtype(dtype)
        size = math.prod(shape) if isinstance(shape, tuple) else shape
        buffer = self._buffers.get(name)
        if buffer is None or buffer.dtype != wanted or buffer.size < size:
            # An eighth more than asked for: pictures of a folder differ a little, and growing costs fresh pages.
            buffer = np.empty(size + size // 8, wanted)
            self._buffers[name] = buffer
        return buffer[:size].reshape(shape)

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self._buffers.values())


_free: deque[Workspace] = deque()  # append and pop of a deque are atomic: no lock needed


@contextmanager
def borrow() -> Iterator[Workspace]:
    """A workspace for one task, given back afterwards to be used again by any thread."""
    try:
        workspace = _free.pop()
    except IndexError:
        workspace = Workspace()
    try:
        yield workspace
    finally:
        _free.append(workspace)


def drop_large() -> None:
    """Forget the free workspaces that have grown over `KEPT_BYTES`: called when a picture is done."""
    for _ in range(len(_free)):
        try:
            workspace = _free.popleft()
        except IndexError:  # another thread has taken it
            return
        if workspace.nbytes <= KEPT_BYTES:
            _free.append(workspace)
