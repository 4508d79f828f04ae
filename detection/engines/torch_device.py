"""Networks run by torch: plain, or compiled for a GPU."""

import logging
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

_logger = logging.getLogger(__name__.split(".")[0])

# `torch.backends.cudnn.flags` sets flags of the whole process. If two threads set and reset them at the same time, a
# network could use TF32.
_CUDNN_FLAGS = threading.Lock()


class TorchForward:
    """A network in torch, on any device. One thread at a time may call it.

    A compiled network is channels-last, and `torch.compile` fuses its element-wise operations. On a GPU the whole
    forward pass is one CUDA graph with a fixed batch size. Without the graph, a network of sixty small convolutions
    would spend most of its time launching kernels. cuDNN chooses convolution algorithms by its heuristics, not by
    timing them: timing could choose other algorithms in each process, and so change the last bits of a result.

    The uncompiled network is the reference for the others. No network uses TF32.

    Args:
        network: uint8 RGB [N, H, W, 3] or float32 maps [N, C, h, w] -> float32 [N, ...], in evaluation mode. It is
            moved to `device`.
        device: "cpu", "cuda" or "cuda:N".
        batch: an input of the shape and type that a compiled network takes. A smaller batch is padded.
        precision: "float32", "bfloat16" or "float16". Weights stay in float32, as do the operations that autocast keeps
            in float32.
        compiled: whether to compile the network.

    Attributes:
        compiled: whether the network is compiled. False if torch.compile failed, which is logged.
    """

    def __init__(self, network: nn.Module, device: str, batch: Tensor, precision: str, compiled: bool):
        self._device = torch.device(device)
        self._precision: torch.dtype = getattr(torch, precision)
        self._network: Callable[[Tensor], Tensor] = network.to(self._device)
        self._batch = batch.to(self._device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self.compiled = compiled
        if not compiled:
            return
        network.to(memory_format=torch.channels_last)
        try:
            self._network = torch.compile(network, dynamic=False)
            self._run_network(self._batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch.compile needs a C compiler and more; its errors have many classes
            _logger.warning(
                "torch.compile failed, so the network runs uncompiled on %s, which is slower (%s: %s)",
                device,
                type(error).__name__,
                str(error).strip().partition("\n")[0],
            )
            self._network, self.compiled = network, False
        if self._device.type == "cuda":
            self._record_graph()

    @torch.inference_mode()
    def __call__(self, inputs: np.ndarray | Tensor) -> Tensor:
        """Run the network on at most as many rows as `batch` has: an array, or a tensor on any device.

        Returns:
            float32 [N, ...] on `device`.
        """
        rows = torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs
        if not self.compiled and self._graph is None:
            return self._run_network(rows.to(self._device))
        self._batch[: len(rows)].copy_(rows, non_blocking=True)  # the other rows keep old crops; they have no effect
        if self._graph is None:
            return self._run_network(self._batch)[: len(rows)]
        self._graph.replay()
        return self._result[: len(rows)].clone()  # the next replay overwrites `_result`

    @torch.inference_mode()
    def _run_network(self, batch: Tensor) -> Tensor:
        mixed = torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32)
        with _CUDNN_FLAGS, mixed, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._network(batch).float()

    @torch.inference_mode()
    def _record_graph(self) -> None:
        """Record the forward pass as a CUDA graph. torch requires some passes on another stream first."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._run_network(self._batch)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Another thread may upload pictures meanwhile, so only the calls of this thread are recorded.
        with torch.cuda.device(self._device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = self._run_network(self._batch)
