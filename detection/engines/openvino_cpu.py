"""Networks compiled by OpenVINO for the CPU."""

import io
import logging
import platform
import warnings
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from .compiled_cache import cache_key, forget_compiled, load_compiled, store_compiled

Shape: TypeAlias = tuple[int, int, int, int]  # shape of a batch of crops, [N, H, W, 3]

_HINT = {"bfloat16": "bf16", "float32": "f32"}


@lru_cache(1)
def _core() -> Any:
    import openvino

    return openvino.Core()


def cpu_computes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVINOForward:
    """A network compiled for the CPU and for one shape of input. One thread at a time may call it.

    Args:
        network: uint8 RGB [N, H, W, 3] -> float32 [N, ...], in evaluation mode.
        shape: shape of the input. A smaller batch is padded to `shape[0]` rows.
        precision: "bfloat16" or "float32".
        threads: CPU threads; None for all.
    """

    def __init__(self, network: nn.Module, shape: Shape, precision: str, threads: int | None):
        settings: dict[str, str | int] = {
            "PERFORMANCE_HINT": "LATENCY",  # all cores work on one batch; the throughput hint would split them
            "INFERENCE_PRECISION_HINT": _HINT[precision],
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._request = _compiled(network, shape, settings).create_infer_request()
        self._batch: np.ndarray | None = None  # holds batches that are padded
        self._shape = shape

    def __call__(self, crops: np.ndarray | Tensor) -> np.ndarray:
        """Run the network on at most `shape[0]` crops: uint8 [N, H, W, 3] -> float32 [N, ...]."""
        rows = crops.cpu().numpy() if isinstance(crops, Tensor) else crops
        count = len(rows)
        if count < self._shape[0]:
            if self._batch is None:
                self._batch = np.zeros(self._shape, np.uint8)
            self._batch[:count] = rows
            rows = self._batch
        return self._request.infer([np.ascontiguousarray(rows)], share_inputs=True)[0][:count].copy()


def _compiled(network: nn.Module, shape: Shape, settings: dict[str, str | int]) -> Any:
    """Load the compiled network from the cache, or compile and cache it.

    On a busy AMD EPYC (Zen 4) GoogLeNet takes 4 s to convert and 0.7 s to compile. Loading takes 0.3 s.
    """
    core = _core()
    key = cache_key(network, _machine(), shape, settings)
    cached = load_compiled(key)
    if cached is not None:
        try:
            return core.import_model(io.BytesIO(cached), "CPU", settings)
        except RuntimeError:
            forget_compiled(key)
    compiled = core.compile_model(_convert(network, shape), "CPU", settings)
    store_compiled(key, compiled.export_model().getvalue())
    return compiled


def _machine() -> list[str]:
    import openvino

    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    cpu = _core().get_property("CPU", "FULL_DEVICE_NAME")
    return [openvino.__version__, torch.__version__, platform.platform(), cpu, *sorted(capabilities)]


def _convert(network: nn.Module, shape: Shape) -> Any:
    import openvino

    example = torch.zeros(1, *shape[1:], dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        # torch warns that tracing is deprecated, but OpenVINO's converter needs it; users cannot change that.
        warnings.simplefilter("ignore")
        logging.getLogger("openvino").setLevel(logging.ERROR)
        # The converter itself would also check the traced network, which takes four times as long.
        traced = torch.jit.trace(network, example, check_trace=False)
        return openvino.convert_model(traced, example_input=example, input=[list(shape)])
