"""Recall, AR, ABO and MABO: a worked example, and changes of the input that must not change the measures."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Sample
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.recall import (
    COUNTS,
    MATCHINGS,
    Coverage,
    RecallError,
    average_best_overlap,
    average_recall,
    average_recall_coco,
    mean_average_best_overlap,
    measure,
    recall,
    recall_figures,
)

CATEGORIES = [Category(number, f"n{number:08d}", f"class {number}") for number in range(1, 6)]

Boxes = NDArray[np.float32]


def sample(
    name: str, boxes: Sequence[Sequence[float]] | Boxes, labels: Sequence[int], difficult: Sequence[bool] = ()
) -> Sample:
    return Sample(
        name,
        1,
        Path(name),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(difficult or [False] * len(labels), np.bool_),
    )


def proposals(boxes: Sequence[Sequence[float]] | Boxes) -> Proposals:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Proposals(array, np.linspace(1, 0, len(array), dtype=np.float32))


def random_data(images: int, seed: int, grid: int = 12) -> tuple[list[Sample], dict[Path, Proposals]]:
    """Draws boxes at random. On a coarse grid many IoUs are equal, which tests the handling of ties."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> Boxes:
        corner = rng.integers(0, grid, (count, 2))
        return np.hstack([corner, corner + rng.integers(1, grid, (count, 2))]).astype(np.float32)

    samples = []
    for number in range(images):
        count = int(rng.integers(0, 7))
        samples.append(sample(str(number), boxes(count), rng.integers(1, 6, count).tolist()))
    return samples, {one.path: proposals(boxes(int(rng.integers(0, 40)))) for one in samples}


def of(samples: Sequence[Sample], found: dict[Path, Proposals], counts: Sequence[int] = COUNTS) -> Coverage:
    return measure(samples, lambda one: found.get(one.path), counts)


# The first image contains two dogs (class 1) and a cup (class 2). The second contains a cup and has no proposals.
#
#   dog A  (0, 0, 100, 100)   large        proposals, best first, and their IoU with A and B:
#   dog B  (0, 0, 100, 80)    medium         p1 (0, 0, 100, 90)   0.9     8/9
#   cup C  (200, 0, 220, 20)  small          p2 (0, 0, 100, 60)   0.6     0.75
#   cup D  in the second image               p3 (200, 0, 220, 10) has IoU 0.5 with C
EXAMPLE = [
    sample("a", [[0, 0, 100, 100], [0, 0, 100, 80], [200, 0, 220, 20]], [1, 1, 2]),
    sample("b", [[0, 0, 50, 50]], [2]),
]
EXAMPLE_PROPOSALS = {Path("a"): proposals([[0, 0, 100, 90], [0, 0, 100, 60], [200, 0, 220, 10]])}


def test_overlaps_of_the_worked_example() -> None:
    coverage = of(EXAMPLE, EXAMPLE_PROPOSALS, counts=[1, 2])
    # One-to-one: p1 has its largest IoU (0.9) with A, so B is matched to p2.
    assert coverage.matched.tolist() == [[0.9, 0, 0, 0], [0.9, 0.75, 0, 0], [0.9, 0.75, 0.5, 0]]
    # Closest: p1 is the closest proposal of both dogs.
    assert coverage.closest.tolist() == [[0.9, 8 / 9, 0, 0], [0.9, 8 / 9, 0, 0], [0.9, 8 / 9, 0.5, 0]]
    assert coverage.boxes_per_image() == [0.5, 1, 1.5]
    assert coverage.missing == 1


