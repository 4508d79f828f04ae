"""The forward pass of an ensemble: blocks that all members share run once, and the cascade spares most other work.

The paper's six networks see every region (Szegedy et al. 2015, section 7). Members that were trained with frozen lower
blocks compute the same lower feature maps, so one pass computes them for all members. The cascade shows a region to the
other members only if the first member gives it enough probability of being an object; they read the same maps.

The results of a crop are those of separate engines: the same bits in float32 on OpenVINO, within the engine's tolerance
elsewhere.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..networks.backbones import Backbone, FirstBlocks, shared_blocks
from .choice import Kind, choose
from .engine import CompiledForward, Engine
from .quantisation import quantised

# Number of networks that are loaded at the same time.
_LOADERS = 2


@dataclass(frozen=True, eq=False)
class RegionScores:
    """The scores that an ensemble gives N crops.

    Attributes:
        probabilities: float32 [N, C], the mean over the members. Column 0 is the background. A crop that the first
            member rejects is background with probability 1.
        objectness: float32 [N], 1 - the first member's background probability.
        features: float32 [N, D], the first member's features.
    """

    probabilities: np.ndarray
    objectness: np.ndarray
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class FirstScores:
    """The scores that the first member gives N crops.

    Attributes:
        probabilities: float32 [N, C]. Column 0 is the background.
        objectness: float32 [N], 1 - the background probability.
        features: float32 [N, D].
        rows: int64 [R], the crops that pass the cascade.
        inputs: what the other members need of these crops: the crops, or the feature maps of the shared blocks.
    """

    probabilities: np.ndarray
    objectness: np.ndarray
    features: np.ndarray
    rows: np.ndarray
    inputs: np.ndarray | Tensor


class EnsembleEngine:
    """Scores crops with all members of an ensemble.

        ensemble = EnsembleEngine(model.members, cascade=0.1)
        scores = ensemble(crops)  # uint8 RGB [N, 224, 224, 3]

    Args:
        members: the networks, which are copied.
        kind, device, threads: as for `Engine`.
        moments: whether the first member's features have `SpatialMoments`.
        columns: the column of the probabilities to which each output of a member adds, see `Model.output_columns`; None
            if each output is a column.
        cascade: smallest object probability, by the first member, of a crop that the other members score; 0 shows all
            crops to all members.
        allow_8_bits: whether "auto" may choose "openvino-int8", if all members store their input ranges.

    Attributes:
        engines: an engine for each member. With shared blocks they take feature maps.
        shared: number of blocks that run once for all members.
        batch_size: crops in a forward pass.
        device: "cpu", "cuda" or "cuda:N".
        description: engine, device and precision in words.
        reason: why this engine was chosen.

    Raises:
        EngineError: the machine cannot run this kind of engine, or has too little memory for one crop.
    """

    def __init__(
        self,
        members: Sequence[Backbone],
        *,
        kind: Kind = "auto",
        device: str = "auto",
        threads: int | None = None,
        moments: bool = False,
        columns: np.ndarray | None = None,
        cascade: float = 0.0,
        allow_8_bits: bool = False,
    ):
        self._cascade = cascade
        choice = choose(kind, device, ranges=[one.input_ranges for one in members] if allow_8_bits else ())
        kind, device, self.reason = choice.kind, choice.device, choice.reason
        self.shared = shared_blocks(members) if len(members) > 1 else 0
        self._lower: CompiledForward | None = None
        maps: tuple[int, ...] | None = None
        if self.shared:
            first = quantised(members[0]) if kind == "openvino-int8" else members[0]
            blocks = FirstBlocks(first, self.shared)
            self._lower = CompiledForward(blocks, kind=kind, device=device, threads=threads)
            maps = self._lower.output_shape

        def engine(number: int) -> Engine:
            return Engine(
                members[number],
                kind=kind,
                device=device,
                threads=threads,
                moments=moments and number == 0,
                columns=columns,
                first_block=self.shared,
                maps=maps,
            )

        # OpenVINO takes a third of a second on one core to read a compiled network. torch compiles one after the other.
        loaders = _LOADERS if kind.startswith("openvino") else 1
        with ThreadPoolExecutor(loaders) as pool:
            self.engines = list(pool.map(engine, range(len(members))))
        self.device = self.engines[0].device
        self.description = self.engines[0].description

    @property
    def batch_size(self) -> int:
        """Crops in a forward pass. The number drops when the device runs out of memory."""
        return self.engines[0].batch_size if self._lower is None else self._lower.batch_size

    def first(self, crops: np.ndarray | Tensor) -> FirstScores:
        """Score crops with the first member: uint8 RGB [N, 224, 224, 3], N >= 0, an array or a tensor on any device."""
        inputs = crops if self._lower is None or not len(crops) else self._lower.on_device(crops)
        features = self.engines[0].features(inputs)
        probabilities = self.engines[0].classify(features)
        objectness = 1 - probabilities[:, 0]
        rows = np.flatnonzero(objectness >= self._cascade) if len(self.engines) > 1 else np.zeros(0, np.int64)
        return FirstScores(probabilities, objectness, features, rows, inputs[rows])

    def mean(self, scores: Sequence[FirstScores]) -> list[np.ndarray]:
        """The mean probabilities over the members, float32 [N, C] for each of `scores`.

        The other members score the passed crops of all `scores` together, so that their batches are full.
        """
        if len(self.engines) == 1:
            return [one.probabilities for one in scores]
        inputs = [one.inputs for one in scores]
        tensors = [one for one in inputs if isinstance(one, Tensor)]
        together = torch.cat(tensors) if tensors else np.concatenate(inputs)
        passed = np.concatenate([one.probabilities[one.rows] for one in scores])
        average = np.mean([passed, *(engine(together) for engine in self.engines[1:])], axis=0)
        means, start = [], 0
        for one in scores:
            mean = np.zeros_like(one.probabilities)
            mean[:, 0] = 1
            mean[one.rows] = average[start : start + len(one.rows)]
            means.append(mean)
            start += len(one.rows)
        return means

    def each(self, crops: np.ndarray) -> np.ndarray:
        """Score crops with every member, without the cascade: uint8 RGB [N, 224, 224, 3] -> float32 [members, N, C]."""
        inputs = crops if self._lower is None or not len(crops) else self._lower.on_device(crops)
        return np.stack([engine(inputs) for engine in self.engines])

    def __call__(self, crops: np.ndarray | Tensor) -> RegionScores:
        """Score crops with all members: uint8 RGB [N, 224, 224, 3], N >= 0, an array or a tensor on any device."""
        first = self.first(crops)
        (probabilities,) = self.mean([first])
        return RegionScores(probabilities, first.objectness, first.features)
