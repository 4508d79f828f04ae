"""Precision, recall, AP and F1 of curves computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inception_rcnn.detection.evaluation.average_precision import (
    OperatingPoint,
    area_under_envelope,
    best_f1,
    eleven_point_ap,
    envelope,
    precision_recall,
)

SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
TRUE_POSITIVE = np.array([True, False, False, True, True])  # of four objects
CURVE = precision_recall(SCORES, TRUE_POSITIVE, ~TRUE_POSITIVE, positives=4)


def test_precision_and_recall_are_counted_from_the_best_detection_on() -> None:
    assert CURVE.true_positives.tolist() == [1, 1, 1, 2, 3]
    assert CURVE.false_positives.tolist() == [0, 1, 2, 2, 2]
    assert CURVE.precision.tolist() == [1, 1 / 2, 1 / 3, 2 / 4, 3 / 5]
    assert CURVE.recall.tolist() == [1 / 4, 1 / 4, 1 / 4, 2 / 4, 3 / 4]


def test_the_envelope_is_the_best_precision_from_each_recall_on() -> None:
    recall, precision = envelope(CURVE)
    assert recall.tolist() == [1 / 4, 2 / 4, 3 / 4]
    assert precision.tolist() == [1, 3 / 5, 3 / 5]


def test_ap_is_the_area_under_the_envelope() -> None:
    assert area_under_envelope(CURVE) == pytest.approx(1 / 4 + 3 / 5 / 4 + 3 / 5 / 4)


def test_eleven_point_ap_is_the_mean_of_the_envelope_at_eleven_recalls() -> None:
    # Precision 1 at recalls 0, 0.1 and 0.2; 3/5 at 0.3 to 0.7; 0 at 0.8 to 1.
    assert eleven_point_ap(CURVE) == pytest.approx((3 * 1 + 5 * 3 / 5) / 11)


def test_a_recall_of_three_tenths_does_not_reach_the_fourth_of_eleven_points() -> None:
    three_of_ten = precision_recall(np.array([0.9, 0.8, 0.7]), np.ones(3), np.zeros(3), positives=10)
    assert eleven_point_ap(three_of_ten) == pytest.approx(3 / 11)


def test_ignored_detections_change_neither_precision_nor_recall() -> None:
    curve = precision_recall(SCORES[:3], np.array([False, True, False]), np.array([False, False, True]), positives=1)
    assert np.isnan(curve.precision[0])
    assert curve.precision[1:].tolist() == [1, 1 / 2]
    assert area_under_envelope(curve) == 1


def test_the_best_f1_is_at_the_score_with_the_best_balance() -> None:
    # F1 = 2 TP / (detections + objects): 2/5, 2/6, 2/7, 4/8, 6/9.
    assert best_f1(CURVE) == OperatingPoint(score=0.5, precision=3 / 5, recall=3 / 4, f1=6 / 9)


def test_the_best_f1_keeps_equal_scores_together() -> None:
    # Without the tie, the threshold would keep the first two detections alone: F1 1.
    curve = precision_recall(np.array([0.9, 0.5, 0.5]), np.array([1, 1, 0]), np.array([0, 0, 1]), positives=2)
    assert best_f1(curve) == OperatingPoint(score=0.5, precision=2 / 3, recall=1.0, f1=0.8)


def test_a_class_without_objects_or_detections_has_the_ap_of_the_official_kit() -> None:
    no_detections = precision_recall(np.empty(0), np.empty(0), np.empty(0), positives=3)
    no_objects = precision_recall(SCORES, np.zeros(5), np.ones(5), positives=0)
    for average_precision in (area_under_envelope, eleven_point_ap):
        assert average_precision(no_detections) == 0
        assert np.isnan(average_precision(no_objects))
    assert best_f1(no_detections) is None
    assert best_f1(no_objects) is None
