"""The objectness ranking on hand-computed examples."""

import math

import numpy as np
import pytest

from inception_rcnn.proposals.objectness import objectness


def scores(boxes: list[list[int]], positions: list[int]) -> list[float]:
    return objectness(np.array(boxes, np.int32), np.array(positions), 100, 100).tolist()


def test_a_score_grows_with_the_area_and_with_the_positions_of_all_copies() -> None:
    boxes = [[0, 0, 100, 100], [0, 0, 50, 20], [0, 0, 50, 20]]
    # Whole image: log(1 / 1) + 0.3 log 1. The other box occurs at positions 2 and 4 and covers a tenth of the image.
    other = math.log(1 / 2 + 1 / 4) + 0.3 * math.log(0.1)
    assert scores(boxes, [1, 2, 4]) == pytest.approx([0, other, other])


def test_a_near_duplicate_of_a_better_box_is_penalised() -> None:
    # The IoU with the first box is 0.8 (above 0.7) and 0.6 (below 0.7); the IoU of the last two is 0.75.
    first, second, third = scores([[0, 0, 100, 100], [0, 0, 80, 100], [0, 0, 60, 100]], [1, 1, 1])
    assert first == 0
    assert second == pytest.approx(0.3 * math.log(0.8) - 2 * math.log(1.8))
    assert third == pytest.approx(0.3 * math.log(0.6) - 2 * math.log(1.75))
