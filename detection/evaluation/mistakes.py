"""The mistakes worth looking at: the highest-scored false positives and the largest missed objects of each class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .error_analysis import ErrorAnalysis
from .ilsvrc import Evaluation
from .matching import overlapping

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mistake:
    """One mistake in a picture.

    Attributes:
        kind: a name of ``error_analysis.ERRORS``.
        name: the class that was detected or missed.
        picture: the picture's id.
        path: its file, or None if that is not known.
        box: the detection, or the missed object: 1-based and inclusive.
        score: of the detection; None for a missed object.
        overlap: the largest IoU of the detection with any object; 0 for a missed object.
        objects: the objects in the picture: box, class name, and whether the class is the detection's.
    """

    kind: str
    name: str
    picture: str
    path: Path | None
    box: Box
    score: float | None
    overlap: float
    objects: tuple[tuple[Box, str, bool], ...]


def worst_mistakes(evaluation: Evaluation, analysis: ErrorAnalysis, most: int = 3) -> dict[int, list[Mistake]]:
    """By class id, for classes with ground truth: up to ``most`` false positives by falling score, then up to ``most``
    missed objects by falling size."""
    labels = evaluation.detections.labels
    by_rank = np.argsort(evaluation.ranks)
    by_rank = by_rank[evaluation.false_positives[by_rank]]
    misses = np.flatnonzero(analysis.missed)
    misses = misses[np.argsort(-evaluation.ground_truth.areas[misses], kind="stable")]
    found = {}
    for result in evaluation.classes:
        if result.positives:
            label = result.category.id
            false = by_rank[labels[by_rank] == label][:most].tolist()
            missed = misses[evaluation.ground_truth.labels[misses] == label][:most].tolist()
            found[label] = [_false_positive(evaluation, analysis, row) for row in false] + [
                _missed(evaluation, row) for row in missed
            ]
    return found


def _false_positive(evaluation: Evaluation, analysis: ErrorAnalysis, row: int) -> Mistake:
    detections, truth = evaluation.detections, evaluation.ground_truth
    image, label = int(detections.image_indices[row]), int(detections.labels[row])
    rows = np.flatnonzero(truth.images == image)
    same_key = np.zeros(len(rows), np.int64)
    overlaps = overlapping(detections.inclusive[[row]], same_key[:1], truth.inclusive[rows], same_key).overlaps
    return Mistake(
        str(analysis.kinds[row]),
        _names(evaluation).get(label, f"class {label}"),
        *_picture(evaluation, image),
        _box(detections.inclusive[row]),
        float(detections.scores[row]),
        float(overlaps.max(initial=0)),
        _objects(evaluation, image, label),
    )


def _missed(evaluation: Evaluation, row: int) -> Mistake:
    truth = evaluation.ground_truth
    image, label = int(truth.images[row]), int(truth.labels[row])
    name = _names(evaluation)[label]
    return Mistake(
        "missed",
        name,
        *_picture(evaluation, image),
        _box(truth.inclusive[row]),
        None,
        0.0,
        _objects(evaluation, image, label),
    )


def _objects(evaluation: Evaluation, image: int, label: int) -> tuple[tuple[Box, str, bool], ...]:
    truth, names = evaluation.ground_truth, _names(evaluation)
    rows = np.flatnonzero(truth.images == image).tolist()
    return tuple(
        (_box(truth.inclusive[row]), names[int(truth.labels[row])], int(truth.labels[row]) == label) for row in rows
    )


def _picture(evaluation: Evaluation, image: int) -> tuple[str, Path | None]:
    truth = evaluation.ground_truth
    position = int(np.argmax(truth.image_indices == image))
    return truth.image_ids[position], truth.paths.get(image)


def _names(evaluation: Evaluation) -> dict[int, str]:
    return {one.id: one.name for one in evaluation.ground_truth.categories}


def _box(inclusive: np.ndarray) -> Box:
    xmin, ymin, xmax, ymax = inclusive.tolist()
    return xmin, ymin, xmax, ymax
