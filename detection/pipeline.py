"""Regions of a stream of pictures, packed into full batches for the networks and handed back picture by picture.

Features of a region are the same bits whatever batch and place it comes in (see `engine`), so nothing that follows
depends on how regions were packed: not on the size of batches, on timing, or on which pictures came before.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import torch

from .engines.engine import CROP_SIZE, Engine

T = TypeVar("T")

# Pictures that a batch may wait for: without proposals, or with few that the cascade passes on, they fill no batch.
_MOST_PARTS = 16

# uint8 RGB [n, 224, 224, 3]: an array, or a tensor on the GPU.
Crops: TypeAlias = np.ndarray | torch.Tensor

# Warps boxes [n, 4] of a picture's pixels into `out`, uint8 [n, 224, 224, 3].
Warp = Callable[[T, np.ndarray, Crops], object]


@dataclass(frozen=True, eq=False)
class _Part(Generic[T]):
    """The next `count` regions of a batch are this picture's; `last` closes it."""

    picture: T
    count: int
    last: bool


@dataclass(frozen=True, eq=False)
class RegionBatch(Generic[T]):
    """Warped regions of one or several pictures: crops uint8 [n, 224, 224, 3]."""

    crops: Crops
    parts: Sequence[_Part[T]]


def batch_regions(
    pictures: Iterable[tuple[T, np.ndarray]], size: int, warp: Warp[T], device: str = "cpu"
) -> Iterator[RegionBatch[T]]:
    """Batches of `size` regions, in order; only where pictures end, or bring hardly any regions, there are fewer.

    Args:
        pictures: each with the boxes [N, 4] of its regions; N may be 0.
        size: regions of a batch.
        warp: makes the crops.
        device: where the crops are made: arrays on "cpu", else tensors.
    """

    def empty() -> Crops:
        shape = (size, CROP_SIZE, CROP_SIZE, 3)
        return np.empty(shape, np.uint8) if device == "cpu" else torch.empty(shape, dtype=torch.uint8, device=device)

    crops, filled = empty(), 0
    parts: list[_Part[T]] = []
    for picture, boxes in pictures:
        start = 0
        while True:
            count = min(size - filled, len(boxes) - start)
            if count:
                warp(picture, boxes[start : start + count], crops[filled : filled + count])
            start, filled = start + count, filled + count
            parts.append(_Part(picture, count, last=start == len(boxes)))
            if filled == size or len(parts) == _MOST_PARTS:
                yield RegionBatch(crops[:filled], parts)
                crops, filled, parts = empty(), 0, []
            if start == len(boxes):
                break
    if parts:
        yield RegionBatch(crops[:filled], parts)


def pooled_features(
    engines: Sequence[Engine], batches: Iterable[RegionBatch[T]]
) -> Iterator[tuple[T, list[np.ndarray]]]:
    """Each picture, in order, with the features of all its regions: float32 [N, D] from every engine."""
    pieces: list[list[np.ndarray]] = [[] for _ in engines]
    for batch in batches:
        features = [engine.features(batch.crops) for engine in engines]
        start = 0
        for part in batch.parts:
            for piece, values in zip(pieces, features, strict=True):
                piece.append(values[start : start + part.count])
            start += part.count
            if part.last:
                yield part.picture, [np.concatenate(piece) for piece in pieces]
                pieces = [[] for _ in engines]
