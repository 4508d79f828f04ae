"""Networks run by torch: plain, or compiled for a GPU."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class TorchForward:
    """A network in torch, on any device.

    A compiled network is channels-last, and `torch.compile` fuses its element-wise operations. On a GPU the whole pass
    is one CUDA graph with a fixed batch size: a network of sixty small convolutions otherwise spends its time launching
    kernels. cuDNN chooses convolution algorithms by its heuristics. Timing the algorithms at the start could choose
    other ones in each process, and with them change the last bits of a result.

    A network that is not compiled is the reference. No network uses TF32.

    Args:
        network: uint8 RGB [N, H, W, 3] -> float32 [N, ...], in evaluation mode. It is moved to `device`.
        device: "cpu", "cuda" or "cuda:N".
        shape: shape of a compiled network's input. A smaller batch is padded to `shape[0]` rows.
        precision: "float32", "bfloat16" or "float16". Weights stay in float32, as do the operations that autocast keeps
            in float32.
        compiled: whether to compile the network.

    Attributes:
        compiled: whether the network is compiled. False if torch.compile failed, after a RuntimeWarning.
    """

    def __init__(
        self, network: nn.Module, device: str, shape: tuple[int, int, int, int], precision: str, compiled: bool
    ):
        self._device = torch.device(device)
        self._precision: torch.dtype = getattr(torch, precision)
        self._network: Callable[[Tensor], Tensor] = network.to(self._device)
        self._batch = torch.zeros(shape, dtype=torch.uint8, device=self._device)
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
            warnings.warn(
                f"torch.compile failed, so the network runs uncompiled on {device}, which is slower "
                f"({type(error).__name__}: {str(error).strip().splitlines()[0]})",
                RuntimeWarning,
                stacklevel=2,
            )
            self._network, self.compiled = network, False
        if self._device.type == "cuda":
            self._record_graph()

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray | Tensor) -> Tensor:
        """Run the network on at most `shape[0]` crops: uint8 [N, H, W, 3], an array or a tensor on any device.

        Returns:
            float32 [N, ...] on `device`.
        """
        rows = torch.from_numpy(crops) if isinstance(crops, np.ndarray) else crops
        if not self.compiled and self._graph is None:
            return self._run_network(rows.to(self._device))
        self._batch[: len(rows)].copy_(rows, non_blocking=True)  # later rows are left over; they influence nothing
        if self._graph is None:
            return self._run_network(self._batch)[: len(rows)]
        self._graph.replay()
        return self._result[: len(rows)].clone()  # the next replay overwrites `_result`

    @torch.inference_mode()
    def _run_network(self, batch: Tensor) -> Tensor:
        mixed = torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32)
        with mixed, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._network(batch).float()

    @torch.inference_mode()
    def _record_graph(self) -> None:
        """Record the forward pass as a CUDA graph. torch asks for some passes on another stream beforehand."""
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
