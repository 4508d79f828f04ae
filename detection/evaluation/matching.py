"""Matches detections to objects by the rules of the protocols.

All boxes in this file are 1-based and inclusive, float64: a side is ``xmax - xmin + 1`` pixels. This length equals
``x2 - x1`` in the program's own convention, so the IoUs are also those of COCO's continuous boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .array_types import Flags, Floats, Ints
from .checks import EvaluationError

_PAIRS_PER_BLOCK = 1_000_000  # limits the memory for IoUs to some 100 MB
# With one key. 10,000 detections and 2,000 objects of a class in a picture take some 5 seconds and up to 1 GB.
_MOST_PAIRS = 20_000_000


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of a detection and an object.

    Attributes:
        detections: int64 [P], rows of the detections.
        objects: int64 [P], rows of the objects.
        ious: float64 [P].
    """

    detections: Ints
    objects: Ints
    ious: Floats

    def __getitem__(self, rows: Flags | Ints) -> Pairs:
        return Pairs(self.detections[rows], self.objects[rows], self.ious[rows])


def object_thresholds(inclusive: Floats) -> Floats:
    """Returns the IoU at which ILSVRC counts each object as found, float64 [G]: min(0.5, wh / ((w + 10)(h + 10))).

    The rule tolerates an error of five pixels on each side. It matters for boxes below about 24 x 24 pixels. Source:
    ILSVRC 2014 development kit; Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", section 4.3.

    Args:
        inclusive: float64 [G, 4].
    """
    width = inclusive[:, 2] - inclusive[:, 0] + 1
    height = inclusive[:, 3] - inclusive[:, 1] + 1
    with np.errstate(divide="ignore", invalid="ignore"):  # inverted boxes, which overlap nothing
        return np.fmin(0.5, (width * height) / ((width + 10) * (height + 10)))


def picture_class_keys(*tables: Sequence[Ints]) -> list[Ints]:
    """Numbers the pairs (picture, class) that occur in any of the tables.

    Args:
        tables: for each table two columns of equal length, pictures and classes, int64 [N].

    Returns:
        For each table int64 [N]. Two rows of any tables have equal keys if both picture and class are equal.
    """
    pictures = np.concatenate([table[0] for table in tables])
    labels = np.concatenate([table[1] for table in tables])
    _, pictures = np.unique(pictures, return_inverse=True)
    values, labels = np.unique(labels, return_inverse=True)
    keys = pictures * max(len(values), 1) + labels
    return np.split(keys, np.cumsum([len(table[0]) for table in tables])[:-1])


def overlapping_pairs(
    boxes: Floats, keys: Ints, object_boxes: Floats, object_keys: Ints, min_iou: float | Floats = 0.0
) -> Pairs:
    """Returns all pairs of equal key whose boxes share a pixel and whose IoU is at least ``min_iou``.

    Args:
        boxes: float64 [D, 4], the detections.
        keys: int64 [D], the keys of the detections, from ``picture_class_keys``.
        object_boxes: float64 [G, 4].
        object_keys: int64 [G], the keys of the objects, from the same call.
        min_iou: one number for each object [G], or one number for all.

    Returns:
        Pairs sorted by row of the detection, then by row of the object.

    Raises:
        EvaluationError: more than 20 million pairs have the same key.
    """
    by_key = np.argsort(object_keys, kind="stable")
    first = np.searchsorted(object_keys[by_key], keys, "left")
    counts = np.searchsorted(object_keys[by_key], keys, "right") - first
    _, row, detections_of_key = np.unique(keys, return_index=True, return_counts=True)
    pairs_of_key = detections_of_key * counts[row]
    if pairs_of_key.max(initial=0) > _MOST_PAIRS:
        worst = int(pairs_of_key.argmax())
        raise EvaluationError(
            f"a picture has {detections_of_key[worst]:,} detections to compare with {counts[row[worst]]:,} objects, "
            f"expected at most {_MOST_PAIRS:,} pairs; keep only the best detections of each picture"
        )
    min_iou = np.broadcast_to(np.asarray(min_iou, dtype=np.float64), object_keys.shape)
    ends = np.cumsum(counts)
    blocks = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    start = 0
    while start < len(keys):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_PER_BLOCK, "right")))
        rows = np.repeat(np.arange(start, stop), counts[start:stop])  # [P]
        within = np.arange(len(rows)) - np.repeat(ends[start:stop] - counts[start:stop] - before, counts[start:stop])
        objects = by_key[first[rows] + within]
        ious = _paired_ious(boxes[rows], object_boxes[objects])
        blocks.append(Pairs(rows, objects, ious)[(ious > 0) & (ious >= min_iou[objects])])
        start = stop
    return Pairs(
        np.concatenate([block.detections for block in blocks]),
        np.concatenate([block.objects for block in blocks]),
        np.concatenate([block.ious for block in blocks]),
    )


