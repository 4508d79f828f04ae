"""An order of boxes that puts likely objects first and their near-copies later; no random numbers.

A box counts more the nearer the top of the hierarchies it was made, the more strategies made it, and the larger it is;
it falls back for every better box that it nearly repeats. The constants below were fixed on part of train and a third
of val; `docs/proposals.md` has the curves on another third.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runtime.compilation import kernel

AREA_POWER: Final = 0.3
SAME: Final = 0.7  # intersection over union above which a box repeats another
PENALTY: Final = 2.0


@kernel
def _repetition(boxes: Any, penalty: Any) -> None:
    """Of each box the summed overlap with the earlier ones that it repeats.

    Args:
        boxes: float32 ``[N, 4]``, best first.
        penalty: float64 ``[N]``, written.
    """
    for i in range(boxes.shape[0]):
        x1, y1, x2, y2 = boxes[i]
        area = (x2 - x1) * (y2 - y1)
        total = 0.0
        for j in range(i):
            wide = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0])
            high = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1])
            if wide > 0 and high > 0:
                shared = wide * high
                either = area + (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1]) - shared
                if shared > SAME * either:
                    total += shared / either
        penalty[i] = total


def objectness(boxes: NDArray[np.int32], positions: NDArray[np.int64], width: int, height: int) -> NDArray[np.float64]:
    """How likely each box is to add an object to those ranked before it.

    Args:
        boxes: int32 ``[N, 4]``, of all hierarchies, with repetitions.
        positions: ``[N]``, of each in its hierarchy: 1 for the whole picture.
        width, height: of the picture.

    Returns:
        float64 ``[N]``, larger is better; copies of one box share one value.
    """
    _, first, copy_of = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
    copy_of = copy_of.reshape(-1)
    made = np.bincount(copy_of, weights=1 / positions)
    distinct = boxes[first].astype(np.float32)
    area = (distinct[:, 2] - distinct[:, 0]) * (distinct[:, 3] - distinct[:, 1])
    likely = np.log(made) + AREA_POWER * np.log(area / np.float32(width * height))
    order = np.argsort(-likely, kind="stable")
    penalty = np.empty(len(order))
    _repetition(distinct[order], penalty)
    likely[order] -= PENALTY * np.log1p(penalty)
    return likely[copy_of]
