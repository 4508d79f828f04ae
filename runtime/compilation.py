"""Decorators that compile the numba kernels, cache them on disk and announce when compilation starts.

Import this module only in modules that define kernels, so that `import inception_rcnn` does not import numba. A kernel
must call only kernels in its own file, because numba's disk cache does not notice changes in other files.
"""

from __future__ import annotations

from typing import Any

from numba import njit
from numba.core import event

from .announcement import announce_once

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

# Kernels release the GIL, so that threads run them in parallel. `fastmath` is off, so that results are bitwise the same
# on every machine.
kernel = njit(cache=True, nogil=True, error_model="numpy")

# For sums of many products. A fused multiply-add rounds once instead of twice, so results may differ between machines.
fused_kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
