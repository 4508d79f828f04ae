"""What to improve: every mistake under one of six names, and the mAP that ending each kind would give.

Source: Bolya, Foley, Hays, Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors" (ECCV 2020),
sections 2.2 and 2.3. TIDE's thresholds are IoU 0.5 (found) and 0.1 (background). In ILSVRC a small object is found at
less than 0.5: overlaps are taken relative to what the object asks for, so that background ends at a fifth of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .average_precision import area_under_envelope, eleven_points, precision_recall
from .ilsvrc import Evaluation, keys_of
from .matching import overlapping

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

ERRORS: Final = {
    "classification": "on an object, but of another class",
    "localisation": "of the right class, but the box is too far off",
    "both": "of another class, and the box is too far off",
    "duplicate": "on an object that a better detection has found already",
    "background": "on no object at all",
    "missed": "an object that no detection found, nor nearly",
}
_BACKGROUND = 0.1 / 0.5  # TIDE's two thresholds


@dataclass(frozen=True, eq=False)
class ErrorAnalysis:
    """The mistakes of an evaluation.

    Attributes:
        mean_ap: over the classes that have ground truth, what the fixes are compared with. Of the coco protocol it is
            that at IoU 0.5.
        counts: how many there are of each kind, by the names of ``ERRORS``.
        gains: how much mAP rises when all mistakes of a kind are put right and nothing else changes.
        gain_without_false_positives, gain_without_misses: likewise of all kinds that are detections, and of all
            objects that are not found, whatever the cause.
        kinds: of each detection [D] its kind, "" if it is no mistake.
        objects: int64 [D], the object that a classification, localisation or duplicate error is about, or -1.
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
    """Names every mistake and computes what putting it right would give.

    A false positive is, in TIDE's order: a localisation error; else a classification error; else a duplicate; else
    background; else both. Objects that are not to be found (blacklisted, difficult) take no part.
    """
    labels = evaluation.detections.labels
    wrong = np.flatnonzero(evaluation.false_positives)
    same, same_overlap, other, other_overlap = _closest(evaluation, wrong)
    conditions = {
        "localisation": (same_overlap >= _BACKGROUND) & (same_overlap < 1),
        "classification": other_overlap >= 1,
        "duplicate": same_overlap >= 1,
        "background": np.maximum(same_overlap, other_overlap) < _BACKGROUND,
    }
    kinds = np.full(len(labels), "", dtype=f"<U{max(map(len, ERRORS))}")
    kinds[wrong] = np.select(list(conditions.values()), list(conditions), "both")
    objects = np.full(len(labels), -1)
    objects[wrong] = np.where(kinds[wrong] == "classification", other, same)
    objects[~np.isin(kinds, ("classification", "localisation", "duplicate"))] = -1

    found = np.zeros(len(evaluation.counted), np.bool_)
    found[evaluation.matched[evaluation.matched >= 0]] = True
    nearly = np.zeros_like(found)
    nearly[objects[np.isin(kinds, ("classification", "localisation"))]] = True
    missed = evaluation.counted & ~found & ~nearly

    base = _mean_ap(evaluation, labels, evaluation.matched >= 0, ~evaluation.ignored, evaluation.counted)
    gains = {}
    for kind in ERRORS:
        if kind == "missed":
            fixed = _mean_ap(
                evaluation, labels, evaluation.matched >= 0, ~evaluation.ignored, evaluation.counted & ~missed
            )
        else:
            fixed = _without(evaluation, kinds == kind, objects, found)
        gains[kind] = fixed - base
    only_hits = _mean_ap(evaluation, labels, evaluation.matched >= 0, evaluation.matched >= 0, evaluation.counted)
    all_found = _mean_ap(evaluation, labels, evaluation.matched >= 0, ~evaluation.ignored, found)
    counts = {kind: int((kinds == kind).sum()) for kind in ERRORS} | {"missed": int(missed.sum())}
    return ErrorAnalysis(base, counts, gains, only_hits - base, all_found - base, kinds, objects, missed)


def _closest(evaluation: Evaluation, wrong: Ints) -> tuple[Ints, Floats, Ints, Floats]:
    """For detections in ``wrong`` [W]: the object of its class that it overlaps most, relative to the object's
    threshold, and that overlap; and the same for objects of other classes. -1 and 0 where there is none."""
    truth, detections = evaluation.ground_truth, evaluation.detections
    counted = np.flatnonzero(evaluation.counted)
    pictures, object_pictures = keys_of(
        (detections.image_indices[wrong], np.zeros_like(wrong)), (truth.images[counted], np.zeros_like(counted))
    )
    pairs = overlapping(detections.inclusive[wrong], pictures, truth.inclusive[counted], object_pictures)
    objects = counted[pairs.objects]
    relative = pairs.overlaps / evaluation.thresholds[objects]
    same = detections.labels[wrong][pairs.detections] == truth.labels[objects]
    answers: list[npt.NDArray[np.int64] | Floats] = []
    for chosen in (same, ~same):
        rows = np.flatnonzero(chosen)
        rows = rows[np.lexsort((objects[rows], -relative[rows], pairs.detections[rows]))]
        which, first = np.unique(pairs.detections[rows], return_index=True)
        best, overlap = np.full(len(wrong), -1), np.zeros(len(wrong))
        best[which], overlap[which] = objects[rows[first]], relative[rows[first]]
        answers += [best, overlap]
    return tuple(answers)  # type: ignore[return-value]


def _without(evaluation: Evaluation, mistakes: Flags, objects: Ints, found: Flags) -> float:
    """mAP when these mistakes are put right: a detection that could find a free object does so, the best one if
    several could; the others vanish."""
    labels = evaluation.detections.labels.copy()
    hit = evaluation.matched >= 0
    present = ~evaluation.ignored & ~mistakes
    rows = np.flatnonzero(mistakes & (objects >= 0))
    rows = rows[~found[objects[rows]]]
    rows = rows[np.argsort(evaluation.ranks[rows])]
    _, first = np.unique(objects[rows], return_index=True)
    rows = rows[first]
    labels[rows] = evaluation.ground_truth.labels[objects[rows]]
    hit[rows] = present[rows] = True
    return _mean_ap(evaluation, labels, hit, present, evaluation.counted)


def _mean_ap(evaluation: Evaluation, labels: Ints, hit: Flags, present: Flags, counted: Flags) -> float:
    """mAP over the classes with ground truth, of the detections that are present.

    As in TIDE, a class that has nothing left to find and nothing detected leaves the mean.
    """
    average_precision = eleven_points if evaluation.protocol == "voc07" else area_under_envelope
    rows = np.flatnonzero(present)
    rows = rows[np.argsort(labels[rows] * np.int64(len(labels)) + evaluation.ranks[rows])]
    by_label, hit, scores = labels[rows], hit[rows], evaluation.detections.scores[rows]
    to_find = np.bincount(evaluation.ground_truth.labels[counted])
    aps = []
    for result in evaluation.classes:
        label = result.category.id
        of_class = slice(*np.searchsorted(by_label, [label, label + 1]))
        positives = int(to_find[label]) if label < len(to_find) else 0
        if result.positives == 0 or (positives == 0 and of_class.start == of_class.stop):
            continue
        curve = precision_recall(scores[of_class], hit[of_class], ~hit[of_class], positives)
        aps.append(average_precision(curve) if positives else 0.0)
    return sum(aps) / len(aps) if aps else 0.0
