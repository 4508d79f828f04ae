"""Precision/recall curves, and the numbers that are read from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of one class after each of its D detections, the best detection first.

    Attributes:
        scores: float64 [D], falling.
        precision: float64 [D]; NaN as long as no detection has counted (a blacklist).
        recall: float64 [D]; NaN or infinite if the class has no objects.
        hits: int64 [D], true positives so far.
        false: int64 [D], false positives so far.
        positives: the number of objects to find.
    """

    scores: Floats
    precision: Floats
    recall: Floats
    hits: npt.NDArray[np.int64]
    false: npt.NDArray[np.int64]
    positives: int


@dataclass(frozen=True)
class OperatingPoint:
    """What comes of keeping the detections with a score of at least ``score``."""

    score: float
    precision: float
    recall: float
    f1: float


def precision_recall(scores: Floats, hit: npt.NDArray[Any], false: npt.NDArray[Any], positives: int) -> Curve:
    """The curve of ranked detections, the best first; what is neither hit nor false is passed over.

    `hit` and `false` are flags, or whole numbers where a detection counts several times or not at all.
    """
    hits, falses = np.cumsum(hit, dtype=np.int64), np.cumsum(false, dtype=np.int64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Curve(scores, hits / (hits + falses), hits / np.float64(positives), hits, falses, positives)


def envelope(curve: Curve) -> tuple[Floats, Floats]:
    """Recall and the best precision at that recall or more, at the N recalls that are reached: [N] and [N].

    The steps of the area under the curve; an end of the curve short of recall 1 is left out, its precision is 0.
    """
    best = np.fmax.accumulate(curve.precision[::-1])[::-1]
    steps = np.flatnonzero(np.diff(curve.recall, prepend=0.0) != 0)
    return curve.recall[steps], np.fmax(best[steps], 0)


def area_under_envelope(curve: Curve) -> float:
    """AP of ILSVRC and of VOC from 2010 on: the area under the falling envelope of the curve.

    As the official kit: 0 without detections, NaN with detections but without objects. Its sums run from left to
    right, and so do these, to give the last digit too.
    """
    if len(curve.scores) == 0:
        return 0.0
    if curve.positives == 0:
        return float("nan")
    recall, precision = envelope(curve)
    areas = np.diff(recall, prepend=0.0) * precision
    return float(np.cumsum(areas)[-1]) if len(areas) else 0.0


def eleven_points(curve: Curve) -> float:
    """AP of VOC 2007: the mean of the best precision at recall 0, 0.1, ... 1 or more.

    The recalls are k * 0.1 in floating point, as the development kit has them under Octave: 3 * 0.1 is a little more
    than 0.3, so that a recall of 3/10 does not reach it.
    """
    if len(curve.scores) == 0:
        return 0.0
    if curve.positives == 0:
        return float("nan")
    total = 0.0
    for least in np.arange(11) * 0.1:
        reached = curve.precision[curve.recall >= least]
        total += float(np.fmax.reduce(reached, initial=0.0))  # NaN where nothing has counted yet
    return total / 11


def best_f1(curve: Curve) -> OperatingPoint | None:
    """The score threshold with the best F1, or None if nothing is found. Equal scores are kept or dropped together."""
    last = np.flatnonzero(np.append(curve.scores[1:] != curve.scores[:-1], True))  # [T], the last of each score
    if curve.positives == 0 or not curve.hits.any():
        return None
    hits, false = curve.hits[last], curve.false[last]
    f1 = 2 * hits / (hits + false + curve.positives)
    best = int(np.argmax(f1))
    at = last[best]
    return OperatingPoint(*(float(one) for one in (curve.scores[at], curve.precision[at], curve.recall[at], f1[best])))
