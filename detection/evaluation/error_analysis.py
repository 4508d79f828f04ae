"""Sorts every mistake into one of six kinds, and computes how much mAP would rise without each kind.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors" (ECCV 2020),
sections 2.2 and 2.3. TIDE has two IoU thresholds: an object is found at 0.5, and below 0.1 a detection is background.
In ILSVRC, a small object counts as found at an IoU below 0.5. Therefore each IoU is divided by the threshold of its
object, and a detection is background if its IoU is below a fifth of that threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .array_types import Flags, Floats, Ints
from .average_precision import area_under_envelope, eleven_point_ap, precision_recall
from .matching import overlapping_pairs, picture_class_keys
from .result import Evaluation

ERRORS: Final = {
    "classification": "the box fits an object of another class",
    "localisation": "the class is right, but the IoU with the object is too small",
    "both": "the class is wrong, and the IoU with the object is too small",
    "duplicate": "a better detection has found the object already",
    "background": "the box is on no object",
    "missed": "no detection found the object or came near it",
}
_BACKGROUND = 0.1 / 0.5  # TIDE's background threshold, relative to the threshold at which an object is found


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """The mistakes of an evaluation with G objects and D detections.

    Attributes:
        mean_ap: mAP over the classes that have ground truth, from which ``gains`` are measured. For the coco protocol
            it is mAP at IoU 0.5.
        counts: the number of mistakes of each kind, by the names of ``ERRORS``.
        gains: the rise of mAP if all mistakes of a kind were corrected and nothing else changed, by the same names.
        gain_without_false_positives: the rise of mAP if no detection were a false positive.
        gain_without_misses: the rise of mAP if the objects that no detection found did not exist.
        kinds: str [D], the kind of each detection's mistake, "" if the detection is no mistake.
        objects: int64 [D], the object that a classification, localisation or duplicate error is about, else -1.
        missed: bool [G], the objects that are missed.
    """

    mean_ap: float
    counts: dict[str, int]
    gains: dict[str, float]
    gain_without_false_positives: float
    gain_without_misses: float
    kinds: npt.NDArray[np.str_]
    objects: Ints
    missed: Flags


def analyse(evaluation: Evaluation) -> ErrorAnalysis:
    """Returns the kind of every mistake, and the gain from correcting all mistakes of a kind.

    A false positive has the first kind that applies, in TIDE's order: localisation, classification, duplicate,
    background, both. Objects that need not be found (blacklisted, difficult, crowds) are left out.
    """
    labels = evaluation.detections.labels
    wrong = np.flatnonzero(evaluation.false_positives)
    same_object, same_iou, other_object, other_iou = _closest_objects(evaluation, wrong)
    conditions = {
        "localisation": (same_iou >= _BACKGROUND) & (same_iou < 1),
        "classification": other_iou >= 1,
        "duplicate": same_iou >= 1,
        "background": np.maximum(same_iou, other_iou) < _BACKGROUND,
    }
    kinds = np.full(len(labels), "", dtype=f"<U{max(map(len, ERRORS))}")
    kinds[wrong] = np.select(list(conditions.values()), list(conditions), "both")
    objects = np.full(len(labels), -1)
    objects[wrong] = np.where(kinds[wrong] == "classification", other_object, same_object)
    objects[~np.isin(kinds, ("classification", "localisation", "duplicate"))] = -1

    true_positive, present = evaluation.matched >= 0, ~evaluation.ignored
    found = np.zeros(len(evaluation.counted), np.bool_)
    found[evaluation.matched[true_positive]] = True
    nearly_found = np.zeros_like(found)
    nearly_found[objects[np.isin(kinds, ("classification", "localisation"))]] = True
    missed = evaluation.counted & ~found & ~nearly_found

    base = _mean_ap(evaluation, labels, true_positive, present, evaluation.counted)
    gains = {}
    for kind in ERRORS:
        if kind == "missed":
            corrected = _mean_ap(evaluation, labels, true_positive, present, evaluation.counted & ~missed)
        else:
            corrected = _mean_ap_corrected(evaluation, kinds == kind, objects, found)
        gains[kind] = corrected - base
    without_false_positives = _mean_ap(evaluation, labels, true_positive, true_positive, evaluation.counted)
    without_misses = _mean_ap(evaluation, labels, true_positive, present, found)
    return ErrorAnalysis(
        mean_ap=base,
        counts={kind: int((kinds == kind).sum()) for kind in ERRORS} | {"missed": int(missed.sum())},
        gains=gains,
        gain_without_false_positives=without_false_positives - base,
        gain_without_misses=without_misses - base,
        kinds=kinds,
        objects=objects,
        missed=missed,
    )


def _closest_objects(evaluation: Evaluation, wrong: Ints) -> tuple[Ints, Floats, Ints, Floats]:
    """Finds the objects that false positives overlap most.

    IoUs in this function are relative: divided by the IoU at which the object counts as found.

    Args:
        wrong: int64 [W], rows of detections.

    Returns:
        The object of the detection's class with the largest relative IoU, int64 [W], and that IoU, float64 [W]; then
        the same for objects of other classes. An object of -1 and an IoU of 0 mean that there is none.
    """
    truth, detections = evaluation.ground_truth, evaluation.detections
    counted = np.flatnonzero(evaluation.counted)
    pictures, object_pictures = picture_class_keys(  # one class for all: only the picture matters
        (detections.image_indices[wrong], np.zeros_like(wrong)), (truth.images[counted], np.zeros_like(counted))
    )
    pairs = overlapping_pairs(detections.inclusive[wrong], pictures, truth.inclusive[counted], object_pictures)
    objects = counted[pairs.objects]
    relative = pairs.ious / evaluation.thresholds[objects]
    same_class = detections.labels[wrong][pairs.detections] == truth.labels[objects]
    closest: list[npt.NDArray[np.int64] | Floats] = []
    for chosen in (same_class, ~same_class):
        rows = np.flatnonzero(chosen)
        rows = rows[np.lexsort((objects[rows], -relative[rows], pairs.detections[rows]))]
        detection, first = np.unique(pairs.detections[rows], return_index=True)
        best_object, best_iou = np.full(len(wrong), -1), np.zeros(len(wrong))
        best_object[detection], best_iou[detection] = objects[rows[first]], relative[rows[first]]
        closest += [best_object, best_iou]
    return tuple(closest)  # type: ignore[return-value]


def _mean_ap_corrected(evaluation: Evaluation, mistakes: Flags, objects: Ints, found: Flags) -> float:
    """Returns mAP after correcting the mistakes.

    A mistake whose object is still free becomes a true positive. If several mistakes are about the same free object,
    only the best detection among them becomes a true positive. The other mistakes are removed.

    Args:
        mistakes: bool [D], the detections to correct.
        objects: int64 [D], the object that each mistake is about, or -1.
        found: bool [G], the objects that are not free.
    """
    labels = evaluation.detections.labels.copy()
    true_positive = evaluation.matched >= 0
    present = ~evaluation.ignored & ~mistakes
    rows = np.flatnonzero(mistakes & (objects >= 0))
    rows = rows[~found[objects[rows]]]
    rows = rows[np.argsort(evaluation.ranks[rows])]
    _, first = np.unique(objects[rows], return_index=True)
    rows = rows[first]
    labels[rows] = evaluation.ground_truth.labels[objects[rows]]
    true_positive[rows] = present[rows] = True
    return _mean_ap(evaluation, labels, true_positive, present, evaluation.counted)


def _mean_ap(evaluation: Evaluation, labels: Ints, true_positive: Flags, present: Flags, counted: Flags) -> float:
    """Returns mAP over the classes with ground truth, after changes to the detections or the objects.

    As in TIDE, a class that has neither an object to find nor a detection is left out of the mean.

    Args:
        labels: int64 [D], the class of each detection.
        true_positive: bool [D]; the other detections that are present are false positives.
        present: bool [D], the detections that remain.
        counted: bool [G], the objects to find.
    """
    average_precision = eleven_point_ap if evaluation.protocol == "voc07" else area_under_envelope
    rows = np.flatnonzero(present)
    rows = rows[np.lexsort((evaluation.ranks[rows], labels[rows]))]
    by_label, true_positive, scores = labels[rows], true_positive[rows], evaluation.detections.scores[rows]
    values, counts = np.unique(evaluation.ground_truth.labels[counted], return_counts=True)
    objects_of_class = dict(zip(values.tolist(), counts.tolist(), strict=True))
    aps = []
    for result in evaluation.classes:
        label = result.category.id
        of_class = slice(*np.searchsorted(by_label, [label, label + 1]))
        positives = objects_of_class.get(label, 0)
        if result.positives == 0 or (positives == 0 and of_class.start == of_class.stop):
            continue
        curve = precision_recall(scores[of_class], true_positive[of_class], ~true_positive[of_class], positives)
        aps.append(average_precision(curve) if positives else 0.0)
    return sum(aps) / len(aps) if aps else 0.0
