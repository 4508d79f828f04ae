"""Networks compiled by OpenVINO for the CPU."""

import io
import logging
import platform
import threading
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...runtime.announcement import announce_once
from .compiled_cache import cache_key, forget_compiled, load_compiled, store_compiled

# torch traces one network at a time.
_CONVERSION = threading.Lock()
_HINT = {"bfloat16": "bf16", "float32": "f32"}


@lru_cache(1)
def _core() -> Any:
    """The process's only Core. It is never closed, because a Core restores the stack for signal handlers that it found.

    If Cores do not end in reverse order, that stack is freed, and the next signal ends Python with a segmentation
    fault.
    """
    import openvino

    return openvino.Core()


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINOForward:
    """A network compiled for the CPU and for one shape of input. One thread at a time may call it.

    Args:
        network: uint8 RGB [N, H, W, 3] or float32 maps [N, C, h, w] -> float32 [N, ...], in evaluation mode.
        batch: an input of the network, of the shape and type that it is compiled for. A smaller batch is padded.
        precision: "bfloat16" or "float32".
        threads: CPU threads; None for all.

    Attributes:
        row_shape: shape of the output for one row.
    """

    def __init__(self, network: nn.Module, batch: Tensor, precision: str, threads: int | None):
        settings: dict[str, str | int | bool] = {
            "PERFORMANCE_HINT": "LATENCY",  # all cores work on one batch; the throughput hint would split the cores
            "INFERENCE_PRECISION_HINT": _HINT[precision],
            # OpenVINO would bind its threads to the first cores while it computes. Several processes on a machine, such
            # as the workers of a cluster, would then share these cores.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        compiled = _compiled(network, batch, settings)
        self._request = compiled.create_infer_request()
        self.row_shape = tuple(compiled.output(0).shape)[1:]
        self._batch = batch.numpy()  # holds batches that are padded

    def __call__(self, inputs: np.ndarray | Tensor) -> np.ndarray:
        """Run the network on at most as many rows as `batch` has -> float32 [N, ...]."""
        rows = inputs.cpu().numpy() if isinstance(inputs, Tensor) else inputs
        count = len(rows)
        if count < len(self._batch):
            self._batch[:count] = rows
            rows = self._batch
        return self._request.infer([np.ascontiguousarray(rows)], share_inputs=True)[0][:count].copy()


def _compiled(network: nn.Module, batch: Tensor, settings: dict[str, str | int]) -> Any:
    """Load the compiled network from the cache, or compile and cache it.

    On a busy AMD EPYC (Zen 4) GoogLeNet takes 4 s to convert and 0.7 s to compile. Loading takes 0.3 s.
    """
    core = _core()
    key = cache_key(network, _machine(), tuple(batch.shape), str(batch.dtype), settings)
    cached = load_compiled(key)
    if cached is not None:
        try:
            return core.import_model(io.BytesIO(cached), "CPU", settings)
        except RuntimeError:
            forget_compiled(key)
    announce_once("compiling networks for this machine, which takes about 5 seconds each, on the first run only")
    with _CONVERSION:
        compiled = core.compile_model(converted(network, batch, list(batch.shape)), "CPU", settings)
    store_compiled(key, compiled.export_model().getvalue())
    return compiled


def _machine() -> list[str]:
    import openvino

    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    cpu = _core().get_property("CPU", "FULL_DEVICE_NAME")
    return [openvino.__version__, torch.__version__, platform.platform(), cpu, *sorted(capabilities)]


def converted(network: nn.Module, batch: Tensor, shape: Sequence[int]) -> Any:
    """Convert a network to OpenVINO's representation, an `openvino.Model`.

    Args:
        network: takes one tensor, in evaluation mode.
        batch: an input of the network.
        shape: shape of the converted network's input; -1 for a size that may vary.
    """
    import openvino

    example = batch[:1]
    with warnings.catch_warnings(), torch.no_grad():
        # torch warns that tracing is deprecated. OpenVINO's converter needs tracing, so the warning helps no user.
        warnings.simplefilter("ignore")
        logging.getLogger("openvino").setLevel(logging.ERROR)
        # The converter can trace by itself, but it also checks the trace, which takes four times as long.
        traced = torch.jit.trace(network, example, check_trace=False)
        return openvino.convert_model(traced, example_input=example, input=[list(shape)])