def test_figures_of_the_worked_example() -> None:
    figures = recall_figures("mine", of(EXAMPLE, EXAMPLE_PROPOSALS), CATEGORIES)
    assert figures["recall"] == {"0.5": 0.75, "0.6": 0.5, "0.7": 0.5, "0.8": 0.25, "0.9": 0.25}
    # 2 / 4 * (0.4 + 0.25 + 0 + 0)
    assert figures["AR"] == pytest.approx(0.325, abs=1e-15)
    # Hits at .5 .55 .6 .65 .7 .75 .8 .85 .9 .95: 3 2 2 2 2 2 1 1 1 0
    assert figures["AR_coco"] == pytest.approx(16 / 40, abs=1e-15)
    # ABO uses the closest proposal: dog (0.9 + 8/9) / 2, cup (0.5 + 0) / 2.
    assert [(one["name"], one["objects"]) for one in figures["classes"]] == [("class 1", 2), ("class 2", 2)]
    assert [one["ABO"] for one in figures["classes"]] == pytest.approx([(0.9 + 8 / 9) / 2, 0.25], abs=1e-15)
    assert figures["MABO"] == pytest.approx(((0.9 + 8 / 9) / 2 + 0.25) / 2, abs=1e-15)
    assert figures["boxes_per_image"] == 1.5
    assert (figures["images_without_proposals"], figures["images_missing"]) == (1, 1)
    assert {size: part["objects"] for size, part in figures["sizes"].items()} == {"small": 1, "medium": 2, "large": 1}
    assert figures["sizes"]["medium"]["recall"]["0.7"] == 0.5
    assert figures["sizes"]["large"]["AR"] == pytest.approx(0.8, abs=1e-15)
    assert [step["recall"]["0.5"] for step in figures["by_count"]] == [0.25] + [0.75] * 8


def test_best_matching_lets_one_proposal_cover_several_objects() -> None:
    coverage = of(EXAMPLE, EXAMPLE_PROPOSALS)
    best = recall_figures("mine", coverage, CATEGORIES, "best")
    assert best["recall"]["0.8"] == 0.5
    assert best["MABO"] == recall_figures("mine", coverage, CATEGORIES)["MABO"]
    with pytest.raises(ValueError, match="one-to-one, best"):
        coverage.overlaps("hungarian")


def test_the_recall_curve_of_the_worked_example() -> None:
    # The overlaps are 0.9, 0.75, 0.5 and 0, the thresholds 0.50, 0.51 .. 1.00.
    curve = recall_figures("mine", of(EXAMPLE, EXAMPLE_PROPOSALS), CATEGORIES)["curve"]
    assert curve["iou"][:2] == [0.5, 0.51]
    assert curve["iou"][-1] == 1
    assert curve["recall"] == [0.75] + [0.5] * 25 + [0.25] * 15 + [0] * 10


def test_the_order_of_images_and_objects_does_not_change_the_measures() -> None:
    samples, found = random_data(150, seed=4, grid=300)
    expected = recall_figures("x", of(samples, found), CATEGORIES)
    rng = np.random.default_rng(0)
    shuffled = [samples[index] for index in rng.permutation(len(samples))]
    reversed_objects = [sample(one.image_id, one.boxes[::-1], one.labels[::-1].tolist()) for one in shuffled]
    assert json.dumps(recall_figures("x", of(shuffled, found), CATEGORIES)) == json.dumps(expected)
    assert json.dumps(recall_figures("x", of(reversed_objects, found), CATEGORIES)) == json.dumps(expected)


def test_proposals_equal_to_the_objects_have_recall_1_under_both_matchings() -> None:
    samples, _ = random_data(50, seed=5, grid=300)
    coverage = of(samples, {one.path: proposals(one.boxes[::-1]) for one in samples})
    for matching in MATCHINGS:
        figures = recall_figures("truth", coverage, CATEGORIES, matching)
        assert set(figures["recall"].values()) == {1.0}
        assert (figures["AR"], figures["AR_coco"], figures["MABO"]) == (1.0, 1.0, 1.0)


def test_objects_of_images_without_proposals_and_of_missing_images_count_as_not_found() -> None:
    box = [0, 0, 10, 10]
    samples = [sample(name, [box], [1]) for name in "abcd"]
    found = {Path("a"): proposals([box]), Path("b"): proposals([])}
    coverage = of(samples, found)
    assert recall(coverage.matched[-1], [0.5]).tolist() == [0.25]
    assert coverage.missing == 2
    assert coverage.boxes_per_image()[-1] == 0.25


