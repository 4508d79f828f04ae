"""Error rates and Table 3."""

import numpy as np
import pytest

from inception_rcnn.detection.evaluation.top_errors import ErrorRate, error_rate, is_wrong, table3


def test_a_picture_is_wrong_if_its_class_is_not_among_the_first():
    ranked = np.array([[3, 1, 2], [0, 3, 1], [2, 0, 1]])
    assert is_wrong([3, 3, 3], ranked, 1).tolist() == [False, True, True]
    assert is_wrong([3, 3, 3], ranked, 2).tolist() == [False, False, True]
    assert is_wrong([3, 3, 3], ranked, 5).tolist() == [False, False, True]
    of_two = np.array([[[3, 1], [1, 3]], [[0, 1], [2, 1]]])
    assert is_wrong([3, 0], of_two, 1).tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize(
    ("wrong", "images", "low", "high"),
    [(22, 400, 0.0348, 0.0821), (0, 10, 0, 0.3085), (10, 10, 0.6915, 1)],  # R: binom.test
)
def test_the_interval_is_the_exact_binomial_interval(wrong, images, low, high):
    assert ErrorRate(wrong, images).interval() == pytest.approx((low, high), abs=1e-4)


def test_table_3_has_a_row_for_each_classification_and_those_of_the_paper():
    labels = np.array([0, 1, 2, 3] * 25)
    right = np.repeat(labels[:, None], 2, axis=1)
    wrong = np.full((100, 2), 9)
    half = np.where(np.arange(100)[:, None] < 50, right, wrong)
    ranked = np.stack([right, half, wrong], axis=1)
    rows = {(row.networks, row.crops): row for row in table3([(1, 10), (1, 1), (2, 1)], labels, ranked)}
    assert list(rows) == [(1, 1), (1, 10), (1, 144), (2, 1), (7, 1), (7, 10), (7, 144)]
    base, ten, two = rows[1, 1], rows[1, 10], rows[2, 1]
    assert (base.top5, base.change, base.change_interval) == (ErrorRate(50, 100), 0, (0, 0))
    assert (ten.top5, ten.change, ten.paper) == (ErrorRate(0, 100), -0.5, (0.0915, -0.0092))
    assert ten.change_interval == pytest.approx((-0.6, -0.4), abs=0.02)  # 0.5 -+ 1.96 * sqrt(0.25 / 100)
    assert (two.change, two.paper) == (0.5, None)
    assert (rows[7, 144].top5, rows[7, 144].cost, rows[7, 144].paper) == (None, 1008, (0.0667, -0.0345))


def test_error_rates_count_pictures():
    assert error_rate(np.array([True, False, True])) == ErrorRate(2, 3)
    assert ErrorRate(2, 3).error == pytest.approx(2 / 3)
