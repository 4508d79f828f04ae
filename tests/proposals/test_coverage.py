"""The matching of proposals to objects, against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inception_rcnn.data.boxes import iou
from inception_rcnn.proposals.coverage import cover

COUNTS = np.array([1, 2, 3, 5, 8, 13, 21])


def random_boxes(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Draws boxes with corners on a coarse grid, so that many IoUs are equal and ties occur."""
    corner = rng.integers(0, 12, (count, 2))
    return np.hstack([corner, corner + rng.integers(1, 12, (count, 2))]).astype(np.float32)


def covered(
    objects: NDArray[np.float32], proposals: NDArray[np.float32], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    closest, matched = np.empty((2, len(counts) + 1, len(objects)))
    cover(objects.astype(np.float64), proposals.astype(np.float64), counts, closest, matched)
    return closest, matched


def greedy_matching(overlaps: NDArray[np.float32]) -> list[float]:
    """Matches as Hosang et al.: take the pair with the largest IoU, remove its row and column, repeat."""
    left = overlaps.copy()
    partner = [0.0] * left.shape[1]
    while left.size and left.max() > 0:
        row, column = np.unravel_index(left.argmax(), left.shape)
        partner[column] = float(left[row, column])
        left[row], left[:, column] = -1, -1
    return partner


def test_the_single_pass_equals_the_greedy_matching_at_every_count() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        objects, proposals = random_boxes(rng, int(rng.integers(0, 7))), random_boxes(rng, int(rng.integers(0, 40)))
        closest, matched = covered(objects, proposals, COUNTS)
        overlaps = iou(proposals, objects)
        for row, count in enumerate([*COUNTS, 40]):
            expected = overlaps[:count].max(axis=0, initial=0)
            np.testing.assert_allclose(matched[row], greedy_matching(overlaps[:count]), rtol=0, atol=1e-6)
            np.testing.assert_allclose(closest[row], expected, rtol=0, atol=1e-6)


def test_more_proposals_never_lower_the_overlap_of_an_object() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        closest, matched = covered(random_boxes(rng, 6), random_boxes(rng, 40), np.arange(1, 41))
        assert (np.diff(closest, axis=0) >= 0).all()
        assert (np.diff(matched, axis=0) >= 0).all()


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [10, 10, 0, 0], [20, 0, 0, 20]])
def test_empty_and_inverted_proposals_cover_nothing(box: list[float]) -> None:
    closest, matched = covered(np.array([[0, 0, 10, 10]], np.float32), np.array([box], np.float32), np.array([1]))
    assert closest.tolist() == matched.tolist() == [[0], [0]]