def test_difficult_objects_are_neither_counted_nor_matched() -> None:
    # The proposal has a larger IoU with the difficult object, but it is matched to the other object.
    one = sample("a", [[0, 0, 10, 10], [0, 0, 10, 8]], [1, 2], [True, False])
    coverage = measure([one], lambda _: proposals([[0, 0, 10, 10]]))
    assert coverage.matched[-1].tolist() == [0.8]
    assert coverage.labels.tolist() == [2]


def test_images_without_objects_only_affect_the_number_of_boxes_per_image() -> None:
    coverage = of(
        [EXAMPLE[0], sample("empty", [], [])], {**EXAMPLE_PROPOSALS, Path("empty"): proposals([[0, 0, 9, 9]])}
    )
    assert coverage.boxes_per_image()[-1] == 2
    assert len(coverage.labels) == 3


def test_an_overlap_equal_to_the_threshold_is_a_hit_at_every_threshold() -> None:
    # The proposal covers k of the object's 10 rows, so the IoU is k / 10, equal to a threshold.
    for k in range(5, 10):
        coverage = of([sample("a", [[0, 0, 10, 10]], [1])], {Path("a"): proposals([[0, 0, 10, k]])})
        figures = recall_figures("x", coverage, CATEGORIES)
        assert sum(figures["recall"].values()) == k - 4
        assert figures["AR_coco"] == pytest.approx((2 * k - 9) / 10, abs=1e-15)


def test_average_recall_is_the_area_under_the_curve() -> None:
    overlaps = np.random.default_rng(6).random(500)
    steps = 100_000
    thresholds = 0.5 + (np.arange(steps) + 0.5) / (2 * steps)
    at_or_above = 500 - np.searchsorted(np.sort(overlaps), thresholds)
    assert average_recall(overlaps) == pytest.approx((at_or_above / 500).mean(), abs=1e-5)
    assert average_recall(np.array([0.5, 0.2])) == 0
    assert average_recall_coco(np.array([0.5, 0.2])) == 0.05


def test_size_ranges_include_their_lower_bound() -> None:
    boxes = [[0, 0, 32, 31], [0, 0, 32, 32], [0, 0, 96, 95], [0, 0, 96, 96]]
    figures = recall_figures("x", measure([sample("a", boxes, [1] * 4)], lambda _: None), CATEGORIES)
    assert [part["objects"] for part in figures["sizes"].values()] == [1, 2, 1]


def test_the_measures_of_a_size_without_objects_are_none() -> None:
    figures = recall_figures("x", measure([sample("a", [[0, 0, 5, 5]], [1])], lambda _: None), CATEGORIES)
    assert figures["sizes"]["large"]["AR"] is None
    assert figures["sizes"]["large"]["recall"]["0.5"] is None
    json.dumps(figures, allow_nan=False)


def test_mabo_gives_every_class_the_same_weight() -> None:
    closest = np.array([1.0, 1.0, 1.0, 0.0])
    assert average_best_overlap(closest, [1, 1, 1, 4]) == {1: 1.0, 4: 0.0}
    assert mean_average_best_overlap(closest, [1, 1, 1, 4]) == 0.5


def test_measures_without_objects_are_nan() -> None:
    nothing = np.empty(0)
    assert np.isnan(recall(nothing, [0.5, 0.7])).all()
    assert all(math.isnan(value) for value in (average_recall(nothing), average_recall_coco(nothing)))


def test_a_data_set_without_objects_is_an_error() -> None:
    with pytest.raises(RecallError, match="no objects in 1 images"):
        measure([sample("a", [], [])], lambda _: None)


@pytest.mark.parametrize("counts", [[0, 1], [3, 3], [10, 1]])
def test_counts_must_rise(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="rising"):
        measure(EXAMPLE, lambda _: None, counts)
