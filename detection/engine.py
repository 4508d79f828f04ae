"""Engines: the forward pass of a region classifier, fast, on whatever the machine has.

An engine compiles a backbone up to its pooled features and applies the classifier in float32 afterwards: the logits are
sums of a thousand terms that bfloat16 would round to a few per cent of a probability, and they cost nothing.

Tolerance: in bfloat16 probabilities stay within 0.03 of the float32 network's, in float32 within 1e-4. On CPUs how
crops are grouped into calls changes not a bit of the result: batches are always filled up to one fixed size, the rows
of a batch do not influence each other, and neither does the number of threads.
"""

import copy
import logging
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .backbones import Backbone

CROP_SIZE = 224

Precision = Literal["auto", "float32", "bfloat16"]

# Large enough for full matrix units, small enough that activations of one batch stay near the caches: on 2 CPU cores
# 16 and 32 are equally fast and 64 is slower; a GPU wants more rows to fill its multiprocessors.
_BATCH_SIZE = {"cpu": 16, "cuda": 256}


class EngineError(RuntimeError):
    """The network cannot run on the device asked for."""


def resolve_device(device: str) -> str:
    """The device meant: for "auto" a GPU where there is one, else "cpu".

    Raises:
        EngineError: there is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if device.split(":")[0] == "cuda":
        if not torch.cuda.is_available():
            raise EngineError(
                f"device {device!r} was asked for, but torch finds no GPU here; use --device cpu or --device auto"
            )
        return device
    raise EngineError(f"unknown device {device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:N'")


def computes_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 in hardware; elsewhere it is emulated, slower than float32."""
    if device == "cpu":
        import openvino

        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return torch.cuda.is_bf16_supported()


class CompiledForward:
    """A network compiled for one device, one batch size and one size of crops: uint8 crops in, float32 out, any number
    of rows.

    Args:
        network: float RGB in 0..255 [N, 3, size, size] -> [N, ...]; copied, in evaluation mode.
        device, precision, batch_size, threads: as for `Engine`.
        size: side of the crops in pixels.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        size: int = CROP_SIZE,
    ):
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.device = resolve_device(device)
        kind = self.device.split(":")[0]
        self.batch_size = batch_size or _BATCH_SIZE[kind]
        self.size = size
        network = _FromCrops(copy.deepcopy(network)).eval()
        if kind == "cpu":
            self.precision, self._forward = _compile_openvino(network, (self.batch_size, size), precision, threads)
            self.description = f"OpenVINO on CPU, {self.precision}"
        else:
            self.precision, self._forward = _compile_cuda(network, self.device, precision)
            self.description = f"torch on {torch.cuda.get_device_name(self.device)}, {self.precision}"

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Crops uint8 RGB [N, size, size, 3], N >= 1 -> float32 [N, ...]."""
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (self.size, self.size, 3):
            raise ValueError(
                f"crops are {crops.dtype} {list(crops.shape)}, expected uint8 [N, {self.size}, {self.size}, 3]"
            )
        parts = []
        for start in range(0, len(crops), self.batch_size):
            rows = crops[start : start + self.batch_size]
            count = len(rows)
            if count < self.batch_size:
                rows = np.concatenate([rows, np.zeros((self.batch_size - count, *rows.shape[1:]), np.uint8)])
            parts.append(self._forward(np.ascontiguousarray(rows))[:count])
        return np.concatenate(parts)


class _FromCrops(nn.Module):
    """uint8 RGB [N, H, W, 3] -> what `network` makes of float RGB [N, 3, H, W]."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        return self.network(crops.permute(0, 3, 1, 2).float())


class _PooledFeatures(nn.Module):
    """Float RGB in 0..255 [N, 3, H, W] -> [N, out_channels]."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> Tensor:
        return self.backbone.features(pixels).mean((2, 3))


class Engine:
    """The compiled forward pass of a region classifier.

        engine = Engine(model)
        probabilities = engine(crops)  # uint8 RGB [N, 224, 224, 3] -> float32 [N, C]

    Args:
        model: a backbone (`GoogLeNet`, `TorchvisionGoogLeNet`); its weights are copied into the compiled network.
        device: "auto" (a GPU if there is one), "cpu" (OpenVINO), "cuda" or "cuda:N" (torch).
        precision: "auto" is bfloat16 where the device computes with it, else float32.
        batch_size: rows of one forward pass; None for the device's own.
        threads: CPU threads; None for all.

    Attributes:
        num_classes: columns of the probabilities.
        device: "cpu", "cuda" or "cuda:N".
        description: device and precision in words.
    """

    def __init__(
        self,
        model: Backbone,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
    ):
        self._forward = CompiledForward(
            _PooledFeatures(model), device=device, precision=precision, batch_size=batch_size, threads=threads
        )
        self._weight = model.classifier.weight.detach().float().cpu().numpy().copy()  # [C, 1024]
        self._bias = model.classifier.bias.detach().float().cpu().numpy()
        self.num_classes = len(self._bias)
        self.batch_size = self._forward.batch_size
        self.device = self._forward.device
        self.description = self._forward.description

    def features(self, crops: np.ndarray) -> np.ndarray:
        """Pooled features: crops uint8 RGB [N, 224, 224, 3] -> float32 [N, 1024]."""
        if not len(crops):
            return np.empty((0, self._weight.shape[1]), np.float32)
        return self._forward(crops)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Pooled features float32 [N, 1024] -> probabilities float32 [N, C], each row by itself to the last bit."""
        # A matrix product would be faster (2 against 17 us a row, where the network takes milliseconds), but BLAS adds
        # up in another order for other numbers of rows or threads; einsum's order depends on the row's length alone.
        logits = np.einsum("nk,ck->nc", features, self._weight) + self._bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        """Crops uint8 RGB [N, 224, 224, 3] -> probabilities float32 [N, C]; no crops -> [0, C]."""
        return self.classify(self.features(crops))


def _compile_openvino(
    network: nn.Module, batch: tuple[int, int], precision: Precision, threads: int | None
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    import openvino

    core = openvino.Core()
    if precision == "auto":
        precision = "bfloat16" if computes_bfloat16("cpu") else "float32"
    count, size = batch
    example = torch.zeros(count, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # torch deprecates the tracing that OpenVINO's converter still does; nothing a user could act on.
        warnings.simplefilter("ignore")
        logging.getLogger("openvino").setLevel(logging.ERROR)
        graph = openvino.convert_model(network, example_input=example, input=[list(example.shape)])
    settings: dict[str, str | int] = {
        "PERFORMANCE_HINT": "LATENCY",  # one batch on all cores: the throughput hint would split them into streams
        "INFERENCE_PRECISION_HINT": {"bfloat16": "bf16", "float32": "f32"}[precision],
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    request = core.compile_model(graph, "CPU", settings).create_infer_request()

    def forward(crops: np.ndarray) -> np.ndarray:
        return request.infer([crops], share_inputs=True)[0]

    return precision, forward


def _compile_cuda(
    network: nn.Module, device: str, precision: Precision
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    if precision == "auto":
        precision = "bfloat16" if computes_bfloat16(device) else "float32"
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def forward(crops: np.ndarray) -> np.ndarray:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            return network(torch.from_numpy(crops).to(device, non_blocking=True)).float().cpu().numpy()

    return precision, forward
