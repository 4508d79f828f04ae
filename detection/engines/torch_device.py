"""Networks run by torch: as they are, or compiled for a GPU."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn


class TorchForward:
    """A network in torch, on any device.

    Compiled, it is channels-last, its element-wise operations are fused by `torch.compile`, and on a GPU the whole
    pass is one CUDA graph at a fixed batch size: a network of sixty small convolutions otherwise waits for its kernels
    to be launched. Convolution algorithms are those that cuDNN's heuristics choose, not those that win a race at the
    start: the winner, and the last bits of a result, could be others in the next process.

    Uncompiled it is the plain reference: no reduced precision, no TF32.

    Args:
        network: uint8 RGB [N, H, W, 3] -> float32 [N, ...], in evaluation mode; moved to `device`.
        device: "cpu", "cuda", "cuda:N".
        shape: of a compiled network's input; fewer rows than the first number are filled up.
        precision: "float32", "bfloat16" or "float16"; weights stay float32, and what autocast leaves in float32 too.
        compiled: whether to compile.

    Attributes:
        compiled: False also where torch.compile failed, of which a warning tells.
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
            self._once(self._batch)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # torch.compile needs a C compiler and more, and says so in many ways
            warnings.warn(
                f"torch.compile failed; running {device} without it, slower ({type(error).__name__}: "
                f"{str(error).strip().splitlines()[0]})",
                RuntimeWarning,
                stacklevel=2,
            )
            self._network, self.compiled = network, False
        if self._device.type == "cuda":
            self._capture()

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray | Tensor) -> Tensor:
        """As many rows as `shape` has, or fewer, uint8, from anywhere -> as many rows, float32, on the device."""
        rows = torch.from_numpy(crops) if isinstance(crops, np.ndarray) else crops
        if not self.compiled and self._graph is None:
            return self._once(rows.to(self._device))
        self._batch[: len(rows)].copy_(rows, non_blocking=True)  # rows beyond are earlier ones, and influence nothing
        if self._graph is None:
            return self._once(self._batch)[: len(rows)]
        self._graph.replay()
        return self._result[: len(rows)].clone()  # the next replay overwrites it

    @torch.inference_mode()
    def _once(self, batch: Tensor) -> Tensor:
        mixed = torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32)
        with mixed, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return self._network(batch).float()

    @torch.inference_mode()
    def _capture(self) -> None:
        """The pass as a CUDA graph, after a few on a stream of their own, as capturing wants it."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._once(self._batch)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Pictures may be uploaded by another thread meanwhile: only this one's calls are captured.
        with torch.cuda.device(self._device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = self._once(self._batch)
