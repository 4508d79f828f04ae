"""How the numba kernels are compiled: once, cached on disk, announced in one line.

Imported only when a kernel is first needed: importing the package does not import numba. A kernel calls kernels
of its own file only: numba's disk cache watches that file, and would go on using an old one of another.
"""

from __future__ import annotations

import sys
from typing import Any

from numba import njit
from numba.core import event

PACKAGE = __name__.split(".")[0]


class _Announcement(event.Listener):
    """Says once per process that kernels are being compiled; loading them from the disk cache says nothing."""

    def __init__(self) -> None:
        self.made = False

    def on_start(self, event: Any) -> None:
        dispatcher = (event.data or {}).get("dispatcher")
        module = getattr(getattr(dispatcher, "py_func", None), "__module__", "") or ""
        if not self.made and module.split(".")[0] == PACKAGE:
            self.made = True
            print(
                "inception_rcnn: compiling for this machine (once, some 20 seconds) ...",
                file=sys.stderr,
                flush=True,
            )

    def on_end(self, event: Any) -> None:
        """Nothing to say: the pictures follow."""


event.register("numba:compile", _Announcement())

# Every kernel releases the GIL, so that strategies run side by side in threads. No fastmath: results are the same
# bits on every machine.
kernel = njit(cache=True, nogil=True, error_model="numpy")

# For sums of many products: a fused multiply-add rounds once in place of twice, which may differ by machine.
fused_kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