def match_free_objects(pairs: Pairs, ranks: Ints, objects: int) -> Ints:
    """Match by the rule of ILSVRC and COCO: best detection first, each takes the free object that it overlaps most.

    The result is the only stable matching between detections, which prefer the largest IoU, and objects, which prefer
    the best rank. So all pictures can be matched at once by deferred acceptance (Gale & Shapley, 1962): in each round
    every unmatched detection asks for the next object on its list, and every object keeps the best detection that has
    asked for it.

    Args:
        pairs: the pairs that reach the object's IoU threshold. Of equal IoUs the earlier object is preferred.
        ranks: int64 [D], all different; 0 is the best detection.
        objects: the number of objects G.

    Returns:
        int64 [D], the object that each detection takes, or -1.
    """
    pairs = _by_preference(pairs, ranks)
    detection_of_rank = np.empty(len(ranks), np.int64)
    detection_of_rank[ranks] = np.arange(len(ranks))
    # From here on, a detection is identified by its rank.
    rank_of_pair = ranks[pairs.detections]
    next_pair = np.zeros(len(ranks), np.int64)  # the pair with the object that the detection asks for next
    end_of_pairs = np.zeros(len(ranks), np.int64)
    asking = np.unique(rank_of_pair)
    next_pair[asking] = np.searchsorted(rank_of_pair, asking, "left")
    end_of_pairs[asking] = np.searchsorted(rank_of_pair, asking, "right")
    free = len(ranks)  # worse than every rank
    holder = np.full(objects, free)  # the detection that each object keeps
    while len(asking):
        asked = pairs.objects[next_pair[asking]]
        contested = np.unique(asked)
        before = holder[contested]
        np.minimum.at(holder, asked, asking)
        displaced = before[(before != holder[contested]) & (before != free)]
        refused = np.concatenate([asking[holder[asked] != asking], displaced])
        next_pair[refused] += 1
        asking = refused[next_pair[refused] < end_of_pairs[refused]]
    taken = np.flatnonzero(holder != free)
    matched = np.full(len(ranks), -1)
    matched[detection_of_rank[holder[taken]]] = taken
    return matched


def match_closest_objects(pairs: Pairs, ranks: Ints, difficult: Flags) -> tuple[Ints, Flags]:
    """Match by the rule of VOC: a detection finds the object that it overlaps most, or none if that object is taken.

    Args:
        pairs: the pairs that reach the IoU threshold. Of equal IoUs the earlier object is preferred.
        ranks: int64 [D], all different; 0 is the best detection.
        difficult: bool [G], objects that need not be found.

    Returns:
        matched: int64 [D], the object that each detection takes, or -1.
        ignored: bool [D], detections that overlap a difficult object most. They are neither right nor wrong.
    """
    pairs = _by_preference(pairs, ranks)
    _, first = np.unique(ranks[pairs.detections], return_index=True)
    pairs = pairs[first]  # one pair for each detection, the best detection first
    ignored = np.zeros(len(ranks), np.bool_)
    ignored[pairs.detections[difficult[pairs.objects]]] = True
    pairs = pairs[~difficult[pairs.objects]]
    _, first = np.unique(pairs.objects, return_index=True)
    matched = np.full(len(ranks), -1)
    matched[pairs.detections[first]] = pairs.objects[first]
    return matched, ignored


def _by_preference(pairs: Pairs, ranks: Ints) -> Pairs:
    """Sorts pairs by rank of the detection, then by falling IoU, then by row of the object."""
    return pairs[np.lexsort((pairs.objects, -pairs.ious, ranks[pairs.detections]))]


def _paired_ious(a: Floats, b: Floats) -> Floats:
    """Returns the IoU of a[i] with b[i], float64 [P]; 0 for boxes that share no pixel.

    The order of operations is that of the official kit, so that the IoUs are equal to the last digit.
    """
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]) + 1
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]) + 1
    shared = width * height
    area_a = (a[:, 2] - a[:, 0] + 1) * (a[:, 3] - a[:, 1] + 1)
    area_b = (b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)
    intersect = (width > 0) & (height > 0)
    return np.divide(shared, area_a + area_b - shared, out=np.zeros_like(shared), where=intersect)
