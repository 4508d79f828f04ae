"""The pseudo-random ranking of boxes, and the removal of duplicates (Uijlings et al. 2013, section 4.3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hierarchy_positions(lengths: list[int]) -> NDArray[np.int64]:
    """Returns the position of each region in its hierarchy, int64 ``[sum of lengths]``.

    The last region of a hierarchy, the whole image, has position 1; the first superpixel has the largest position.

    Args:
        lengths: the number of regions of each hierarchy.
    """
    return np.concatenate([np.arange(length, 0, -1) for length in lengths])


def pseudo_random_values(positions: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Returns position in the hierarchy times a random number in [0, 1), float64 ``[N]``. Smaller is better."""
    return np.random.default_rng(seed).random(len(positions)) * positions


def first_of_each(boxes: NDArray[np.int32], width: int, height: int) -> NDArray[np.intp]:
    """Returns the index of the first occurrence of every distinct box, rising.

    Args:
        boxes: int32 ``[N, 4]``, inside an image of `width` x `height` pixels.
    """
    corners = boxes.astype(np.int64)
    stride = np.int64(width + 1)
    top_left = corners[:, 1] * stride + corners[:, 0]
    bottom_right = corners[:, 3] * stride + corners[:, 2]
    _, index = np.unique(top_left * (stride * (height + 1)) + bottom_right, return_index=True)
    return np.sort(index)
