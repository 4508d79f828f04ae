"""Non-maximum suppression equals a plain loop over classes and regions, for any boxes and scores."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_rcnn.data.boxes import iou
from inception_rcnn.detection.suppression import select_detections

corner = st.integers(-40, 40)
side = st.integers(1, 40)
box = st.tuples(corner, corner, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
score = st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.5, 0.5, 0.75, 1.0])  # equal scores are common
region = st.tuples(box, score, score)


def plain_loop(boxes: np.ndarray, scores: np.ndarray, least: float, limit: float) -> list[tuple[float, int, int]]:
    """(score, region, class) of the detections: R-CNN's rule, class by class."""
    found = []
    for column in range(scores.shape[1]):
        order = sorted(range(len(boxes)), key=lambda row: (-scores[row, column], row))
        kept: list[int] = []
        for row in order:
            if scores[row, column] < least:
                continue
            if all(iou(boxes[[row]], boxes[[other]])[0, 0] <= limit for other in kept):
                kept.append(row)
        found += [(float(scores[row, column]), row, column) for row in kept]
    return sorted(found, key=lambda one: (-one[0], one[1], one[2]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(region, max_size=12), st.sampled_from([0.05, 0.3, 0.5]), st.integers(1, 30))
def test_it_is_the_plain_loop(regions: list, least: float, most: int) -> None:
    boxes = np.array([one[0] for one in regions], np.float32).reshape(-1, 4)
    scores = np.array([one[1:] for one in regions], np.float32).reshape(-1, 2)
    probabilities = np.concatenate([np.zeros((len(boxes), 1), np.float32), scores], axis=1)
    found = select_detections(
        boxes, probabilities, np.array([7, 3]), score_threshold=least, max_detections=most, nms_threshold=0.4
    )
    expected = plain_loop(boxes, scores, np.float32(least), 0.4)[:most]
    got = list(zip(found.scores.tolist(), found.regions.tolist(), found.labels.tolist(), strict=True))
    assert got == [(value, row, (7, 3)[column]) for value, row, column in expected]
    np.testing.assert_array_equal(found.boxes, boxes[found.regions])
