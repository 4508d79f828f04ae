"""Engines: the forward pass of a region classifier, fast, on whatever the machine has.

An engine runs a backbone up to its pooled features and applies the classifier in float32 afterwards: the logits are
sums of a thousand terms that bfloat16 would round to a few per cent of a probability, and they cost nothing.
`choice` has the kinds of engines that there are.

Tolerance: probabilities stay within 1e-4 of plain torch's in float32, within 0.03 in bfloat16 and float16, and within
0.1 in 8 bits. With OpenVINO, how crops are grouped into calls changes not a bit of the result: the rows of a batch do
not influence each other, and neither do the batch size and the number of threads. A GPU promises the tolerance only.
"""

import copy
import re
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.backbones import Backbone
from .choice import EngineError, Kind, Precision, choose
from .openvino_cpu import OpenVINOForward
from .quantisation import quantised
from .torch_device import TorchForward

CROP_SIZE = 224

# Large enough for full matrix units, small enough that activations of one batch stay near the caches: on 2 CPU cores
# 16 and 32 are equally fast and 64 is slower; a GPU wants more rows to fill its multiprocessors.
_BATCH_SIZE = {"cpu": 16, "cuda": 256}


class CompiledForward:
    """A network ready to run: uint8 crops in, float32 out, any number of rows.

    When the device has too little memory for a batch, half the batch is tried, and so on down to one row; a
    RuntimeWarning tells of it.

    Args:
        network: float RGB in 0..255 [N, 3, size, size] -> [N, ...]; copied, in evaluation mode.
        kind, device, precision, batch_size, threads: as for `Engine`.
        size: side of the crops in pixels.

    Attributes:
        batch_size: rows of one forward pass.
        choice: what it runs on, and why.
        description: the same in words.

    Raises:
        EngineError: what was asked for is not there, or memory does not suffice for one row.
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
    ):
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self.choice = choose(kind, device, precision)
        self.batch_size = batch_size or _BATCH_SIZE[torch.device(self.choice.device).type]
        self.size = size
        self._threads = threads
        self._network = _FromCrops(copy.deepcopy(network)).eval()
        self._forward: OpenVINOForward | TorchForward | None = None
        self._build()
        self.description = self._describe()

    def __call__(self, crops: np.ndarray | Tensor) -> np.ndarray:
        """Crops uint8 RGB [N, size, size, 3], N >= 1, an array or a tensor on any device -> float32 [N, ...]."""
        if crops.dtype not in (np.uint8, torch.uint8) or tuple(crops.shape[1:]) != (self.size, self.size, 3):
            raise ValueError(
                f"crops are {crops.dtype} {list(crops.shape)}, expected uint8 [N, {self.size}, {self.size}, 3]"
            )
        parts: list[np.ndarray | Tensor] = []
        start = 0
        while start < len(crops):
            assert self._forward is not None
            rows = crops[start : start + self.batch_size]
            try:
                parts.append(self._forward(rows))
                start += len(rows)
                continue
            except (MemoryError, RuntimeError) as error:
                failure = _memory_failure(error)
            self._halve(failure)  # here, where the error no longer holds on to the memory of the failed pass
            self._build()
        if isinstance(parts[0], Tensor):  # fetched once, when all batches are on their way
            return torch.cat([part for part in parts if isinstance(part, Tensor)]).cpu().numpy()
        return np.concatenate(parts)

    def _build(self) -> None:
        while self._forward is None:
            try:
                self._forward = self._new_forward()
                return
            except (MemoryError, RuntimeError) as error:
                failure = _memory_failure(error)
            self._halve(failure)

    def _new_forward(self) -> OpenVINOForward | TorchForward:
        choice = self.choice
        shape = (self.batch_size, self.size, self.size, 3)
        if choice.kind.startswith("openvino"):
            return OpenVINOForward(self._network, shape, choice.precision, self._threads)
        compiled = choice.kind == "torch-compiled"
        return TorchForward(self._network, choice.device, shape, choice.precision, compiled)

    def _halve(self, failure: str) -> None:
        self._forward = None
        where, rows = self.choice.device, self.batch_size
        if rows == 1:
            raise EngineError(
                f"{where} has too little memory for a single region ({failure}); free some, or use another --device"
            )
        self.batch_size = rows // 2
        warnings.warn(
            f"{where} has too little memory for {rows} regions at a time ({failure}); "
            f"going on with {self.batch_size}, slower",
            RuntimeWarning,
            stacklevel=3,
        )
        if where != "cpu":
            torch.cuda.empty_cache()

    def _describe(self) -> str:
        choice = self.choice
        if choice.kind == "openvino-int8":
            return f"OpenVINO on CPU, int8 and {choice.precision}"
        if choice.kind == "openvino":
            return f"OpenVINO on CPU, {choice.precision}"
        where = "CPU" if choice.device == "cpu" else torch.cuda.get_device_name(choice.device)
        compiled = isinstance(self._forward, TorchForward) and self._forward.compiled
        return f"{'compiled torch' if compiled else 'torch'} on {where}, {choice.precision}"


def _memory_failure(error: MemoryError | RuntimeError) -> str:
    """What an error says of memory that ran out, in a line; any other error goes on its way.

    torch has a class for it, and OpenVINO's says "Failed to allocate ... bytes" after where in its source it was.
    """
    message = str(error)
    known = re.search(r".*(out of memory|failed to allocate|bad_alloc|can't allocate).*", message, re.IGNORECASE)
    if not known and not isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        raise error
    return known[0].strip() if known else message


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
        return self.backbone.features(pixels).float().mean((2, 3))


class SpatialMoments(nn.Module):
    """Maps [N, C, side, side] -> [N, 5 * C]: means, and means weighted by x, y, x^2 and y^2 from -1 to 1 across."""

    basis: Tensor

    def __init__(self, side: int = CROP_SIZE // 32):
        super().__init__()
        place = torch.linspace(-1, 1, side)
        x, y = place.expand(side, side), place[:, None].expand(side, side)
        self.register_buffer("basis", torch.stack([x, y, x * x, y * y]).flatten(1).T / side**2)  # [side^2, 4]

    def forward(self, maps: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):  # a product of few terms, which are to cancel
            moments = maps.flatten(2) @ self.basis  # [N, C, 4]
        return torch.cat([maps.mean((2, 3)), moments.transpose(1, 2).flatten(1)], dim=1)


class _Moments(nn.Module):
    """Float RGB in 0..255 [N, 3, 224, 224] -> [N, 5 * out_channels], see `SpatialMoments`."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone
        self.moments = SpatialMoments()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.moments(self.backbone.features(pixels).float())


