"""Which boxes of the hierarchies come first, and which are dropped (Uijlings et al. 2013, section 4.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hierarchy_positions(lengths: list[int]) -> NDArray[np.int64]:
    """Positions of all regions in their hierarchies, given in the order of their making: the whole picture has 1."""
    return np.concatenate([np.arange(length, 0, -1) for length in lengths])


def pseudo_random_values(positions: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """The paper's order: position in the hierarchy times a random number in [0, 1). Smaller is better."""
    return np.random.default_rng(seed).random(len(positions)) * positions


def first_of_each(boxes: NDArray[np.int32], width: int, height: int) -> NDArray[np.intp]:
    """Indices, rising, of the first occurrence of every distinct box of a picture this large."""
    corners = boxes.astype(np.int64)
    stride = np.int64(width + 1)
    first = corners[:, 1] * stride + corners[:, 0]
    second = corners[:, 3] * stride + corners[:, 2]
    _, index = np.unique(first * (stride * (height + 1)) + second, return_index=True)
    return np.sort(index)
