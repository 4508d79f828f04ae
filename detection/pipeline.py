"""Packs the regions of a stream of pictures into full batches, and returns their scores picture by picture.

On a CPU, the scores of a region do not depend on the batch that it is in or on its place there (see `engine`). The
detections of a picture therefore depend neither on the batch size and timing nor on the other pictures in the stream.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import torch

from .engines.engine import CROP_SIZE
from .engines.ensemble import EnsembleEngine, FirstScores
from .regression import LEAST_PROBABILITY

T = TypeVar("T")

# Largest number of parts in a batch. Pictures without regions, or with few regions above the cascade's threshold, would
# otherwise wait until enough other pictures have filled the batch.
_MOST_PARTS = 16

# A picture does not wait longer than this many seconds for others to fill a batch. An interrupted run then keeps most
# of its work also on slow machines, and half-empty batches are rare on fast ones.
_LONGEST_WAIT = 10.0

# Warped regions, uint8 RGB [n, 224, 224, 3]: an array for networks on the CPU, a tensor for networks on a GPU.
Crops: TypeAlias = np.ndarray | torch.Tensor

# warp(picture, boxes, out) writes the regions `boxes` [n, 4] of a picture to `out`, uint8 [n, 224, 224, 3].
Warp = Callable[[T, np.ndarray, Crops], object]


@dataclass(frozen=True, eq=False)
class _Part(Generic[T]):
    """The next `count` rows of a batch are regions of `picture`; `last` is True if the picture has no more regions."""

    picture: T
    count: int
    last: bool


@dataclass(frozen=True, eq=False)
class RegionBatch(Generic[T]):
    """Warped regions of one or several pictures.

    Attributes:
        crops: uint8 RGB [n, 224, 224, 3].
        parts: which rows of `crops` belong to which picture, in order; their counts add up to n.
    """

    crops: Crops
    parts: Sequence[_Part[T]]


def batch_regions(
    pictures: Iterable[tuple[T, np.ndarray]], size: int, warp: Warp[T], device: str = "cpu"
) -> Iterator[RegionBatch[T]]:
    """Warps the regions of pictures, in order, into batches.

    A batch has `size` regions. It may have fewer if it is the last, if it ends the first picture, if it has parts of 16
    pictures, or if a picture in it has waited for 10 seconds.

    Args:
        pictures: pairs of a picture and the boxes [N, 4] of its regions; N may be 0.
        size: largest number of regions in a batch.
        warp: called as warp(picture, boxes, out) to write crops to `out`.
        device: "cpu" makes crops as arrays; any other device makes them as tensors there.
    """

    def empty() -> Crops:
        shape = (size, CROP_SIZE, CROP_SIZE, 3)
        return np.empty(shape, np.uint8) if device == "cpu" else torch.empty(shape, dtype=torch.uint8, device=device)

    crops, filled = empty(), 0
    parts: list[_Part[T]] = []
    begun = -math.inf  # the first picture does not wait
    for picture, boxes in pictures:
        start = 0
        while True:
            count = min(size - filled, len(boxes) - start)
            if count:
                warp(picture, boxes[start : start + count], crops[filled : filled + count])
            start, filled = start + count, filled + count
            parts.append(_Part(picture, count, last=start == len(boxes)))
            waited = start == len(boxes) and time.monotonic() - begun >= _LONGEST_WAIT
            if filled == size or len(parts) == _MOST_PARTS or waited:
                yield RegionBatch(crops[:filled], parts)
                crops, filled, parts = empty(), 0, []
                if start == len(boxes) or begun > -math.inf:
                    begun = time.monotonic()
            if start == len(boxes):
                break
    if parts:
        yield RegionBatch(crops[:filled], parts)


@dataclass(frozen=True, eq=False)
class ScoredRegions:
    """The scores of all N regions of one picture.

    Attributes:
        probabilities: float32 [N, 1 + classes], the mean over the ensemble, column 0 the background.
        kept: int64 [R], the regions whose object probability, by the first member, is at least LEAST_PROBABILITY.
        features: float32 [R, D], the first member's features of these regions.
    """

    probabilities: np.ndarray
    kept: np.ndarray
    features: np.ndarray


def score_regions(
    ensemble: EnsembleEngine, batches: Iterable[RegionBatch[T]], passed: int = 128
) -> Iterator[tuple[T, ScoredRegions]]:
    """Yields each picture, in order, with the scores of its regions.

    The first member scores every batch. The other members wait until enough regions have passed the cascade, because an
    engine takes as long for a few regions as for a full batch. To save memory, features are kept only for regions that
    may show an object.

    Args:
        ensemble: the networks.
        batches: from `batch_regions`.
        passed: number of passed regions for which the other members wait. They do not wait for more than 16 parts, nor
            longer than 10 seconds. They do not wait after the first picture.
    """

    def scored_batches() -> Iterator[tuple[Sequence[_Part[T]], FirstScores, np.ndarray]]:
        waiting: list[tuple[Sequence[_Part[T]], FirstScores]] = []
        begun = -math.inf

        def flush() -> Iterator[tuple[Sequence[_Part[T]], FirstScores, np.ndarray]]:
            for (parts, first), mean in zip(waiting, ensemble.mean([first for _, first in waiting]), strict=True):
                yield parts, first, mean

        for batch in batches:
            waiting.append((batch.parts, ensemble.first(batch.crops)))
            enough = sum(len(first.rows) for _, first in waiting) >= passed
            ended = any(part.last for parts, _ in waiting for part in parts)
            waited = ended and time.monotonic() - begun >= _LONGEST_WAIT
            if enough or waited or sum(len(parts) for parts, _ in waiting) >= _MOST_PARTS:
                yield from flush()
                waiting = []
                if ended or begun > -math.inf:
                    begun = time.monotonic()
        if waiting:
            yield from flush()

    probabilities: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    features: list[np.ndarray] = []
    count = 0  # regions of the present picture in earlier parts
    for parts, first, mean in scored_batches():
        start = 0
        for part in parts:
            rows = slice(start, start + part.count)
            start += part.count
            near_objects = np.flatnonzero(first.objectness[rows] >= LEAST_PROBABILITY)
            probabilities.append(mean[rows])
            kept.append(count + near_objects)
            features.append(first.features[rows][near_objects])
            count += part.count
            if part.last:
                yield (
                    part.picture,
                    ScoredRegions(np.concatenate(probabilities), np.concatenate(kept), np.concatenate(features)),
                )
                probabilities, kept, features, count = [], [], [], 0
