"""Detections that cannot be evaluated are errors; lenient checks leave them out with a notice."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.checks import EvaluationError, absent_class_notices, check_detections

BOX = [11, 11, 60, 60]
TRUTH = GroundTruth.from_arrays([1, 2], [1], [1], [BOX])


def submission(*rows: list) -> Submission:
    """Detections given as rows (image, label, score, *box)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return Submission(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:])


def test_good_detections_pass_without_a_notice() -> None:
    detections = submission([1, 1, 0.5, *BOX], [2, 7, -math.inf, *BOX])
    assert check_detections(TRUTH, detections, lenient=False) == (detections, [])


def test_a_picture_that_is_not_listed_is_an_error_or_left_out() -> None:
    detections = submission([1, 1, 0.5, *BOX], [7, 1, 0.9, *BOX])
    with pytest.raises(
        EvaluationError, match=r"detection 2, in picture 7; the 2 listed pictures are 1\.\.2.*--lenient"
    ):
        check_detections(TRUTH, detections, lenient=False)
    checked, notices = check_detections(TRUTH, detections, lenient=True)
    assert checked.scores.tolist() == [0.5]
    assert notices == ["1 detections are in pictures that ground truth does not list; they are left out"]


@pytest.mark.parametrize("column", [2, 3, 6])
def test_a_score_or_coordinate_that_is_not_a_number_is_an_error_or_left_out(column: int) -> None:
    row: list[float] = [1, 1, 0.9, *BOX]
    row[column] = math.nan
    detections = submission([1, 1, 0.5, *BOX], row)
    with pytest.raises(EvaluationError, match="not a number; the first is detection 2"):
        check_detections(TRUTH, detections, lenient=False)
    checked, notices = check_detections(TRUTH, detections, lenient=True)
    assert checked.scores.tolist() == [0.5]
    assert notices == ["1 detections have a score or box that is not a number; they are left out"]


def test_ground_truth_without_objects_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="ground truth: the ground truth has no objects"):
        check_detections(GroundTruth.from_arrays([1, 2], [], [], []), submission([1, 1, 0.9, *BOX]), lenient=False)


def test_arrays_of_different_length_are_an_error() -> None:
    detections = Submission(np.ones(2, int), np.ones(2, int), np.ones(2), np.ones((1, 4)))
    with pytest.raises(EvaluationError, match=r"boxes \[N, 4\] for 2 scores, got"):
        check_detections(TRUTH, detections, lenient=True)


def test_detections_of_absent_classes_are_counted() -> None:
    assert absent_class_notices(TRUTH, submission([1, 1, 0.9, *BOX])) == []
    assert absent_class_notices(TRUTH, submission([1, 1, 0.9, *BOX], [1, 3, 0.9, *BOX], [2, 4, 0.9, *BOX])) == [
        "2 detections are of classes that do not occur in ground truth; they are left out"
    ]
