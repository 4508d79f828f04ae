"""Engines: the forward pass of a region classifier, as fast as the machine allows.

An engine runs a backbone up to its pooled features in the engine's precision, then the classifier in float32. The
logits are sums of a thousand terms: rounding them to bfloat16 would change a probability by a few per cent, and
computing them in float32 takes almost no time. `choice` describes the kinds of engines.

Tolerance: probabilities differ from those of plain torch by at most 1e-4 in float32, 0.03 in bfloat16 and float16, and
0.1 in 8 bits. On OpenVINO, the probabilities of a crop are the same bits whatever the other crops of a batch, the batch
size and the number of threads are. On a GPU, they stay within the tolerance.
"""

import copy
import logging
import re
import threading
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.backbones import Backbone, FirstBlocks
from .choice import EngineError, Kind, Precision, choose
from .openvino_cpu import OpenVINOForward
from .quantisation import quantised
from .torch_device import TorchForward

_logger = logging.getLogger(__name__.split(".")[0])

CROP_SIZE = 224

# A batch must be large enough to fill the matrix units and small enough for its activations to stay near the caches. On
# 2 CPU cores 16 and 32 are equally fast and 64 is slower. A GPU needs more rows to fill its multiprocessors.
_BATCH_SIZE = {"cpu": 16, "cuda": 256}


class CompiledForward:
    """A compiled network that takes any number of uint8 crops, or float32 feature maps, and returns float32.

    If the device has too little memory for a batch, the batch size is halved, repeatedly if necessary, which is logged.
    Any number of threads may call it; they take turns.

    Args:
        network: float RGB in 0..255 [N, 3, size, size], or maps, -> [N, ...]. It is copied, and the copy runs in
            evaluation mode.
        kind, device, precision, batch_size, threads: as for `Engine`.
        size: side of the crops in pixels.
        maps: shape (C, h, w) of the input, for a network that takes feature maps; None for crops.

    Attributes:
        batch_size: rows of one forward pass.
        choice: kind, device and precision of the engine.
        description: kind, device and precision in words.

    Raises:
        EngineError: the machine cannot run this kind of engine, or has too little memory for one row.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        kind: Kind = "auto",
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        size: int = CROP_SIZE,
        maps: tuple[int, ...] | None = None,
    ):
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.choice = choose(kind, device, precision)
        self.batch_size = batch_size or _BATCH_SIZE[torch.device(self.choice.device).type]
        self._row_shape = (size, size, 3) if maps is None else maps
        self._dtype = torch.uint8 if maps is None else torch.float32
        self._threads = threads
        # A forward pass writes to buffers that belong to the compiled network, and it uses all cores anyway.
        self._lock = threading.Lock()
        self._network = (_FromCrops(copy.deepcopy(network)) if maps is None else copy.deepcopy(network)).eval()
        self._forward: OpenVINOForward | TorchForward | None = None
        self._build()
        self.description = self._describe()

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output for one row."""
        if isinstance(self._forward, OpenVINOForward):
            return self._forward.row_shape
        return tuple(self.on_device(torch.zeros(1, *self._row_shape, dtype=self._dtype)).shape[1:])

    def __call__(self, inputs: np.ndarray | Tensor) -> np.ndarray:
        """Run the network on N >= 1 crops, uint8 RGB [N, size, size, 3], or maps, float32 [N, C, h, w].

        The inputs are an array, or a tensor on any device.

        Returns:
            float32 [N, ...].
        """
        outputs = self.on_device(inputs)
        return outputs.cpu().numpy() if isinstance(outputs, Tensor) else outputs  # waits for the GPU once

    def on_device(self, inputs: np.ndarray | Tensor) -> np.ndarray | Tensor:
        """The same as `__call__`, but outputs of torch stay on the device: an array from OpenVINO, else a tensor."""
        expected = str(self._dtype).removeprefix("torch.")
        if str(inputs.dtype).removeprefix("torch.") != expected or tuple(inputs.shape[1:]) != self._row_shape:
            raise ValueError(
                f"the inputs are {inputs.dtype} {list(inputs.shape)}, expected {expected} [N, "
                f"{', '.join(map(str, self._row_shape))}]"
            )
        with self._lock:
            parts = self._outputs(inputs)
        if isinstance(parts[0], Tensor):
            return torch.cat([part for part in parts if isinstance(part, Tensor)])
        return np.concatenate(parts)

    def _outputs(self, inputs: np.ndarray | Tensor) -> list[np.ndarray | Tensor]:
        """The outputs of one batch after the other."""
        parts: list[np.ndarray | Tensor] = []
        start = 0
        while start < len(inputs):
            assert self._forward is not None
            rows = inputs[start : start + self.batch_size]
            try:
                parts.append(self._forward(rows))
                start += len(rows)
                continue
            except (MemoryError, RuntimeError) as error:
                message = _out_of_memory_message(error)
            # Here, after the `except` block, the error no longer keeps the memory of the failed pass allocated.
            self._halve_batch_size(message)
            self._build()
        return parts

    def _build(self) -> None:
        while self._forward is None:
            try:
                self._forward = self._new_forward()
                return
            except (MemoryError, RuntimeError) as error:
                message = _out_of_memory_message(error)
            self._halve_batch_size(message)

    def _new_forward(self) -> OpenVINOForward | TorchForward:
        choice = self.choice
        batch = torch.zeros(self.batch_size, *self._row_shape, dtype=self._dtype)
        if choice.kind.startswith("openvino"):
            return OpenVINOForward(self._network, batch, choice.precision, self._threads)
        compiled = choice.kind == "torch-compiled"
        return TorchForward(self._network, choice.device, batch, choice.precision, compiled)

    def _halve_batch_size(self, message: str) -> None:
        self._forward = None
        device, rows = self.choice.device, self.batch_size
        if rows == 1:
            raise EngineError(
                f"{device} has too little memory for a single region ({message}); "
                "free some memory, or use another --device"
            )
        self.batch_size = rows // 2
        _logger.warning(
            "%s has too little memory for batches of %d regions (%s); continuing with batches of %d, which is slower",
            device,
            rows,
            message,
            self.batch_size,
        )
        if device != "cpu":
            torch.cuda.empty_cache()

    def _describe(self) -> str:
        if isinstance(self._forward, TorchForward) and not self._forward.compiled:
            return replace(self.choice, kind="torch").description
        return self.choice.description


