"""Mean average precision of detections, to the last digit of the official ILSVRC kit.

    truth = read_ground_truth("val/", "val.txt")
    evaluation = evaluate(truth, read_submission("predictions.txt"), blacklist=read_blacklist("blacklist.txt"))
    evaluation.mean_ap(), evaluation.classes[0].ap

or from arrays, without files: ``evaluate(GroundTruth.from_arrays(...), Submission(...))``. The rules, and where they
leave the kit: ``docs/evaluation.md``. ``voc`` and ``coco`` answer in the same form.

Source: ``eval_detection.m`` of the ILSVRC 2014 development kit (rules, not code).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ...data.categories import Category
from ...data.ground_truth import GroundTruth
from ...data.submission import Submission
from .average_precision import Curve, OperatingPoint, area_under_envelope, best_f1, precision_recall
from .matching import match_free, object_thresholds, overlapping

Mean = Literal["present", "official"]
MEANS: Final[Mapping[Mean, str]] = {
    "present": "mean over the classes that have ground truth",
    "official": "mean over the classes 1 to the largest in the ground truth, as the official kit",
}

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class EvaluationError(ValueError):
    """Detections that cannot be evaluated; the message says which, what was expected and what to do."""


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One class.

    Attributes:
        category: the class.
        ap: its average precision by the protocol. Without ground truth what the official kit answers: 0 if there
            are no detections of it either, else NaN.
        detections: how many there are of it, ``ignored`` ones among them.
        ignored: detections that count neither way (blacklisted pictures, difficult objects).
        curve: precision and recall; at one IoU threshold also under the coco protocol.
        measures: further numbers of the protocol by name (coco: "AP50", "AP75", "AP_small" ...; NaN where undefined).
    """

    category: Category
    ap: float
    detections: int
    ignored: int
    curve: Curve
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def positives(self) -> int:
        """The number of objects to find: all that are not blacklisted or difficult."""
        return self.curve.positives

    @cached_property
    def best_f1(self) -> OperatingPoint | None:
        """The score threshold with the best F1; None if no object is found at any."""
        return best_f1(self.curve)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The answer of a protocol, and what each detection came to.

    Attributes:
        protocol: "ilsvrc", "voc07", "voc12" or "coco".
        classes: one result per class, by rising id. Of ilsvrc: 1 to the largest id in the ground truth, as the kit.
        ground_truth, detections: what was evaluated.
        thresholds: float64 [G], the IoU at which each object counts as found.
        counted: bool [G], objects that are to be found; the others are blacklisted or difficult.
        matched: int64 [D], the row of the object that each detection found, or -1.
        ignored: bool [D], detections that count neither way.
        notices: what a reader of the numbers should know, one sentence each.
        measures: the protocol's further numbers over all classes.
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
        """mAP over the classes that have ground truth; "official": over all of ``classes``, NaN if one of them is."""
        aps = [one.ap for one in self.classes if mean == "official" or one.positives > 0]
        return sum(aps) / len(aps) if aps else math.nan

    @property
    def ap(self) -> dict[int, float]:
        """AP by class id."""
        return {one.category.id: one.ap for one in self.classes}

    @cached_property
    def ranks(self) -> Ints:
        """int64 [D], 0 is the best detection, see ``rank``."""
        return rank(self.detections)

    @property
    def false_positives(self) -> Flags:
        """bool [D]"""
        return (self.matched < 0) & ~self.ignored


def evaluate(
    ground_truth: GroundTruth,
    detections: Submission,
    blacklist: Iterable[tuple[int, int]] = (),
    lenient: bool = False,
) -> Evaluation:
    """Evaluates detections by the rules of ILSVRC DET.

    Args:
        ground_truth: the objects. ``difficult`` and ``crowd`` mean nothing here.
        detections: in any order; of equal scores the one in the picture with the smaller number, then the earlier
            one counts first.
        blacklist: pairs (image index, class id): detections and objects of the class there count neither way.
        lenient: leave out detections in pictures that are not listed, and those whose score or box is not a
            number; how many is said in ``notices``.

    Raises:
        EvaluationError: no objects; or, unless ``lenient``, detections in pictures that are not listed (the official
            code crashes) or with a score or box that is not a number.
    """
    detections, notices = check_detections(ground_truth, detections, lenient)
    pairs = np.array(sorted(set(blacklist)), dtype=np.int64).reshape(-1, 2)
    elsewhere = int((~np.isin(pairs[:, 0], ground_truth.image_indices)).sum())
    if elsewhere:
        notices.append(f"{elsewhere} of {len(pairs)} blacklisted pairs are in pictures that are not listed")
    object_keys, keys, forbidden = keys_of(
        (ground_truth.images, ground_truth.labels),
        (detections.image_indices, detections.labels),
        (pairs[:, 0], pairs[:, 1]),
    )
    ignored = np.isin(keys, forbidden)
    thresholds = object_thresholds(ground_truth.inclusive)
    considered = np.where(ignored, -1, keys)
    close = overlapping(detections.inclusive, considered, ground_truth.inclusive, object_keys, thresholds)
    matched = match_free(close, rank(detections), len(ground_truth))
    counted = ~np.isin(object_keys, forbidden)
    largest = int(ground_truth.labels.max())
    beyond = int((detections.labels > largest).sum())
    if beyond:
        notices.append(f"{beyond} detections of classes above {largest}, the largest in the ground truth, are left out")
    classes = class_results(
        ground_truth, detections, range(1, largest + 1), counted, matched, ignored, area_under_envelope
    )
    return Evaluation(
        "ilsvrc", classes, ground_truth, detections, thresholds, counted, matched, ignored, tuple(notices)
    )


