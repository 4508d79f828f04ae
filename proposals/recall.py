"""How well proposals cover the objects of a data set: recall, AR, ABO and MABO.

    dataset = open_dataset("ILSVRC/", "val")
    coverage = measure(dataset, lambda sample: selective_search(read_image(sample.path)))
    recall(coverage.matched[-1], [0.5, 0.7])     # of all proposals, at two IoU thresholds

Sources: Hosang, Benenson, Dollar, Schiele, "What makes for effective detection proposals?" (PAMI 2016), sections 4
and 5, and the matching in their published code; Uijlings et al., "Selective search for object recognition" (IJCV
2013), section 5 (ABO, MABO); Girshick et al., R-CNN (CVPR 2014), whose recall lets one proposal cover many objects.

Classes play no part in what covers what. An image without proposals leaves its objects uncovered; they are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.boxes import area
from ..data.categories import Category
from ..data.dataset import Sample
from .proposals import Proposals

MATCHINGS: Final = ("one-to-one", "best")
COUNTS: Final = (1, 3, 10, 30, 100, 300, 1000, 3000)
# Thresholds are decimals, k / 100: np.arange(0.5, 1, 0.05) has 0.6000000000000001, which an IoU of 0.6 would miss.
THRESHOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)
CURVE: Final = tuple(k / 100 for k in range(50, 101))
COCO_THRESHOLDS: Final = tuple(k / 100 for k in range(50, 100, 5))
# COCO's sizes, here of the box and in pixels of the picture: lower bound included, upper bound not.
SIZES: Final = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}


class RecallError(ValueError):
    """Recall that cannot be measured; the message says why."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """How far each of G objects is covered by the first n proposals of its image: what all measures start from.

    Attributes:
        counts: the C values of n, rising.
        closest: float64 ``[C + 1, G]``, IoU of the proposal closest to the object, with the first ``counts[i]``
            proposals in row i and with all of them in the last row.
        matched: float64 ``[C + 1, G]``, IoU of the proposal that is matched to the object one-to-one, or 0. Pairs
            are matched greedily, the largest IoU first (see `matching.cover`).
        labels: int64 ``[G]``, the ``Category.id`` of each object.
        areas: float32 ``[G]``, in square pixels.
        proposals: int64 ``[I]``, the number of proposals of each image, of those without objects too.
        missing: images for which nothing was known (a file of proposals lacks them); a part of I.
    """

    counts: tuple[int, ...]
    closest: NDArray[np.float64]
    matched: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    proposals: NDArray[np.int64]
    missing: int

    def overlaps(self, matching: str) -> NDArray[np.float64]:
        """`matched` for the matching "one-to-one", `closest` for "best". Raises ValueError for another name."""
        if matching not in MATCHINGS:
            raise ValueError(f"unknown matching {matching!r}: choose one of {', '.join(MATCHINGS)}")
        return self.matched if matching == "one-to-one" else self.closest

    def boxes_per_image(self) -> list[float]:
        """Mean over all images of the number of proposals that each row uses, ``[C + 1]``."""
        return [float(np.minimum(self.proposals, n).mean()) for n in (*self.counts, np.iinfo(np.int64).max)]


def measure(
    samples: Iterable[Sample], find: Callable[[Sample], Proposals | None], counts: Sequence[int] = COUNTS
) -> Coverage:
    """Compares the proposals of every image with its objects. Difficult objects are neither counted nor matched.

    Args:
        samples: images and objects; they are gone through once.
        find: the proposals of an image, best first; None where it knows of none.
        counts: how many of the first proposals to take, in turn; rising.

    Raises:
        ValueError: `counts` are not rising from 1 or more.
        RecallError: there are no objects in `samples`.
    """
    if any(low >= high for low, high in zip((0, *counts), counts, strict=False)):
        raise ValueError(f"counts must be rising whole numbers from 1, got {tuple(counts)}")
    # Here and not with the module: importing numba takes half a second.
    from .coverage import cover

    rows = np.array(counts, np.int64)
    closest, matched, labels, areas, numbers = [], [], [], [], []
    missing = 0
    for sample in samples:
        objects = sample.boxes[~sample.difficult]
        proposals = find(sample)
        boxes = np.empty((0, 4)) if proposals is None else proposals.boxes.astype(np.float64)
        missing += proposals is None
        numbers.append(len(boxes))
        labels.append(sample.labels[~sample.difficult])
        areas.append(area(objects))
        closest.append(np.empty((len(rows) + 1, len(objects))))
        matched.append(np.empty_like(closest[-1]))
        cover(objects.astype(np.float64), boxes, rows, closest[-1], matched[-1])
    if not sum(map(len, labels)):
        raise RecallError(
            f"no objects in {len(numbers)} images: recall is a share of objects; check the split and its annotations"
        )
    return Coverage(
        tuple(counts),
        np.concatenate(closest, axis=1),
        np.concatenate(matched, axis=1),
        np.concatenate(labels),
        np.concatenate(areas),
        np.array(numbers, np.int64),
        missing,
    )


def recall(overlaps: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.float64]:
    """The share of objects with an overlap of the threshold or more, float64 ``[T]``; NaN where there are no objects.

    Args:
        overlaps: float64 ``[G]``, a row of `Coverage.matched` or `Coverage.closest`.
        thresholds: ``[T]``.
    """
    if not len(overlaps):
        return np.full(len(thresholds), np.nan)
    return (overlaps[:, None] >= np.asarray(thresholds)).sum(axis=0) / len(overlaps)


def average_recall(overlaps: NDArray[np.float64]) -> float:
    """AR: twice the area under the recall-IoU curve from 0.5 to 1 (Hosang et al., section 5); NaN without objects.

    Recall is a step function of the threshold, so the integral is a sum:

        AR = 2 * integral of recall(o) do over 0.5..1 = 2 / G * sum over objects of max(IoU - 0.5, 0)
    """
    return 2 * _mean(np.maximum(overlaps - 0.5, 0))


def average_recall_coco(overlaps: NDArray[np.float64]) -> float:
    """COCO's way of averaging: the mean of the recall at 0.5, 0.55 .. 0.95; NaN without objects.

    The matching is that of `overlaps`. COCO's own tool matches anew at each threshold, in the order of the scores,
    and averages over classes where it is told to.
    """
    return _mean(recall(overlaps, COCO_THRESHOLDS))


def average_best_overlap(closest: NDArray[np.float64], labels: ArrayLike) -> dict[int, float]:
    """ABO of each class that has objects (Uijlings et al., section 5): the mean overlap with the closest proposal."""
    labels = np.asarray(labels)
    return {int(label): _mean(closest[labels == label]) for label in np.unique(labels)}


def mean_average_best_overlap(closest: NDArray[np.float64], labels: ArrayLike) -> float:
    """MABO: the mean of ABO over the classes that have objects."""
    return _mean(list(average_best_overlap(closest, labels).values()))


def recall_figures(
    name: str, coverage: Coverage, categories: Iterable[Category], matching: str = "one-to-one"
) -> dict[str, Any]:
    """All measures of one set of proposals, as plain numbers for a JSON file or a table.

    ABO and MABO take the closest proposal under either matching: that is their definition. Where there are no objects
    of a size, its figures are None.
    """
    overlaps = coverage.overlaps(matching)
    closest, labels = coverage.closest, coverage.labels
    per_class = average_best_overlap(closest[-1], labels)
    known = {category.id: category for category in categories}
    inside = {
        size: overlaps[-1, (coverage.areas >= low) & (coverage.areas < high)] for size, (low, high) in SIZES.items()
    }
    return {
        "name": name,
        "boxes_per_image": coverage.boxes_per_image()[-1],
        "images_without_proposals": int((coverage.proposals == 0).sum()),
        "images_missing": coverage.missing,
        **_recall_and_ar(overlaps[-1]),
        "MABO": mean_average_best_overlap(closest[-1], labels),
        "sizes": {size: {"objects": len(part), **_recall_and_ar(part)} for size, part in inside.items()},
        "classes": [
            {
                "det_id": label,
                "wnid": known[label].wnid,
                "name": known[label].name,
                "objects": int((labels == label).sum()),
                "ABO": abo,
                **_recall_and_ar(overlaps[-1, labels == label]),
            }
            for label, abo in per_class.items()
        ],
        "curve": {"iou": list(CURVE), "recall": recall(overlaps[-1], CURVE).tolist()},
        "by_count": [
            {
                "first": first,
                "boxes_per_image": boxes,
                **_recall_and_ar(row),
                "MABO": mean_average_best_overlap(near, labels),
            }
            for first, boxes, row, near in zip(
                (*coverage.counts, None), coverage.boxes_per_image(), overlaps, closest, strict=True
            )
        ],
    }


def _recall_and_ar(overlaps: NDArray[np.float64]) -> dict[str, Any]:
    if not len(overlaps):
        return {"recall": {str(threshold): None for threshold in THRESHOLDS}, "AR": None, "AR_coco": None}
    return {
        "recall": dict(zip(map(str, THRESHOLDS), recall(overlaps, THRESHOLDS).tolist(), strict=True)),
        "AR": average_recall(overlaps),
        "AR_coco": average_recall_coco(overlaps),
    }


def _mean(values: NDArray[np.float64] | Sequence[float]) -> float:
    # fsum rounds once, at the end: the order of images and objects does not change a digit.
    return math.fsum(values) / len(values) if len(values) else math.nan
