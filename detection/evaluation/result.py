"""The result of an evaluation, the same for every protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

import numpy as np

from ...data.categories import Category
from ...data.ground_truth import GroundTruth
from ...data.submission import Submission
from .array_types import Flags, Floats, Ints
from .average_precision import Curve, OperatingPoint, best_f1, precision_recall
from .detection_order import rank_detections

Mean = Literal["present", "official"]
MEANS: Final[Mapping[Mean, str]] = {
    "present": "mean over the classes that have ground truth",
    "official": "mean over the classes 1 to the largest in the ground truth, as in the official kit",
}


@dataclass(frozen=True, eq=False)
class ClassResult:
    """The result of one class.

    Attributes:
        category: the class.
        ap: average precision by the rules of the protocol. A class without ground truth has the value of the official
            ILSVRC kit: 0 if the class has no detections, else NaN.
        detections: the number of detections of the class, including ignored ones.
        ignored: the number of detections that are neither true nor false positives: in blacklisted pictures, on
            difficult objects or crowds, or (coco) beyond the 100 best of a picture.
        curve: precision and recall. The coco protocol has several IoU thresholds; its curve is at IoU 0.5.
        measures: further numbers of the protocol by name (coco: "AP50", "AP75", "AP_small" ...); NaN if undefined.
    """

    category: Category
    ap: float
    detections: int
    ignored: int
    curve: Curve
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def positives(self) -> int:
        """The number of objects to find: all objects that are not blacklisted or difficult."""
        return self.curve.positives

    @cached_property
    def best_f1(self) -> OperatingPoint | None:
        """The score threshold with the best F1; None if no object is found."""
        return best_f1(self.curve)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of a protocol for G objects and D detections.

    Attributes:
        protocol: "ilsvrc", "voc07", "voc12" or "coco".
        classes: one result for each class, by rising id. The ilsvrc protocol has the classes 1 to the largest id in
            the ground truth, like the official kit, without those that do not occur if ids are above 10,000; the
            others have the classes that occur in the ground truth.
        ground_truth: the objects.
        detections: the detections that were evaluated.
        thresholds: float64 [G], the IoU at which each object counts as found.
        counted: bool [G], the objects to find. The other objects are blacklisted, difficult or crowds.
        matched: int64 [D], the row of the object that each detection found, or -1.
        ignored: bool [D], detections that are neither true nor false positives.
        notices: sentences about the input that a reader of the numbers should know.
        measures: further numbers of the protocol over all classes, by name.
    """

    protocol: str
    classes: tuple[ClassResult, ...]
    ground_truth: GroundTruth
    detections: Submission
    thresholds: Floats
    counted: Flags
    matched: Ints
    ignored: Flags
    notices: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)

    def mean_ap(self, mean: Mean = "present") -> float:
        """Returns the mean AP.

        Args:
            mean: "present" takes the classes that have ground truth. "official" takes all ``classes``, and is NaN if
                the AP of any class is NaN. With the protocol ilsvrc it is the mean over the classes 1 to the largest
                id, of which those that do not occur have AP 0.
        """
        aps = [result.ap for result in self.classes if mean == "official" or result.positives > 0]
        count = len(aps)
        if mean == "official" and self.protocol == "ilsvrc" and aps:
            ids = [result.category.id for result in self.classes]
            count = max(ids) - min(1, *ids) + 1
        return sum(aps) / count if aps else math.nan

    @property
    def ap(self) -> dict[int, float]:
        """AP by class id."""
        return {result.category.id: result.ap for result in self.classes}

    @cached_property
    def ranks(self) -> Ints:
        """int64 [D], the rank of each detection; 0 is the best. See ``rank_detections``."""
        return rank_detections(self.detections)

    @property
    def false_positives(self) -> Flags:
        """bool [D], detections that found no object and are not ignored."""
        return (self.matched < 0) & ~self.ignored


def class_results(
    ground_truth: GroundTruth,
    detections: Submission,
    labels: Iterable[int],
    counted: Flags,
    matched: Ints,
    ignored: Flags,
    average_precision: Callable[[Curve], float],
) -> tuple[ClassResult, ...]:
    """Returns the curve and the AP of each class.

    Args:
        ground_truth: G objects.
        detections: D detections.
        labels: ids of the classes.
        counted, matched, ignored: as in ``Evaluation``.
        average_precision: computes AP from a curve.
    """
    categories = {category.id: category for category in ground_truth.categories}
    order = np.lexsort((rank_detections(detections), detections.labels))
    by_label = detections.labels[order]
    values, counts = np.unique(ground_truth.labels[counted], return_counts=True)
    positives_of = dict(zip(values.tolist(), counts.tolist(), strict=True))
    results = []
    for label in labels:
        rows = order[slice(*np.searchsorted(by_label, [label, label + 1]))]  # best first
        true_positive, is_ignored = matched[rows] >= 0, ignored[rows]
        positives = positives_of.get(label, 0)
        curve = precision_recall(detections.scores[rows], true_positive, ~true_positive & ~is_ignored, positives)
        category = categories.get(label) or Category(label, f"class {label}", f"class {label}")
        results.append(ClassResult(category, average_precision(curve), len(rows), int(is_ignored.sum()), curve))
    return tuple(results)
