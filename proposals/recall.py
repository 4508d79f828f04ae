"""Measures how well proposals cover the objects of a data set: recall, AR, ABO and MABO.

    dataset = open_dataset("ILSVRC/", "val")
    coverage = measure(dataset, lambda sample: selective_search(read_image(sample.path)))
    recall(coverage.matched[-1], [0.5, 0.7])     # recall of all proposals at two IoU thresholds

Sources: Hosang, Benenson, Dollar, Schiele, "What makes for effective detection proposals?" (PAMI 2016), sections 4
and 5, and the matching in their published code; Uijlings et al., "Selective search for object recognition" (IJCV
2013), section 5 (ABO, MABO); Girshick et al., R-CNN (CVPR 2014), whose recall lets one proposal cover several objects.

Proposals are matched to objects of all classes alike. The objects of an image without proposals count as not found.
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
# Thresholds are computed as k / 100. np.arange(0.5, 1, 0.05) contains 0.6000000000000001, which an IoU of 0.6 misses.
THRESHOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)
CURVE: Final = tuple(k / 100 for k in range(50, 101))
COCO_THRESHOLDS: Final = tuple(k / 100 for k in range(50, 100, 5))
# COCO's size ranges, applied to the area of the box in square pixels: lower bound included, upper bound excluded.
SIZES: Final = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, math.inf)}


class RecallError(ValueError):
    """Recall cannot be measured. The message gives the reason."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """The overlap of each of G objects in I images with the proposals of its image. All measures are computed from it.

    Attributes:
        counts: the C numbers of proposals for which overlaps were computed, rising.
        closest: float64 ``[C + 1, G]``, the largest IoU of the object with any proposal. Row i considers the first
            ``counts[i]`` proposals of each image, the last row all of them.
        matched: float64 ``[C + 1, G]``, the IoU of the object with its partner in the one-to-one matching, or 0 if it
            has none. The matching is greedy, largest IoU first (see `coverage.cover`). Rows are as in `closest`.
        labels: int64 ``[G]``, the ``Category.id`` of each object.
        areas: float32 ``[G]``, area of each object in square pixels.
        proposals: int64 ``[I]``, number of proposals of each image, including images without objects.
        missing: number of images without an entry in the source of proposals, for example in a file of proposals.
    """

    counts: tuple[int, ...]
    closest: NDArray[np.float64]
    matched: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float32]
    proposals: NDArray[np.int64]
    missing: int

    def overlaps(self, matching: str) -> NDArray[np.float64]:
        """Returns `matched` for "one-to-one" and `closest` for "best". Raises ValueError for another name."""
        if matching not in MATCHINGS:
            raise ValueError(f"unknown matching {matching!r}: choose one of {', '.join(MATCHINGS)}")
        return self.matched if matching == "one-to-one" else self.closest

    def boxes_per_image(self) -> list[float]:
        """Returns the mean number of proposals per image that each row considers, ``[C + 1]``."""
        return [float(np.minimum(self.proposals, n).mean()) for n in (*self.counts, np.iinfo(np.int64).max)]


def measure(
    samples: Iterable[Sample], find: Callable[[Sample], Proposals | None], counts: Sequence[int] = COUNTS
) -> Coverage:
    """Computes the overlap of the objects of every image with its proposals. Objects marked difficult are left out.

    Args:
        samples: the images with their objects; they are iterated once.
        find: returns the proposals of an image, best first, or None if it has no entry for the image.
        counts: the numbers of first proposals for which overlaps are computed, rising.

    Raises:
        ValueError: `counts` do not rise, or begin below 1.
        RecallError: `samples` contain no objects.
    """
    if any(low >= high for low, high in zip((0, *counts), counts, strict=False)):
        raise ValueError(f"counts must be rising whole numbers from 1, got {tuple(counts)}")
    # Imported here because importing numba takes half a second.
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
            f"no objects in {len(numbers)} images, so recall is undefined; check the split and its annotations"
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
    """Returns the share of objects whose overlap is at least the threshold.

    Args:
        overlaps: float64 ``[G]``, a row of `Coverage.matched` or `Coverage.closest`.
        thresholds: IoU thresholds ``[T]``.

    Returns:
        float64 ``[T]``; NaN if there are no objects.
    """
    if not len(overlaps):
        return np.full(len(thresholds), np.nan)
    return (overlaps[:, None] >= np.asarray(thresholds)).sum(axis=0) / len(overlaps)


def average_recall(overlaps: NDArray[np.float64]) -> float:
    """Returns AR: twice the area under the recall-IoU curve from 0.5 to 1 (Hosang et al., section 5).

    AR is NaN if there are no objects. Recall is a step function of the threshold, so the integral is a sum:

        AR = 2 * integral of recall(o) do over 0.5..1 = 2 / G * sum over objects of max(IoU - 0.5, 0)
    """
    return 2 * _mean(np.maximum(overlaps - 0.5, 0))


def average_recall_coco(overlaps: NDArray[np.float64]) -> float:
    """Returns the mean recall at the IoU thresholds 0.5, 0.55 .. 0.95 of COCO; NaN if there are no objects.

    The same matching is used at all thresholds. COCO's own tool computes a new matching at each threshold, in the order
    of the scores, and can average over classes.
    """
    return _mean(recall(overlaps, COCO_THRESHOLDS))


def average_best_overlap(closest: NDArray[np.float64], labels: ArrayLike) -> dict[int, float]:
    """Returns ABO (Uijlings et al., section 5) of each class with objects: the mean IoU with the closest proposal."""
    labels = np.asarray(labels)
    return {int(label): _mean(closest[labels == label]) for label in np.unique(labels)}


def mean_average_best_overlap(closest: NDArray[np.float64], labels: ArrayLike) -> float:
    """Returns MABO: the mean of ABO over the classes with objects."""
    return _mean(list(average_best_overlap(closest, labels).values()))


def recall_figures(
    name: str, coverage: Coverage, categories: Iterable[Category], matching: str = "one-to-one"
) -> dict[str, Any]:
    """Computes all measures of one set of proposals, as plain numbers for a JSON file or a table.

    ABO and MABO use the closest proposal under either matching, by definition. The measures of a size without objects
    are None.

    Args:
        name: the name of the method.
        coverage: the overlaps from `measure`.
        categories: the classes of the data set.
        matching: "one-to-one" or "best", see `Coverage.overlaps`.
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
    # fsum rounds only the final sum, so the order of images and objects does not change the result.
    return math.fsum(values) / len(values) if len(values) else math.nan
