"""Precision/recall curves, average precision (AP) and the threshold with the best F1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .array_types import Floats


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of one class after each of its D detections, from the best detection to the worst.

    Attributes:
        scores: float64 [D], falling.
        precision: float64 [D]; NaN until the first detection that is not ignored.
        recall: float64 [D]; NaN or infinite if the class has no objects.
        true_positives: int64 [D], the number of true positives up to each detection.
        false_positives: int64 [D], the number of false positives up to each detection.
        positives: the number of objects to find.
    """

    scores: Floats
    precision: Floats
    recall: Floats
    true_positives: npt.NDArray[np.int64]
    false_positives: npt.NDArray[np.int64]
    positives: int


@dataclass(frozen=True)
class OperatingPoint:
    """Precision, recall and F1 of the detections with a score of at least ``score``."""

    score: float
    precision: float
    recall: float
    f1: float


def precision_recall(
    scores: Floats, true_positive: npt.NDArray[Any], false_positive: npt.NDArray[Any], positives: int
) -> Curve:
    """Returns the curve of detections that are sorted from the best to the worst.

    Args:
        scores: float64 [D], falling.
        true_positive: bool or int [D], how many true positives each detection counts for. The bootstrap uses whole
            numbers because it draws a picture several times or not at all.
        false_positive: bool or int [D], how many false positives each detection counts for. A detection that is
            neither a true nor a false positive is ignored.
        positives: the number of objects to find.
    """
    true_positives = np.cumsum(true_positive, dtype=np.int64)
    false_positives = np.cumsum(false_positive, dtype=np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = true_positives / (true_positives + false_positives)
        recall = true_positives / np.float64(positives)
    return Curve(scores, precision, recall, true_positives, false_positives, positives)


def envelope(curve: Curve) -> tuple[Floats, Floats]:
    """Returns the falling envelope of a curve: the N different recalls above 0, and a precision for each.

    The envelope's precision at a recall is the best precision of the curve at this or any larger recall. Recalls above
    the largest recall of the curve have precision 0 and are left out.

    Returns:
        Recalls, float64 [N], rising; and precisions, float64 [N], falling.
    """
    best = np.fmax.accumulate(curve.precision[::-1])[::-1]
    steps = np.flatnonzero(np.diff(curve.recall, prepend=0.0) != 0)
    return curve.recall[steps], np.fmax(best[steps], 0)


def area_under_envelope(curve: Curve) -> float:
    """Returns AP by the rules of ILSVRC and of VOC since 2010: the area under the falling envelope of the curve.

    As in the official kit, AP is 0 without detections, and NaN with detections but without objects. The sum runs from
    left to right, as in the kit, so that AP is the same to the last digit.
    """
    if len(curve.scores) == 0:
        return 0.0
    if curve.positives == 0:
        return float("nan")
    recall, precision = envelope(curve)
    areas = np.diff(recall, prepend=0.0) * precision
    return float(np.cumsum(areas)[-1]) if len(areas) else 0.0


def eleven_point_ap(curve: Curve) -> float:
    """Returns AP by the rules of VOC 2007: the mean of the envelope's precision at the recalls 0, 0.1, ..., 1.

    The recalls are k * 0.1 in floating point, as in the development kit under Octave. 3 * 0.1 is slightly larger than
    0.3, so a curve with recall 3/10 does not reach the fourth of the eleven recalls.
    """
    if len(curve.scores) == 0:
        return 0.0
    if curve.positives == 0:
        return float("nan")
    total = 0.0
    for min_recall in np.arange(11) * 0.1:
        reached = curve.precision[curve.recall >= min_recall]
        total += float(np.fmax.reduce(reached, initial=0.0))  # fmax skips NaN, see `Curve.precision`
    return total / 11


def best_f1(curve: Curve) -> OperatingPoint | None:
    """Returns the score threshold with the best F1, or None if no object is found.

    A threshold keeps or drops all detections of equal score together.
    """
    last = np.flatnonzero(np.append(curve.scores[1:] != curve.scores[:-1], True))  # [T], last detection of each score
    if curve.positives == 0 or not curve.true_positives.any():
        return None
    true_positives, false_positives = curve.true_positives[last], curve.false_positives[last]
    f1 = 2 * true_positives / (true_positives + false_positives + curve.positives)
    best = int(np.argmax(f1))
    row = last[best]
    return OperatingPoint(
        float(curve.scores[row]), float(curve.precision[row]), float(curve.recall[row]), float(f1[best])
    )
