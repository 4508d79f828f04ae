"""The union of the boxes of selective search and MultiBox."""

import numpy as np
import pytest

from inception_rcnn.data.boxes import iou
from inception_rcnn.proposals.combine import combine, rank_probability
from inception_rcnn.proposals.proposals import Proposals, Source


def boxes_at(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def multibox(boxes, scores):
    return Proposals(boxes, np.array(scores, np.float32), np.full(len(boxes), Source.MULTIBOX, np.uint8))


def selective(boxes):
    return Proposals(boxes, np.arange(len(boxes), 0, -1).astype(np.float32))


def test_the_union_is_sorted_by_probability_and_keeps_the_sources():
    far = boxes_at([0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10])
    near = boxes_at([0, 100, 10, 110], [100, 100, 110, 110])
    # Selective search's ranks 0 to 2 have the probabilities 0.17, 0.168 and 0.166.
    union = combine(selective(far), multibox(near, [0.9, 0.01]))
    assert union.source.tolist() == [1, 0, 0, 0, 1]
    np.testing.assert_array_equal(union.boxes, np.concatenate([near[:1], far, near[1:]]))
    np.testing.assert_allclose(union.scores, [0.9, 0.17, 0.168, 0.166, 0.01], atol=5e-4)


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_no_two_boxes_of_the_union_are_near_duplicates_and_nothing_else_is_dropped(threshold):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 20, (60, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 30, (60, 2))], axis=1).astype(np.float32)
    union = combine(selective(boxes[:40]), multibox(boxes[40:], np.linspace(0.9, 0.1, 20)), duplicate_iou=threshold)
    overlaps = iou(union.boxes, union.boxes) - np.eye(len(union), dtype=np.float32)
    assert overlaps.max() <= threshold + 1e-6
    assert (iou(boxes, union.boxes).max(axis=1) > threshold - 1e-6).all()


def test_the_union_with_nothing_is_the_other():
    boxes, nothing = boxes_at([0, 0, 10, 10], [20, 0, 30, 10]), np.zeros((0, 4), np.float32)
    np.testing.assert_array_equal(combine(selective(boxes), multibox(nothing, [])).boxes, boxes)
    np.testing.assert_array_equal(combine(selective(nothing), multibox(boxes, [0.5, 0.4])).boxes, boxes)
    assert len(combine(selective(nothing), multibox(nothing, []))) == 0


def test_rank_probability_is_close_to_the_measured_shares():
    probability = rank_probability(200)
    assert probability[:10].mean() == pytest.approx(0.17, rel=0.1)
    assert probability[100:].mean() == pytest.approx(0.067, rel=0.1)
    assert len(rank_probability(0)) == 0