def check_detections(ground_truth: GroundTruth, detections: Submission, lenient: bool) -> tuple[Submission, list[str]]:
    """The detections that can be evaluated, and sentences on the rest; the errors are those of ``evaluate``."""
    count = len(detections.scores)
    shapes = [np.shape(detections.image_indices), np.shape(detections.labels), np.shape(detections.inclusive)]
    if shapes != [(count,), (count,), (count, 4)]:
        raise EvaluationError(
            f"expected image_indices [N], labels [N] and boxes [N, 4] for {count} scores, got {shapes}"
        )
    if len(ground_truth) == 0:
        raise EvaluationError(f"{ground_truth.name}: no objects in the ground truth; there is nothing to find")
    notices = []
    if detections.skipped:
        notices.append(f"{detections.skipped} malformed lines of the predictions are left out")
    unordered = np.isnan(detections.scores) | ~np.isfinite(detections.inclusive).all(axis=1)
    if unordered.any():
        row = int(np.argmax(unordered))
        got = f"score {detections.scores[row]}, box {detections.inclusive[row].tolist()}"
        problem = f"{int(unordered.sum())} detections have a score or box that is not a number"
        if not lenient:
            raise EvaluationError(f"{problem}; the first is detection {row + 1}: {got}. --lenient leaves them out")
        notices.append(f"{problem}; they are left out")
    strange = ~np.isin(detections.image_indices, ground_truth.image_indices) & ~unordered
    if strange.any():
        row = int(np.argmax(strange))
        problem = f"{int(strange.sum())} detections are in pictures that {ground_truth.name} does not list"
        if not lenient:
            first = f"the first is detection {row + 1}, in picture {detections.image_indices[row]}"
            listed = f"the {len(ground_truth.image_indices)} pictures listed are {_span(ground_truth.image_indices)}"
            raise EvaluationError(f"{problem}; {first}; {listed}. --lenient leaves them out")
        notices.append(f"{problem}; they are left out")
    if (unordered | strange).any():
        detections = take(detections, ~(unordered | strange))
    if len(detections) == 0:
        notices.append("there are no detections: every class with ground truth has AP 0 (the official code fails here)")
    width, height = (detections.inclusive[:, 2:] - detections.inclusive[:, :2] + 1).T
    inverted = int(((width <= 0) | (height <= 0)).sum())
    if inverted:
        notices.append(f"{inverted} detections have an inverted box (xmax < xmin or ymax < ymin) and can find nothing")
    return detections, notices


def notice_absent_classes(ground_truth: GroundTruth, detections: Submission, notices: list[str]) -> None:
    """Adds a sentence on the detections of classes that do not occur in the ground truth."""
    absent = int((~np.isin(detections.labels, ground_truth.labels)).sum())
    if absent:
        notices.append(
            f"{absent} detections are of classes that do not occur in {ground_truth.name}; they are left out"
        )


def take(detections: Submission, rows: Flags | Ints) -> Submission:
    """Some of the detections, as another submission of the same kind."""
    arrays: dict[str, Any] = {
        one.name: value[rows]
        for one in fields(detections)
        if isinstance(value := getattr(detections, one.name), np.ndarray)
    }
    return replace(detections, **arrays)


def rank(detections: Submission) -> Ints:
    """int64 [D]: 0 is the largest score; ties by smaller number of the picture, then by earlier row."""
    ranks = np.empty(len(detections), np.int64)
    ranks[np.lexsort((detections.image_indices, -detections.scores))] = np.arange(len(detections))
    return ranks


def keys_of(*columns: Sequence[Ints]) -> list[Ints]:
    """For pairs (picture, class) in several tables, each two columns: a number per row, equal for equal pairs."""
    pictures = np.concatenate([table[0] for table in columns])
    labels = np.concatenate([table[1] for table in columns])
    _, pictures = np.unique(pictures, return_inverse=True)
    values, labels = np.unique(labels, return_inverse=True)
    keys = pictures * max(len(values), 1) + labels
    return np.split(keys, np.cumsum([len(table[0]) for table in columns])[:-1])


def class_results(
    ground_truth: GroundTruth,
    detections: Submission,
    labels: Iterable[int],
    counted: Flags,
    matched: Ints,
    ignored: Flags,
    average_precision: Callable[[Curve], float],
) -> tuple[ClassResult, ...]:
    """The curve and AP of each class, from what each detection came to."""
    categories = {one.id: one for one in ground_truth.categories}
    order = np.lexsort((rank(detections), detections.labels))
    by_label = detections.labels[order]
    results = []
    for label in labels:
        rows = order[slice(*np.searchsorted(by_label, [label, label + 1]))]  # best first
        hit, passed = matched[rows] >= 0, ignored[rows]
        positives = int((counted & (ground_truth.labels == label)).sum())
        curve = precision_recall(detections.scores[rows], hit, ~hit & ~passed, positives)
        category = categories.get(label) or Category(label, f"class {label}", f"class {label}")
        results.append(ClassResult(category, average_precision(curve), len(rows), int(passed.sum()), curve))
    return tuple(results)


def _span(indices: Ints) -> str:
    return f"{indices.min()}..{indices.max()}"
