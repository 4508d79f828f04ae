"""Means over classes, and what an evaluation says about each detection."""

import math

import numpy as np
import pytest

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.ilsvrc import evaluate

BOX = [11.0, 11, 60, 60]


def test_the_present_mean_leaves_out_classes_without_ground_truth() -> None:
    truth = GroundTruth.from_arrays([1], [1, 1], [1, 3], [BOX, BOX])
    found = evaluate(truth, Submission(np.array([1]), np.array([1]), np.array([0.9]), np.array([BOX])))
    assert found.ap == {1: 1.0, 2: 0.0, 3: 0.0}
    assert found.mean_ap("official") == pytest.approx(1 / 3)
    assert found.mean_ap("present") == 0.5


def test_the_official_mean_is_nan_if_a_class_has_detections_but_no_objects() -> None:
    truth = GroundTruth.from_arrays([1], [1], [3], [BOX])
    found = evaluate(truth, Submission(np.array([1]), np.array([2]), np.array([0.9]), np.array([BOX])))
    assert math.isnan(found.mean_ap("official"))
    assert found.mean_ap() == 0


def test_a_detection_is_a_true_positive_a_false_positive_or_ignored() -> None:
    truth = GroundTruth.from_arrays([1, 2], [1, 2], [1, 1], [BOX, BOX])
    detections = Submission(np.array([1, 1, 2]), np.ones(3, int), np.array([0.7, 0.9, 0.8]), np.array([BOX] * 3))
    found = evaluate(truth, detections, blacklist=[(2, 1)])
    assert found.ranks.tolist() == [2, 0, 1]
    assert found.matched.tolist() == [-1, 0, -1]
    assert found.false_positives.tolist() == [True, False, False]
    assert found.ignored.tolist() == [False, False, True]
    (result,) = found.classes
    assert (result.positives, result.detections, result.ignored) == (1, 3, 1)
