"""Decorators that compile the numba kernels, cache them on disk and announce when compilation starts.

Import this module only in modules that define kernels, so that `import inception_rcnn` does not import numba. A kernel
must call only kernels in its own file, because numba's disk cache does not notice changes in other files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile

from .announcement import announce_once

_HASH_BYTES = hashlib.sha256().digest_size

PACKAGE = __name__.split(".")[0]


class _Announcement(event.Listener):
    """Announces that kernels are being compiled. Loading kernels from the disk cache announces nothing."""

    def on_start(self, event: Any) -> None:
        dispatcher = (event.data or {}).get("dispatcher")
        module = getattr(getattr(dispatcher, "py_func", None), "__module__", "") or ""
        if module.split(".")[0] == PACKAGE:
            announce_once("compiling kernels for this machine, which takes about 20 seconds, on the first run only")

    def on_end(self, event: Any) -> None:
        """Does nothing; numba requires the method."""


event.register("numba:compile", _Announcement())


class _VerifiedFiles(IndexDataCacheFile):
    """The files of a kernel's cache, with a hash at their end. numba itself would run a file with wrong bytes."""

    def _dump(self, obj: Any) -> bytes:
        data = super()._dump(obj)
        return data + self._hash(data)  # unpickling ignores the bytes after the object

    def _hash(self, data: bytes) -> bytes:
        # If numba is killed after it has written an index, the code beside it belongs to another source.
        return hashlib.sha256(repr(self._source_stamp).encode() + data).digest()

    def _load_data(self, name: str) -> Any:
        self._verify(Path(self._data_path(name)).read_bytes())
        return super()._load_data(name)

    def _verify(self, content: bytes) -> None:
        data, found = content[:-_HASH_BYTES], content[-_HASH_BYTES:]
        if found != self._hash(data):
            raise ValueError("the file is damaged, or belongs to another version of the kernel")


class _VerifiedCache(FunctionCache):
    """The cache of a kernel on disk. Damaged files are replaced; if nothing can be written, nothing is cached."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        self._cache_file = _VerifiedFiles(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=self._impl.locator.get_source_stamp(),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # unpickling damaged bytes can raise anything
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def _cached(dispatcher: Any) -> Any:
    """Give a compiled function a `_VerifiedCache`, as `njit(cache=True)` gives it a cache of numba."""
    with suppress(RuntimeError):  # numba finds no folder that it can write
        dispatcher._cache = _VerifiedCache(dispatcher.py_func)
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function.

    A kernel releases the GIL, so that threads run kernels in parallel. `fastmath` is off, so that results are bitwise
    the same on every machine.
    """
    return _cached(njit(nogil=True, error_model="numpy")(function))


def fused_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with sums of many products.

    A fused multiply-add rounds once instead of twice, so results may differ between machines.
    """
    return _cached(njit(nogil=True, error_model="numpy", fastmath={"contract"})(function))
