"""Non-maximum suppression and box voting."""

import math

import numpy as np
import pytest

from inception_rcnn.data.boxes import iou
from inception_rcnn.detection.suppression import NMS_THRESHOLD, Detections, select_detections, vote_boxes


def test_boxes_of_a_class_are_suppressed_and_vote_within_that_class_only():
    shared = np.array([[0, 0, 10, 10], [0, 0, 10, 12]], np.float32)
    own = np.stack([shared, shared + 30], axis=1)  # [regions, classes, 4]: boxes of the second class are moved by 30
    probabilities = np.array([[0.1, 0.6, 0.3], [0.1, 0.5, 0.4]], np.float32)
    ids = np.array([58, 7])
    found = select_detections(own, probabilities, ids, score_threshold=0.01, max_detections=9)
    assert found.labels.tolist() == [58, 7]
    assert found.boxes.tolist() == [[0, 0, 10, 10], [30, 30, 40, 42]]
    voted = vote_boxes(found, own, probabilities, ids).boxes
    near = math.exp(-((1 - 10 / 12) ** 2) / 0.1)
    first, second = 0.5 * near, 0.3 * near
    np.testing.assert_allclose(voted[0], [0, 0, 10, (0.6 * 10 + first * 12) / (0.6 + first)], rtol=1e-6)
    np.testing.assert_allclose(voted[1], [30, 30, 40, 30 + (second * 10 + 0.4 * 12) / (second + 0.4)], rtol=1e-6)


def test_above_includes_the_score_itself():
    scores = np.array([0.75, 0.5, 0.25], np.float32)
    found = Detections(np.zeros((3, 4), np.float32), scores, np.array([1, 2, 3]))
    assert found.above(0.5).labels.tolist() == [1, 2]


def slow_suppression(boxes, probabilities, ids, score_threshold, max_detections):
    """An independent reference: R-CNN's rule, for one class and one region at a time."""
    kept = []
    for column, label in enumerate(ids, 1):
        candidates = [n for n in range(len(boxes)) if probabilities[n, column] >= score_threshold]
        candidates.sort(key=lambda n: (-probabilities[n, column], n))
        selected: list[int] = []
        for n in candidates:
            if all(iou(boxes[n : n + 1], boxes[m : m + 1])[0, 0] <= NMS_THRESHOLD for m in selected):
                selected.append(n)
        kept += [(float(probabilities[n, column]), tuple(boxes[n]), int(label)) for n in selected]
    return sorted(kept, key=lambda row: -row[0])[:max_detections]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("score_threshold", "max_detections"), [(0.0, 1000), (0.3, 1000), (0.1, 7), (1.0, 10)])
def test_suppression_agrees_with_the_slow_reference(seed, score_threshold, max_detections):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 100, (60, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 60, (60, 2))], axis=1).astype(np.float32)
    probabilities = rng.dirichlet(np.ones(4), 60).astype(np.float32)
    ids = np.array([5, 3, 9])
    found = select_detections(boxes, probabilities, ids, score_threshold=score_threshold, max_detections=max_detections)
    expected = slow_suppression(boxes, probabilities, ids, score_threshold, max_detections)
    got = list(zip(found.scores.tolist(), map(tuple, found.boxes), found.labels.tolist(), strict=True))
    assert got == expected


def test_boxes_outside_the_picture_do_not_suppress_boxes_of_another_class():
    boxes = np.array([[-30, -30, -10, -10], [-20, -20, 0, 0], [0, 0, 20, 20]], np.float32)
    probabilities = np.array([[0, 0.9, 0.1], [0, 0.1, 0.8], [0, 0.2, 0.7]], np.float32)
    found = select_detections(boxes, probabilities, np.array([1, 2]), score_threshold=0.5, max_detections=9)
    assert found.labels.tolist() == [1, 2, 2]


def test_small_boxes_at_large_coordinates_are_told_apart_in_each_of_many_classes():
    """Boxes of one pixel with an IoU of 1/3 with their neighbours; the limit is 0.3, or 0.34."""
    boxes = np.array([[60_000, 0, 60_001, 1], [60_000.5, 0, 60_001.5, 1]], np.float32)
    probabilities = np.concatenate([np.zeros((2, 1)), np.full((2, 200), 0.5)], axis=1).astype(np.float32)
    for limit, count in ((0.3, 200), (0.34, 400)):
        found = select_detections(
            boxes, probabilities, np.arange(200), score_threshold=0.1, max_detections=999, nms_threshold=limit
        )
        assert len(found) == count


def test_thousands_of_equal_scores_keep_the_order_of_regions_and_classes():
    corner = np.arange(700, dtype=np.float32)[:, None] * 10
    boxes = np.concatenate([corner, corner, corner + 5, corner + 5], axis=1)
    found = select_detections(
        boxes, np.full((700, 4), 0.25, np.float32), np.array([7, 5, 9]), score_threshold=0.1, max_detections=5000
    )
    np.testing.assert_array_equal(found.boxes, boxes.repeat(3, axis=0))
    assert found.labels.tolist() == [7, 5, 9] * 700


def test_a_voted_box_is_the_mean_of_the_regions_around_it_weighted_by_the_probability_of_the_class_and_the_overlap():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 12, 10], [0, 0, 30, 10], [50, 50, 60, 60]], np.float32)
    probabilities = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0, 1, 0], [0.2, 0.0, 0.8]], np.float32)
    found = Detections(boxes[[0, 3]], np.array([0.6, 0.8], np.float32), np.array([58, 7]))
    voted = vote_boxes(found, boxes, probabilities, np.array([58, 7]))
    # 10 x 10 has an IoU of 10/12 with 12 x 10, and of 1/3 with 30 x 10, which is too little for a vote
    weight = 0.2 * math.exp(-((1 - 10 / 12) ** 2) / 0.1)
    np.testing.assert_allclose(voted.boxes[0], [0, 0, (0.6 * 10 + weight * 12) / (0.6 + weight), 10], rtol=1e-6)
    np.testing.assert_allclose(voted.boxes[1], boxes[3], rtol=1e-6)
    assert voted.scores is found.scores


def test_voting_accepts_no_detections():
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    voted = vote_boxes(nothing, np.zeros((3, 4), np.float32), np.zeros((3, 3), np.float32), np.array([58, 7]))
    assert voted.boxes.shape == (0, 4)


def test_detections_with_score_0_keep_their_box():
    boxes, ids = np.array([[0, 0, 10, 10], [1, 0, 10, 10]], np.float32), np.array([5])
    probabilities = np.array([[1, 0], [1, 0]], np.float32)
    found = select_detections(boxes, probabilities, ids, score_threshold=0, max_detections=10)
    np.testing.assert_array_equal(vote_boxes(found, boxes, probabilities, ids).boxes, found.boxes)
