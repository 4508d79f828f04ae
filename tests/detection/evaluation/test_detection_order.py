"""Detections are ranked by score, then by picture number, then by row."""

import numpy as np

from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.detection_order import rank_detections


def test_ties_go_to_the_smaller_picture_number_and_then_to_the_earlier_row() -> None:
    images = np.array([5, 3, 3, 9, 1])
    scores = np.array([0.5, 0.5, 0.5, 0.9, -np.inf])
    detections = Submission(images, np.ones(5, int), scores, np.ones((5, 4)))
    assert rank_detections(detections).tolist() == [3, 1, 2, 0, 4]
