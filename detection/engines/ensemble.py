"""The forward pass of an ensemble: blocks that all members share run once, and the cascade spares most other work.

The paper's six networks see every region (Szegedy et al. 2015, section 7). Members that were trained with frozen lower
blocks compute the same lower feature maps, so one pass computes them for all members. The cascade shows a region to the
other members only if the first member gives it enough probability of being an object; they read the same maps.

The results of a crop are those of separate engines: the same bits in float32 on OpenVINO, within the engine's tolerance
elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..networks.backbones import Backbone, FirstBlocks, shared_blocks
from .choice import Kind
from .engine import CompiledForward, Engine
from .quantisation import quantised


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


class EnsembleEngine:
    """Scores crops with all members of an ensemble.

        ensemble = EnsembleEngine(model.members, cascade=0.1)
        scores = ensemble(crops)  # uint8 RGB [N, 224, 224, 3]

    Args:
        members: the networks, which are copied.
        kind, device, threads: as for `Engine`.
        moments: whether the first member's features have `SpatialMoments`.
        cascade: smallest object probability, by the first member, of a crop that the other members score; 0 shows all
            crops to all members.
        share: whether blocks that all members have in common run once for all.

    Attributes:
        engines: an engine for each member. With shared blocks they take feature maps.
        shared: number of blocks that run once for all members.
        batch_size: crops in a forward pass.
        device, description, reason: those of the first engine.

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
        cascade: float = 0.0,
        share: bool = True,
    ):
        self._cascade = cascade
        self.shared = shared_blocks(members) if share and len(members) > 1 else 0
        self._lower: CompiledForward | None = None
        maps: tuple[int, ...] | None = None
        if self.shared:
            first = quantised(members[0]) if kind == "openvino-int8" else members[0]
            blocks = FirstBlocks(first, self.shared)
            self._lower = CompiledForward(blocks, kind=kind, device=device, threads=threads)
            maps = self._lower.output_shape
        self.engines = [
            Engine(
                member,
                kind=kind,
                device=device,
                threads=threads,
                moments=moments and number == 0,
                first_block=self.shared,
                maps=maps,
            )
            for number, member in enumerate(members)
        ]
        self.device = self.engines[0].device
        self.description = self.engines[0].description
        self.reason = self.engines[0].reason

    @property
    def batch_size(self) -> int:
        """Crops in a forward pass. The number drops when the device runs out of memory."""
        return self.engines[0].batch_size if self._lower is None else self._lower.batch_size

    def __call__(self, crops: np.ndarray | Tensor) -> RegionScores:
        """Score crops, uint8 RGB [N, 224, 224, 3], N >= 0: an array, or a tensor on any device."""
        inputs = crops if self._lower is None or not len(crops) else self._lower.on_device(crops)
        features = self.engines[0].features(inputs)
        probabilities = self.engines[0].classify(features)
        objectness = 1 - probabilities[:, 0]
        if len(self.engines) > 1:
            rows = np.flatnonzero(objectness >= self._cascade)
            others = [engine(inputs[rows]) for engine in self.engines[1:]]
            mean = np.mean([probabilities[rows], *others], axis=0)
            probabilities = np.zeros_like(probabilities)
            probabilities[:, 0] = 1
            probabilities[rows] = mean
        return RegionScores(probabilities, objectness, features)
