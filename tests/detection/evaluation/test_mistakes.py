"""The worst mistakes of a class are its false positives with the highest scores and its largest missed objects."""

from __future__ import annotations

import numpy as np

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.error_analysis import analyse
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.evaluation.mistakes import worst_mistakes


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
