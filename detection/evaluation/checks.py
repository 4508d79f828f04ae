"""Checks detections before they are evaluated, and describes the detections that cannot be evaluated."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.ground_truth import GroundTruth
from ...data.submission import Submission


class EvaluationError(ValueError):
    """Detections cannot be evaluated. The message names the detection, what was expected and what to do."""


def check_detections(ground_truth: GroundTruth, detections: Submission, lenient: bool) -> tuple[Submission, list[str]]:
    """Returns the detections that can be evaluated, and a sentence for each kind of problem in the input.

    Args:
        ground_truth: the objects.
        detections: the detections to check.
        lenient: leave out detections in pictures that are not listed, detections whose score is NaN, and detections
            whose box is not finite. By default each of these is an error.

    Raises:
        EvaluationError: the shapes of the arrays do not match; the ground truth has no objects; or, unless ``lenient``,
            a detection is in a picture that is not listed, has the score NaN, or has a box that is not finite.
    """
    count = len(detections.scores)
    shapes = [np.shape(detections.image_indices), np.shape(detections.labels), np.shape(detections.inclusive)]
    if shapes != [(count,), (count,), (count, 4)]:
        raise EvaluationError(
            f"expected image_indices [N], labels [N] and boxes [N, 4] for {count} scores, got {shapes}"
        )
    if len(ground_truth) == 0:
        raise EvaluationError(f"{ground_truth.name}: the ground truth has no objects; expected at least one")
    notices = list(ground_truth.notices)
    if detections.skipped:
        notices.append(f"{detections.skipped} malformed lines of the predictions are left out")
    not_numbers = np.isnan(detections.scores) | ~np.isfinite(detections.inclusive).all(axis=1)
    if not_numbers.any():
        row = int(np.argmax(not_numbers))
        got = f"score {detections.scores[row]}, box {detections.inclusive[row].tolist()}"
        problem = f"{int(not_numbers.sum())} detections have a score or box that is not a number"
        if not lenient:
            raise EvaluationError(f"{problem}; the first is detection {row + 1}: {got}. --lenient leaves them out")
        notices.append(f"{problem}; they are left out")
    not_listed = ~np.isin(detections.image_indices, ground_truth.image_indices) & ~not_numbers
    if not_listed.any():
        row = int(np.argmax(not_listed))
        problem = f"{int(not_listed.sum())} detections are in pictures that {ground_truth.name} does not list"
        if not lenient:
            listed = ground_truth.image_indices
            raise EvaluationError(
                f"{problem}; the first is detection {row + 1}, in picture {detections.image_indices[row]}; "
                f"the {len(listed)} listed pictures are {listed.min()}..{listed.max()}. --lenient leaves them out"
            )
        notices.append(f"{problem}; they are left out")
    if (not_numbers | not_listed).any():
        detections = _select_rows(detections, ~(not_numbers | not_listed))
    if len(detections) == 0:
        notices.append("there are no detections: every class with ground truth has AP 0 (the official code fails here)")
    width, height = (detections.inclusive[:, 2:] - detections.inclusive[:, :2] + 1).T
    inverted = int(((width <= 0) | (height <= 0)).sum())
    if inverted:
        notices.append(f"{inverted} detections have an inverted box (xmax < xmin or ymax < ymin) and match no object")
    return detections, notices


def absent_class_notices(ground_truth: GroundTruth, detections: Submission) -> list[str]:
    """Returns a sentence on detections of classes without ground truth; an empty list if there are none."""
    absent = int((~np.isin(detections.labels, ground_truth.labels)).sum())
    if not absent:
        return []
    return [f"{absent} detections are of classes that do not occur in {ground_truth.name}; they are left out"]


def _select_rows(detections: Submission, rows: npt.NDArray[np.bool_]) -> Submission:
    """Returns the detections in these rows. Arrays that a subclass of `Submission` adds are reduced likewise."""
    arrays: dict[str, Any] = {
        field.name: value[rows]
        for field in fields(detections)
        if isinstance(value := getattr(detections, field.name), np.ndarray)
    }
    return replace(detections, **arrays)
