"""Which proposal covers which object: the numba kernel behind `recall`, imported when it is first needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..runtime.compilation import kernel


@kernel
def _iou(a: Any, b: Any) -> float:
    """Of two boxes, in float64: 60 / 100 must be the double 0.6, or the threshold 0.6 would miss it."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@kernel
def cover(objects: Any, proposals: Any, counts: Any, closest: Any, matched: Any) -> None:
    """The overlap of each object with the first n proposals of one image, for several n in a single pass.

    The one-to-one matching takes the pair with the largest IoU, removes both, and goes on; equal pairs by earlier
    proposal, then by earlier object. That is the stable matching in which both sides prefer the larger IoU, and
    it is unique: so it can be kept up to date while proposals arrive one by one. A newcomer goes to the best object
    that it suits better than the proposal there, which then looks for another object in its turn. No object ever
    loses by a newcomer: an object's overlap only rises with n.

    Args:
        objects: float64 ``[G, 4]``.
        proposals: float64 ``[N, 4]``, best first.
        counts: int64 ``[C]``, rising, from 1.
        closest: float64 ``[C, G]``, filled with the IoU of the closest proposal.
        matched: float64 ``[C, G]``, filled with the IoU in the one-to-one matching; 0 for an object without partner.
    """
    number = objects.shape[0]
    overlaps = np.empty((proposals.shape[0], number))
    best = np.zeros(number)
    held = np.zeros(number)
    holder = np.full(number, -1)
    row = 0
    for newcomer in range(proposals.shape[0]):
        while row < counts.size and counts[row] <= newcomer:
            closest[row] = best
            matched[row] = held
            row += 1
        for g in range(number):
            overlaps[newcomer, g] = _iou(objects[g], proposals[newcomer])
            best[g] = max(best[g], overlaps[newcomer, g])
        proposal = newcomer
        while proposal >= 0:
            goal = -1
            for g in range(number):
                overlap = overlaps[proposal, g]
                suits = overlap > held[g] or (overlap == held[g] > 0 and proposal < holder[g])
                if suits and (goal < 0 or overlap > overlaps[proposal, goal]):
                    goal = g
            if goal < 0:
                break
            proposal, holder[goal], held[goal] = holder[goal], proposal, overlaps[proposal, goal]
    closest[row:] = best
    matched[row:] = held
