"""Examples of each class: the false positives with the highest scores, the largest missed objects, the surest finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .error_analysis import ErrorAnalysis
from .matching import overlapping_pairs
from .result import Evaluation

Box = tuple[float, float, float, float]

LEAST_SCORE = 0.1  # of a false positive that is shown: nobody is misled by mistakes with lower scores


@dataclass(frozen=True)
class Example:
    """A false positive, a missed object or a find.

    Attributes:
        kind: a name of ``error_analysis.ERRORS``, or "found".
        name: the name of the class that was detected or missed.
        picture: the picture's id.
        path: the picture's file, or None if it is not known.
        box: the box of the detection or of the missed object, (xmin, ymin, xmax, ymax), 1-based and inclusive.
        score: the score of the detection; None for a missed object.
        iou: the largest IoU of the detection with any object; 0 for a missed object.
        objects: all objects in the picture: for each its box, its class name, and whether its class is ``name``.
    """

    kind: str
    name: str
    picture: str
    path: Path | None
    box: Box
    score: float | None
    iou: float
    objects: tuple[tuple[Box, str, bool], ...]


def worst_mistakes(evaluation: Evaluation, analysis: ErrorAnalysis, most: int = 3) -> dict[int, list[Example]]:
    """Returns the worst mistakes of each class with ground truth, by class id.

    Args:
        evaluation: the evaluation.
        analysis: its error analysis.
        most: for each class, at most this many false positives and at most this many missed objects are returned.

    Returns:
        For each class false positives by falling score, from ``LEAST_SCORE``, then missed objects by falling area.
    """
    labels = evaluation.detections.labels
    by_rank = np.argsort(evaluation.ranks)
    shown = evaluation.false_positives & (evaluation.detections.scores >= LEAST_SCORE)
    by_rank = by_rank[shown[by_rank]]
    misses = np.flatnonzero(analysis.missed)
    misses = misses[np.argsort(-evaluation.ground_truth.areas[misses], kind="stable")]
    # Sorted by class, and within a class as before.
    by_rank = by_rank[np.argsort(labels[by_rank], kind="stable")]
    misses = misses[np.argsort(evaluation.ground_truth.labels[misses], kind="stable")]
    worst = {}
    for result in evaluation.classes:
        if result.positives:
            label = result.category.id
            ends = np.searchsorted(labels[by_rank], [label, label + 1])
            false_positives = by_rank[slice(*ends)][:most].tolist()
            ends = np.searchsorted(evaluation.ground_truth.labels[misses], [label, label + 1])
            missed = misses[slice(*ends)][:most].tolist()
            worst[label] = [_detection(evaluation, str(analysis.kinds[row]), row) for row in false_positives] + [
                _missed(evaluation, row) for row in missed
            ]
    return worst


def surest_finds(evaluation: Evaluation, most: int = 2) -> dict[int, list[Example]]:
    """Returns, by class id, the right detections with the highest scores: at most `most` of each class."""
    finds: dict[int, list[Example]] = {result.category.id: [] for result in evaluation.classes if result.positives}
    for row in np.argsort(evaluation.ranks).tolist():
        of_class = finds.get(int(evaluation.detections.labels[row]))
        if of_class is not None and len(of_class) < most and evaluation.matched[row] >= 0:
            of_class.append(_detection(evaluation, "found", row))
    return finds


def _detection(evaluation: Evaluation, kind: str, row: int) -> Example:
    detections, truth = evaluation.detections, evaluation.ground_truth
    image, label = int(detections.image_indices[row]), int(detections.labels[row])
    rows = np.flatnonzero(truth.images == image)
    same_key = np.zeros(len(rows), np.int64)
    ious = overlapping_pairs(detections.inclusive[[row]], same_key[:1], truth.inclusive[rows], same_key).ious
    picture, path = _picture(evaluation, image)
    return Example(
        kind=kind,
        name=_names(evaluation).get(label, f"class {label}"),
        picture=picture,
        path=path,
        box=_box(detections.inclusive[row]),
        score=float(detections.scores[row]),
        iou=float(ious.max(initial=0)),
        objects=_objects(evaluation, image, label),
    )


def _missed(evaluation: Evaluation, row: int) -> Example:
    truth = evaluation.ground_truth
    image, label = int(truth.images[row]), int(truth.labels[row])
    picture, path = _picture(evaluation, image)
    return Example(
        kind="missed",
        name=_names(evaluation)[label],
        picture=picture,
        path=path,
        box=_box(truth.inclusive[row]),
        score=None,
        iou=0.0,
        objects=_objects(evaluation, image, label),
    )


def _objects(evaluation: Evaluation, image: int, label: int) -> tuple[tuple[Box, str, bool], ...]:
    truth, names = evaluation.ground_truth, _names(evaluation)
    rows = np.flatnonzero(truth.images == image).tolist()
    return tuple(
        (_box(truth.inclusive[row]), names[int(truth.labels[row])], int(truth.labels[row]) == label) for row in rows
    )


def _picture(evaluation: Evaluation, image: int) -> tuple[str, Path | None]:
    """Returns the id and the file of the picture with this number."""
    truth = evaluation.ground_truth
    position = int(np.argmax(truth.image_indices == image))
    return truth.image_ids[position], truth.paths.get(image)


def _names(evaluation: Evaluation) -> dict[int, str]:
    return {category.id: category.name for category in evaluation.ground_truth.categories}


def _box(inclusive: np.ndarray) -> Box:
    xmin, ymin, xmax, ymax = inclusive.tolist()
    return xmin, ymin, xmax, ymax