def _out_of_memory_message(error: MemoryError | RuntimeError) -> str:
    """The line of the error's message about lack of memory. Raises `error` again if it has another cause.

    torch has a class for lack of memory. OpenVINO raises a RuntimeError whose last line is "Failed to allocate ...
    bytes of memory", after lines about its source code.
    """
    message = str(error)
    line = re.search(r".*(out of memory|failed to allocate|bad_alloc|can't allocate).*", message, re.IGNORECASE)
    if not line and not isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        raise error
    return line[0].strip() if line else message


class _FromCrops(nn.Module):
    """`network` for crops that are uint8 RGB [N, H, W, 3] in place of float RGB [N, 3, H, W]."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, crops: Tensor) -> Tensor:
        return self.network(crops.permute(0, 3, 1, 2).float())


class _PooledFeatures(nn.Module):
    """Mean of each channel of the last feature map: the input of `blocks` -> [N, out_channels]."""

    def __init__(self, blocks: nn.Module):
        super().__init__()
        self.blocks = blocks

    def forward(self, inputs: Tensor) -> Tensor:
        return self.blocks(inputs).float().mean((2, 3))


class SpatialMoments(nn.Module):
    """Spatial moments of feature maps: [N, C, side, side] -> [N, 5 * C].

    The first C columns are the channels' means. Then come the means weighted by x, by y, by x^2 and by y^2, where x and
    y go from -1 to 1 across the map.
    """

    basis: Tensor

    def __init__(self, side: int = CROP_SIZE // 32):
        super().__init__()
        positions = torch.linspace(-1, 1, side)
        x, y = positions.expand(side, side), positions[:, None].expand(side, side)
        self.register_buffer("basis", torch.stack([x, y, x * x, y * y]).flatten(1).T / side**2)  # [side^2, 4]

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):  # float32: the terms of the products nearly cancel
            moments = maps.flatten(2) @ self.basis  # [N, C, 4]
        return torch.cat([maps.mean((2, 3)), moments.transpose(1, 2).flatten(1)], dim=1)


class _Moments(nn.Module):
    """Spatial moments of the last feature map: the input of `blocks` -> [N, 5 * out_channels]."""

    def __init__(self, blocks: nn.Module):
        super().__init__()
        self.blocks = blocks
        self.moments = SpatialMoments()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.moments(self.blocks(inputs).float())


class Engine:
    """The forward pass of a region classifier.

        engine = Engine(model)
        probabilities = engine(crops)  # uint8 RGB [N, 224, 224, 3] -> float32 [N, C]

    Args:
        model: a backbone, `GoogLeNet` or `TorchvisionGoogLeNet`, which is copied.
        kind: see `choice`; "auto" is the fastest engine whose probabilities stay within 0.03 of plain torch's.
        device: "auto" (a GPU if torch finds one), "cpu", "cuda" or "cuda:N".
        precision: "auto" is the fastest precision of the device.
        batch_size: rows of one forward pass; None for 16 on a CPU and 256 on a GPU.
        threads: CPU threads of OpenVINO; None for all.
        moments: add `SpatialMoments` to the features. They say where in the region a channel is active, which box
            regression needs.
        columns: int64 [outputs], the column of the probabilities to which each output of the network adds; None if each
            output is a column.
        first_block: number of the trunk's first blocks that another network has run already. With a number above 0 the
            engine takes the feature maps after these blocks in place of crops.
        maps: shape (C, h, w) of these feature maps; None for crops.

    Attributes:
        num_classes: columns of the probabilities.
        num_features: columns of the features.
        device: "cpu", "cuda" or "cuda:N".
        description: engine, device and precision in words.

    Raises:
        EngineError: the machine cannot run this kind of engine, or has too little memory for one region.
    """

    def __init__(
        self,
        model: Backbone,
        *,
        kind: Kind = "auto",
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        moments: bool = False,
        columns: np.ndarray | None = None,
        first_block: int = 0,
        maps: tuple[int, ...] | None = None,
    ):
        backbone = quantised(model) if kind == "openvino-int8" else model
        blocks = FirstBlocks(backbone, len(backbone.trunk)) if maps is None else backbone.trunk[first_block:]
        self._forward = CompiledForward(
            _Moments(blocks) if moments else _PooledFeatures(blocks),
            kind=kind,
            device=device,
            precision=precision,
            batch_size=batch_size,
            threads=threads,
            maps=maps,
        )
        self._weight = model.classifier.weight.detach().float().cpu().numpy().T.copy()  # [1024, outputs]
        self._bias = model.classifier.bias.detach().float().cpu().numpy().copy()
        self._columns = columns
        self.num_classes = len(self._bias) if columns is None else int(columns.max()) + 1
        self.num_features = len(self._weight) * (5 if moments else 1)
        self.device = self._forward.choice.device
        self.description = self._forward.description

    @property
    def batch_size(self) -> int:
        """Rows of one forward pass. The number drops when the device runs out of memory."""
        return self._forward.batch_size

    def features(self, inputs: np.ndarray | Tensor) -> np.ndarray:
        """Pooled features of crops, uint8 RGB [N, 224, 224, 3], or of feature maps, float32 [N, C, h, w].

        The inputs are an array, or a tensor on any device.

        Returns:
            float32 [N, 1024], or [N, 5120] with `moments`.
        """
        if not len(inputs):
            return np.empty((0, self.num_features), np.float32)
        return self._forward(inputs)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities of pooled features: float32 [N, 1024] or [N, 5120] from `features` -> float32 [N, C]."""
        probabilities = self.outputs(features)
        if self._columns is None:
            return probabilities
        order = np.argsort(self._columns, kind="stable")
        starts = np.searchsorted(self._columns[order], np.arange(self.num_classes))
        return np.add.reduceat(probabilities[:, order], starts, axis=1)

    def outputs(self, features: np.ndarray) -> np.ndarray:
        """Probabilities of the network's outputs: float32 [N, 1024] or [N, 5120] from `features` -> [N, outputs]."""
        features = features[:, : len(self._weight)]
        # BLAS adds in another order for other numbers of rows or threads. The kernel's order depends only on the row's
        # length. A GPU computes features too fast for the kernel, so its probabilities keep only the stated tolerance.
        if self.device == "cpu":
            from .classifier_kernel import linear  # importing numba takes half a second

            logits = np.empty((len(features), len(self._bias)), np.float32)
            linear(np.ascontiguousarray(features), self._weight, self._bias, logits)
        else:
            logits = features @ self._weight + self._bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits

    def __call__(self, inputs: np.ndarray | Tensor) -> np.ndarray:
        """Class probabilities of crops, uint8 RGB [N, 224, 224, 3], or of feature maps, N >= 0 -> float32 [N, C]."""
        return self.classify(self.features(inputs))
