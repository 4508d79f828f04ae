"""Positions in the hierarchies, and the removal of duplicate boxes."""

import numpy as np

from inception_rcnn.proposals.ranking import first_of_each, hierarchy_positions, pseudo_random_values


def test_the_last_region_of_each_hierarchy_has_position_1() -> None:
    assert hierarchy_positions([3, 1, 2]).tolist() == [3, 2, 1, 1, 2, 1]


def test_pseudo_random_values_are_between_0_and_the_position() -> None:
    positions = np.arange(1, 1001)
    values = pseudo_random_values(positions, seed=5)
    shares = values / positions
    assert ((shares >= 0) & (shares < 1)).all()
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)
    assert values.tolist() == pseudo_random_values(positions, seed=5).tolist()
    assert values.tolist() != pseudo_random_values(positions, seed=6).tolist()


def test_the_first_of_identical_boxes_is_kept() -> None:
    boxes = np.array([[0, 0, 9, 5], [1, 0, 9, 5], [0, 0, 9, 5], [0, 1, 9, 5], [1, 0, 9, 5], [0, 0, 8, 5], [0, 0, 9, 4]])
    assert first_of_each(boxes.astype(np.int32), 9, 5).tolist() == [0, 1, 3, 5, 6]
