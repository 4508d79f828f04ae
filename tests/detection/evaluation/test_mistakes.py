"""Examples of a class: its false positives with the highest scores, its largest missed objects, its surest finds."""

from __future__ import annotations

import numpy as np

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.error_analysis import analyse
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.evaluation.mistakes import surest_finds, worst_mistakes


def test_false_positives_are_sorted_by_score_and_missed_objects_by_size() -> None:
    box, far = [1, 1, 100, 100], [301, 301, 400, 400]
    truth = GroundTruth.from_arrays(
        [1, 2], [1, 2, 2, 2], [1, 1, 1, 2], [box, [1, 1, 30, 30], [201, 201, 300, 300], [311, 301, 410, 400]]
    )
    detections = Submission(
        np.array([1, 1, 2, 1]),
        np.array([1, 1, 1, 1]),
        np.array([0.3, 0.9, 0.6, 0.2]),
        np.array([far, far, far, box], dtype=np.float64),
    )
    evaluation = evaluate(truth, detections)
    worst = worst_mistakes(evaluation, analyse(evaluation), most=2)
    assert [(mistake.kind, mistake.score, mistake.picture) for mistake in worst[1]] == [
        ("background", 0.9, "1"),
        ("classification", 0.6, "2"),
        ("missed", None, "2"),
        ("missed", None, "2"),
    ]
    assert [mistake.box for mistake in worst[1][2:]] == [(201, 201, 300, 300), (1, 1, 30, 30)]
    assert worst[1][1].iou == 90 / 110  # with the object of class 2, which is ten pixels to the right
    assert [same_class for _, _, same_class in worst[1][1].objects] == [True, True, False]
    assert worst[2] == []
    finds = surest_finds(evaluation, most=2)
    assert [(find.kind, find.score, find.iou, find.box) for find in finds[1]] == [("found", 0.2, 1.0, (1, 1, 100, 100))]
    assert finds[2] == []


def test_false_positives_below_a_tenth_are_not_shown() -> None:
    far = [301, 301, 400, 400]
    truth = GroundTruth.from_arrays([1], [1], [1], [[1, 1, 100, 100]])
    scores = np.array([0.3, 0.1, 0.09])
    detections = Submission(np.ones(3, int), np.ones(3, int), scores, np.array([far] * 3, dtype=np.float64))
    evaluation = evaluate(truth, detections)
    worst = worst_mistakes(evaluation, analyse(evaluation))
    assert [mistake.score for mistake in worst[1]] == [0.3, 0.1, None]


def test_the_finds_with_the_highest_scores_are_shown() -> None:
    boxes = [[1, 1, 100, 100], [201, 1, 300, 100], [1, 201, 100, 300]]
    truth = GroundTruth.from_arrays([1], [1] * 3, [1] * 3, boxes)
    detections = Submission(np.ones(3, int), np.ones(3, int), np.array([0.05, 0.9, 0.7]), np.array(boxes, np.float64))
    finds = surest_finds(evaluate(truth, detections), most=2)
    assert [find.score for find in finds[1]] == [0.9, 0.7]
