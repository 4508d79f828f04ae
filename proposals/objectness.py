"""A ranking of selective search's boxes that uses no random numbers: likely objects first, near-duplicates later.

A box scores higher if it is large, if many strategies produced it, and if it is near the top of their hierarchies.
Every higher-ranked near-duplicate lowers its score. The constants were chosen on a part of ILSVRC train and a third of
val; `docs/proposals.md` shows the curves on another third of val.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runtime.compilation import kernel

AREA_POWER: Final = 0.3
SAME: Final = 0.7  # IoU above which two boxes are near-duplicates
PENALTY: Final = 2.0


@kernel
def _repetition(boxes: Any, penalty: Any) -> None:
    """Sums, for each box, its IoU with all earlier near-duplicates.

    Args:
        boxes: float32 ``[N, 4]``, best first.
        penalty: float64 ``[N]``, output: the sums.
    """
    for i in range(boxes.shape[0]):
        x1, y1, x2, y2 = boxes[i]
        area = (x2 - x1) * (y2 - y1)
        total = 0.0
        for j in range(i):
            wide = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0])
            high = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1])
            if wide > 0 and high > 0:
                intersection = wide * high
                union = area + (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1]) - intersection
                if intersection > SAME * union:
                    total += intersection / union
        penalty[i] = total


def objectness(boxes: NDArray[np.int32], positions: NDArray[np.int64], width: int, height: int) -> NDArray[np.float64]:
    """Scores how likely each box is to cover an object that no higher-ranked box covers.

    Args:
        boxes: int32 ``[N, 4]``, the boxes of all hierarchies, duplicates included.
        positions: ``[N]``, the position of each box in its hierarchy; 1 is the whole image.
        width, height: size of the image.

    Returns:
        float64 ``[N]``, larger is better. Identical boxes have the same score.
    """
    _, first, distinct_index = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
    distinct_index = distinct_index.reshape(-1)
    support = np.bincount(distinct_index, weights=1 / positions)  # of all strategies that produced the box
    distinct = boxes[first].astype(np.float32)
    area = (distinct[:, 2] - distinct[:, 0]) * (distinct[:, 3] - distinct[:, 1])
    score = np.log(support) + AREA_POWER * np.log(area / np.float32(width * height))
    order = np.argsort(-score, kind="stable")
    penalty = np.empty(len(order))
    _repetition(distinct[order], penalty)
    score[order] -= PENALTY * np.log1p(penalty)
    return score[distinct_index]
