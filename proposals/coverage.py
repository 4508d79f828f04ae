"""The numba kernel that computes which proposal covers which object. `recall.py` imports it at its first use."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime.compilation import kernel


@kernel
def _iou(a: Any, b: Any) -> float:
    """Returns the IoU of two boxes in float64. In float32, an IoU of 60 / 100 would miss the threshold 0.6."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@kernel
def cover(objects: Any, proposals: Any, counts: Any, closest: Any, matched: Any) -> None:
    """Computes the overlap of each object with the first n proposals of one image, for several n in a single pass.

    The one-to-one matching is greedy: it repeatedly matches the pair with the largest IoU and removes both boxes. Ties
    go to the earlier proposal, then to the earlier object. This is the unique stable matching in which proposals and
    objects prefer the larger IoU, so it can be updated while proposals arrive one by one (Gale and Shapley). A new
    proposal takes the object with the largest IoU among those that prefer it to their current proposal. The replaced
    proposal then looks for another object in the same way. The overlap of an object therefore never falls with n.

    Args:
        objects: float64 ``[G, 4]``.
        proposals: float64 ``[N, 4]``, best first.
        counts: int64 ``[C]``, the values of n, rising, from 1.
        closest: float64 ``[C + 1, G]``, filled with the largest IoU with any of the first n proposals. The last row
            is for all proposals.
        matched: float64 ``[C + 1, G]``, filled with the IoU in the one-to-one matching; 0 for an unmatched object.
    """
    number = objects.shape[0]
    overlaps = np.empty((proposals.shape[0], number))
    best = np.zeros(number)
    held = np.zeros(number)
    holder = np.full(number, -1)
    row = 0
    for new_proposal in range(proposals.shape[0]):
        while row < counts.size and counts[row] <= new_proposal:
            closest[row] = best
            matched[row] = held
            row += 1
        for g in range(number):
            overlaps[new_proposal, g] = _iou(objects[g], proposals[new_proposal])
            best[g] = max(best[g], overlaps[new_proposal, g])
        proposal = new_proposal
        while proposal >= 0:
            target = -1
            for g in range(number):
                overlap = overlaps[proposal, g]
                preferred = overlap > held[g] or (overlap == held[g] > 0 and proposal < holder[g])
                if preferred and (target < 0 or overlap > overlaps[proposal, target]):
                    target = g
            if target < 0:
                break
            proposal, holder[target], held[target] = holder[target], proposal, overlaps[proposal, target]
    closest[row:] = best
    matched[row:] = held
