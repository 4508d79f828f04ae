"""Which detection finds which object, by the rules of the protocols.

All boxes here are 1-based and inclusive, float64: a side is ``xmax - xmin + 1`` pixels. That is the same as
``x2 - x1`` in the program's own convention, so that IoUs are those of COCO's continuous boxes too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BLOCK = 1_000_000  # pairs looked at together: some 100 MB

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of a detection and an object: their rows, int64 [P], and their IoU, float64 [P]."""

    detections: Ints
    objects: Ints
    overlaps: Floats

    def __getitem__(self, rows: npt.NDArray[np.bool_] | Ints) -> Pairs:
        return Pairs(self.detections[rows], self.objects[rows], self.overlaps[rows])


def object_thresholds(inclusive: Floats) -> Floats:
    """The IoU at which an object of ILSVRC counts as found, float64 [G]: min(0.5, wh / ((w + 10)(h + 10))).

    Five pixels of tolerance on each side, which matter for boxes below some 24 x 24 pixels. Source: ILSVRC 2014
    development kit; Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", section 4.3.
    """
    width = inclusive[:, 2] - inclusive[:, 0] + 1
    height = inclusive[:, 3] - inclusive[:, 1] + 1
    with np.errstate(divide="ignore", invalid="ignore"):  # inverted boxes; nothing overlaps these
        return np.fmin(0.5, (width * height) / ((width + 10) * (height + 10)))


def overlapping(
    boxes: Floats, keys: Ints, object_boxes: Floats, object_keys: Ints, least: float | Floats = 0.0
) -> Pairs:
    """All pairs of equal key whose boxes share a pixel and whose IoU is at least ``least``.

    Args:
        boxes, keys: of the detections, [D, 4] and [D].
        object_boxes, object_keys: of the objects, [G, 4] and [G].
        least: for each object [G], or for all.

    Returns:
        Pairs in the order of the detections' rows, then of the objects' rows.
    """
    by_key = np.argsort(object_keys, kind="stable")
    first = np.searchsorted(object_keys[by_key], keys, "left")
    counts = np.searchsorted(object_keys[by_key], keys, "right") - first
    least = np.broadcast_to(np.asarray(least, dtype=np.float64), object_keys.shape)
    ends = np.cumsum(counts)
    blocks = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    start = 0
    while start < len(keys):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, "right")))
        rows = np.repeat(np.arange(start, stop), counts[start:stop])  # [P]
        within = np.arange(len(rows)) - np.repeat(ends[start:stop] - counts[start:stop] - before, counts[start:stop])
        objects = by_key[first[rows] + within]
        overlaps = _overlaps(boxes[rows], object_boxes[objects])
        blocks.append(Pairs(rows, objects, overlaps)[(overlaps > 0) & (overlaps >= least[objects])])
        start = stop
    return Pairs(
        np.concatenate([block.detections for block in blocks]),
        np.concatenate([block.objects for block in blocks]),
        np.concatenate([block.overlaps for block in blocks]),
    )


def match_free(pairs: Pairs, ranks: Ints, objects: int) -> Ints:
    """ILSVRC: from the best detection to the worst, each takes the object it overlaps most among those still free.

    Seen from the objects: each prefers the better-ranked detection. Such a matching is the only stable one (no
    detection and object would rather have each other), so it can be found for all pictures side by side: every
    detection asks its favourite, every object keeps the best that asked, the others go on to their next favourite
    (Gale & Shapley, 1962).

    Args:
        pairs: those that pass the threshold of the object. Equal overlaps: the earlier object is preferred.
        ranks: int64 [D], 0 is the best detection; all different.
        objects: their number G.

    Returns:
        int64 [D], the object that each detection takes, or -1.
    """
    pairs = _by_preference(pairs, ranks)
    detection_of_rank = np.empty(len(ranks), np.int64)
    detection_of_rank[ranks] = np.arange(len(ranks))
    asker = ranks[pairs.detections]  # detections by their rank from here on
    end = np.zeros(len(ranks), np.int64)
    favourite = np.zeros(len(ranks), np.int64)  # position in pairs of the object to ask next
    active = np.unique(asker)
    favourite[active] = np.searchsorted(asker, active, "left")
    end[active] = np.searchsorted(asker, active, "right")
    nobody = len(ranks)
    holder = np.full(objects, nobody)
    while len(active):
        asked = pairs.objects[favourite[active]]
        contested = np.unique(asked)
        before = holder[contested]
        np.minimum.at(holder, asked, active)
        displaced = before[(before != holder[contested]) & (before != nobody)]
        refused = np.concatenate([active[holder[asked] != active], displaced])
        favourite[refused] += 1
        active = refused[favourite[refused] < end[refused]]
    taken = np.flatnonzero(holder != nobody)
    matched = np.full(len(ranks), -1)
    matched[detection_of_rank[holder[taken]]] = taken
    return matched


def match_best(pairs: Pairs, ranks: Ints, difficult: npt.NDArray[np.bool_]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """VOC: each detection is held against the one object it overlaps most, whether that is free or not.

    Args:
        pairs: those that pass the threshold. Equal overlaps: the earlier object is preferred.
        ranks: int64 [D], 0 is the best detection; all different.
        difficult: bool [G], objects whose detections count neither way.

    Returns:
        int64 [D], the object that each detection takes, or -1; and bool [D], the detections that do not count.
    """
    pairs = _by_preference(pairs, ranks)
    _, first = np.unique(ranks[pairs.detections], return_index=True)
    pairs = pairs[first]  # one per detection, the best detection first
    ignored = np.zeros(len(ranks), np.bool_)
    ignored[pairs.detections[difficult[pairs.objects]]] = True
    pairs = pairs[~difficult[pairs.objects]]
    _, first = np.unique(pairs.objects, return_index=True)
    matched = np.full(len(ranks), -1)
    matched[pairs.detections[first]] = pairs.objects[first]
    return matched, ignored


def _by_preference(pairs: Pairs, ranks: Ints) -> Pairs:
    """The pairs by rank of the detection, then by falling overlap, then by row of the object."""
    return pairs[np.lexsort((pairs.objects, -pairs.overlaps, ranks[pairs.detections]))]


def _overlaps(a: Floats, b: Floats) -> Floats:
    """IoU of a[i] with b[i], float64 [P]; 0 for those that share no pixel. The order of operations is the kit's."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + 1
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + 1
    shared = width * height
    area_a = (a[:, 2] - a[:, 0] + 1) * (a[:, 3] - a[:, 1] + 1)
    area_b = (b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)
    meet = (width > 0) & (height > 0)
    return np.divide(shared, area_a + area_b - shared, out=np.zeros_like(shared), where=meet)
