import numpy as np
import pytest

from inception_rcnn.data.boxes import iou
from inception_rcnn.proposals.combine import combine, multibox_boxes, rank_probability
from inception_rcnn.proposals.multibox import encode
from inception_rcnn.proposals.proposals import Proposals, Source


def predictions_of(boxes, logits, priors):
    return np.column_stack([encode(boxes, priors), np.array(logits, np.float32)]).astype(np.float32)


def boxes_at(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def multibox(boxes, scores):
    return Proposals(boxes, np.array(scores, np.float32), np.full(len(boxes), Source.MULTIBOX, np.uint8))


def selective(boxes):
    return Proposals(boxes, np.arange(len(boxes), 0, -1).astype(np.float32))


def test_boxes_come_back_in_pixels_of_the_picture_inside_it_and_best_first():
    priors = boxes_at([0, 0, 20, 20], [40, 40, 60, 60], [80, 80, 100, 100])
    seen = boxes_at([10, 10, 20, 30], [50, 50, 100, 100], [90, 90, 130, 120])  # of a 100 x 100 input
    found = multibox_boxes([predictions_of(seen, [0, 2, -1], priors)], [priors], [100], 200, 50)
    np.testing.assert_allclose(found.boxes, [[100, 25, 200, 50], [20, 5, 40, 15], [180, 45, 200, 50]], atol=1e-3)
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-2, 0, 1])), rtol=1e-5)
    assert (found.source == Source.MULTIBOX).all()


def test_of_boxes_that_overlap_only_the_best_is_kept_and_never_more_than_asked_for():
    priors = np.repeat(boxes_at([10, 10, 50, 50]), 3, axis=0)
    seen = boxes_at([10, 10, 50, 50], [11, 10, 50, 50], [10, 10, 30, 30])
    found = multibox_boxes([predictions_of(seen, [0, 1, 2], priors)], [priors], [64], 64, 64, nms_threshold=0.7)
    np.testing.assert_allclose(found.boxes, seen[[2, 1]], atol=1e-3)
    assert len(multibox_boxes([predictions_of(seen, [0, 1, 2], priors)], [priors], [64], 64, 64, count=1)) == 1


def test_looks_at_several_sizes_share_one_list():
    small, large = boxes_at([0, 0, 20, 20]), boxes_at([50, 50, 90, 90])
    found = multibox_boxes(
        [predictions_of(small, [1], small), predictions_of(large, [2], large)], [small, large], [100, 200], 100, 100
    )
    np.testing.assert_allclose(found.boxes, [[25, 25, 45, 45], [0, 0, 20, 20]], atol=1e-3)


def test_boxes_outside_the_picture_are_dropped():
    priors = boxes_at([0, 0, 20, 20])
    outside = predictions_of(boxes_at([-30, 0, -10, 20]), [3], priors)
    assert len(multibox_boxes([outside], [priors], [100], 100, 100)) == 0


def test_the_union_is_ordered_by_probability_and_remembers_sources():
    far = boxes_at([0, 0, 10, 10], [100, 0, 110, 10], [200, 0, 210, 10])
    near = boxes_at([0, 100, 10, 110], [100, 100, 110, 110])
    union = combine(selective(far), multibox(near, [0.9, 0.01]))
    assert union.source.tolist() == [1, 0, 0, 0, 1]
    np.testing.assert_array_equal(union.boxes, np.concatenate([near[:1], far, near[1:]]))
    assert (np.diff(union.scores) <= 0).all()


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


def test_later_ranks_are_worth_less():
    assert (np.diff(rank_probability(2000)) < 0).all()
    assert len(rank_probability(0)) == 0


def test_proposals_come_from_selective_search_unless_they_say_otherwise():
    found = selective(boxes_at([0, 0, 1, 1]))
    assert found.source.tolist() == [Source.SELECTIVE_SEARCH]
    assert found.top(0).source.shape == (0,)
    with pytest.raises(ValueError, match="source"):
        Proposals(found.boxes, found.scores, np.zeros(2, np.uint8))