class Engine:
    """The forward pass of a region classifier.

        engine = Engine(model)
        probabilities = engine(crops)  # uint8 RGB [N, 224, 224, 3] -> float32 [N, C]

    Args:
        model: a backbone (`GoogLeNet`, `TorchvisionGoogLeNet`); its weights are copied.
        kind: see `choice`; "auto" is the fastest that is within 0.03 of the reference.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        precision: "auto" is the fastest that the device computes with.
        batch_size: rows of one forward pass; None for the device's own.
        threads: CPU threads of OpenVINO; None for all.
        moments: features also say where in the region a channel is active, which box regression wants to know: after
            the means of the 1024 channels come their means weighted by x, y, x^2 and y^2, x and y from -1 to 1 across
            the region.

    Attributes:
        num_classes: columns of the probabilities.
        num_features: columns of the features.
        device: "cpu", "cuda" or "cuda:N".
        description: engine, device and precision in words.
        reason: why this engine was chosen.

    Raises:
        EngineError: what was asked for is not there, or memory does not suffice for one region.
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
    ):
        backbone = quantised(model) if kind == "openvino-int8" else model
        self._forward = CompiledForward(
            _Moments(backbone) if moments else _PooledFeatures(backbone),
            kind=kind,
            device=device,
            precision=precision,
            batch_size=batch_size,
            threads=threads,
        )
        self._weight = model.classifier.weight.detach().float().cpu().numpy().copy()  # [C, 1024]
        self._bias = model.classifier.bias.detach().float().cpu().numpy().copy()
        self.num_classes = len(self._bias)
        self.num_features = self._weight.shape[1] * (5 if moments else 1)
        self.device = self._forward.choice.device
        self.description = self._forward.description
        self.reason = self._forward.choice.reason

    @property
    def batch_size(self) -> int:
        """Rows of one forward pass; less than at first after the device ran out of memory."""
        return self._forward.batch_size

    def features(self, crops: np.ndarray | Tensor) -> np.ndarray:
        """Pooled features: crops uint8 RGB [N, 224, 224, 3], array or tensor on any device -> float32 [N, 1024],
        with `moments` [N, 5120]."""
        if not len(crops):
            return np.empty((0, self.num_features), np.float32)
        return self._forward(crops)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Pooled features float32 [N, 1024 or more], from `features` -> probabilities float32 [N, C]."""
        features = features[:, : self._weight.shape[1]]
        # A matrix product would be faster (2 against 17 us a row, where the network takes milliseconds), but BLAS adds
        # up in another order for other numbers of rows or threads; einsum's order depends on the row's length alone.
        # On a GPU, whose features come too fast for that, rows have only the stated tolerance.
        alone = self.device == "cpu"
        logits = np.einsum("nk,ck->nc", features, self._weight) if alone else features @ self._weight.T
        logits += self._bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits

    def __call__(self, crops: np.ndarray | Tensor) -> np.ndarray:
        """Crops uint8 RGB [N, 224, 224, 3] -> probabilities float32 [N, C]; no crops -> [0, C]."""
        return self.classify(self.features(crops))
