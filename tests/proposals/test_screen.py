"""The screen: which regions it keeps, and that a region's scores depend on the region and the picture alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inception_rcnn.proposals.proposals import Proposals, Source
from inception_rcnn.proposals.screen import Screen, ScreenThresholds

BOXES = np.array([[0, 0, 40, 40], [2, 0, 40, 40], [60, 60, 100, 90], [10, 50, 30, 70]], np.float32)


@pytest.fixture
def screen() -> Screen:
    torch.manual_seed(0)
    return Screen(3, 5, 7, width=8, grid=3, hidden=16).eval()


def proposals() -> Proposals:
    source = np.array([Source.SELECTIVE_SEARCH, Source.MULTIBOX, Source.MULTIBOX, Source.SELECTIVE_SEARCH], np.uint8)
    return Proposals(BOXES, np.array([4, 3, 2, 1], np.float32), source)


def random_map() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((8, 6, 6), np.float32)


def with_scores(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, objectness: list[float], quality: list[float]
) -> Screen:
    """The screen with these object probabilities and qualities. The class of every region is its first."""
    classes = np.zeros((len(objectness), 4), np.float32)
    classes[:, 0], classes[:, 1] = 1 - np.array(objectness), objectness
    scores = classes, np.array(quality, np.float32)
    monkeypatch.setattr(screen, "score", lambda *arguments: scores)
    return screen


def test_regions_are_kept_by_objectness_times_quality_and_near_duplicates_dropped(screen, monkeypatch):
    # Scores: 0.45, 0.4, 0.02, 0.06. The first two boxes overlap by 38 / 40 = 0.95.
    screen = with_scores(screen, monkeypatch, [0.9, 0.8, 0.1, 0.6], [0.5, 0.5, 0.2, 0.1])
    screen.thresholds = ScreenThresholds(score=0.05, nms=0.9)
    kept = screen.keep(proposals(), random_map(), 100, 100)
    np.testing.assert_array_equal(kept.boxes, BOXES[[0, 3]])
    np.testing.assert_allclose(kept.scores, [0.45, 0.06], rtol=1e-6)
    np.testing.assert_allclose(kept.quality, [0.5, 0.1], rtol=1e-6)
    np.testing.assert_allclose(kept.classes, [[0.1, 0.9, 0, 0], [0.4, 0.6, 0, 0]], rtol=1e-6)
    assert kept.source.tolist() == [Source.SELECTIVE_SEARCH, Source.SELECTIVE_SEARCH]


def test_near_duplicates_stay_up_to_the_threshold(screen, monkeypatch):
    screen = with_scores(screen, monkeypatch, [0.9, 0.8, 0.1, 0.6], [0.5, 0.5, 0.2, 0.1])
    screen.thresholds = ScreenThresholds(score=0.05, nms=0.96)
    np.testing.assert_array_equal(screen.keep(proposals(), random_map(), 100, 100).boxes, BOXES[[0, 1, 3]])


def test_a_number_of_regions_replaces_the_least_score(screen, monkeypatch):
    screen = with_scores(screen, monkeypatch, [0.9, 0.8, 0.1, 0.6], [0.5, 0.5, 0.2, 0.1])
    screen.thresholds = ScreenThresholds(score=0.05, nms=0.9)
    np.testing.assert_array_equal(screen.keep(proposals(), random_map(), 100, 100, 1).boxes, BOXES[[0]])
    np.testing.assert_array_equal(screen.keep(proposals(), random_map(), 100, 100, 9).boxes, BOXES[[0, 3, 2]])


def test_no_proposals_leave_none(screen):
    none = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    kept = screen.keep(none, random_map(), 100, 100)
    assert len(kept) == 0
    assert (kept.quality.shape, kept.classes.shape) == ((0,), (0, 4))


def test_scores_are_probabilities_and_do_not_depend_on_other_regions(screen):
    classes, quality = screen.score(random_map(), BOXES, 100, 80)
    assert (classes.shape, quality.shape) == ((4, 4), (4,))
    np.testing.assert_allclose(classes.sum(axis=1), 1, rtol=1e-5)
    for values in (classes, quality):
        assert (values > 0).all()
        assert (values < 1).all()
    for row in range(4):
        alone = screen.score(random_map(), BOXES[row : row + 1], 100, 80)
        np.testing.assert_allclose(alone[0][0], classes[row], rtol=1e-5)
        np.testing.assert_allclose(alone[1], quality[row], rtol=1e-5)


def test_a_region_is_seen_at_its_place_in_the_picture_whatever_the_size_of_the_picture(screen):
    classes, _ = screen.score(random_map(), BOXES, 100, 80)
    enlarged, _ = screen.score(random_map(), BOXES * np.array([3, 2, 3, 2], np.float32), 300, 160)
    np.testing.assert_allclose(enlarged, classes, rtol=1e-4)


def test_a_region_is_pooled_with_a_margin_of_a_tenth_on_each_side(screen):
    # A map that is 1 in its right half only, which begins at 48 of 96 pixels: the box ends at 45, its margin at 49.
    step = np.zeros((8, 6, 6), np.float32)
    step[:, :, 3:] = 1
    inside = torch.from_numpy(np.array([[5, 40, 45, 60]], np.float32))
    far = torch.from_numpy(np.array([[0, 40, 20, 60]], np.float32))
    seen = screen(torch.from_numpy(step)[None], [torch.cat([inside, far])])[0]
    without = screen(torch.zeros(1, 8, 6, 6), [torch.cat([inside, far])])[0]
    assert not torch.allclose(seen[0], without[0])
    torch.testing.assert_close(seen[1], without[1])


def test_the_feature_map_adds_the_coarse_map_to_the_fine_one(screen):
    fine, coarse = torch.rand(1, 5, 4, 4), torch.rand(1, 7, 2, 2)
    found = screen.feature_map(fine, coarse)
    weights, bias = screen.lateral_fine.weight[:, :, 0, 0], screen.lateral_fine.bias
    coarse_weights, coarse_bias = screen.lateral_coarse.weight[:, :, 0, 0], screen.lateral_coarse.bias
    for y, x in ((0, 0), (1, 3), (2, 1)):
        value = weights @ fine[0, :, y, x] + bias + coarse_weights @ coarse[0, :, y // 2, x // 2] + coarse_bias
        torch.testing.assert_close(found[0, :, y, x], value.clamp(min=0))
