"""Matchings equal those of a simple implementation that handles one detection after the other."""

from __future__ import annotations

import numpy as np
import pytest

from inception_rcnn.detection.evaluation.checks import EvaluationError
from inception_rcnn.detection.evaluation.matching import (
    Pairs,
    match_closest_objects,
    match_free_objects,
    object_thresholds,
    overlapping_pairs,
    picture_class_keys,
)


def test_small_objects_have_lower_thresholds() -> None:
    boxes = np.array([[1, 1, 10, 10], [1, 1, 100, 100], [5, 5, 5, 5]], dtype=np.float64)
    assert object_thresholds(boxes).tolist() == [100 / 400, 0.5, 1 / 121]


def test_keys_are_equal_for_equal_picture_and_class() -> None:
    first, second = picture_class_keys(
        (np.array([7, 7, 9]), np.array([1, 2, 1])), (np.array([9, 7, 9]), np.array([1, 2, 2]))
    )
    assert first[2] == second[0]
    assert first[1] == second[1]
    assert len({*first.tolist(), *second.tolist()}) == 4


def test_pairs_have_equal_keys_and_enough_iou() -> None:
    boxes = np.array([[1, 1, 10, 10], [1, 1, 10, 20], [11, 1, 20, 10]], dtype=np.float64)
    objects = np.array([[1, 1, 10, 10], [1, 1, 10, 10], [1, 1, 10, 16]], dtype=np.float64)
    pairs = overlapping_pairs(boxes, np.array([0, 1, 0]), objects, np.array([0, 1, 0]), 0.5)
    assert pairs.detections.tolist() == [0, 0, 1]
    assert pairs.objects.tolist() == [0, 2, 1]
    assert pairs.ious.tolist() == [1, 100 / 160, 0.5]


def test_a_threshold_can_differ_between_objects() -> None:
    box = np.array([[1, 1, 10, 10]], dtype=np.float64)
    objects = np.array([[1, 1, 10, 12], [1, 1, 10, 12]], dtype=np.float64)  # IoU 100 / 120
    keys = np.zeros(2, np.int64)
    pairs = overlapping_pairs(box, keys[:1], objects, keys, np.array([0.9, 0.8]))
    assert pairs.objects.tolist() == [1]


def test_too_many_boxes_of_a_class_in_a_picture_are_refused_before_they_are_compared() -> None:
    boxes = np.tile([1.0, 1, 10, 10], (100_000, 1))
    keys = np.zeros(len(boxes), np.int64)
    with pytest.raises(EvaluationError, match="100,000 detections to compare with 100,000 objects"):
        overlapping_pairs(boxes, keys, boxes, keys)
    spread = overlapping_pairs(boxes, np.arange(len(boxes)), boxes, np.arange(len(boxes)))
    assert spread.objects.tolist() == list(range(len(boxes)))


def random_pairs(seed: int) -> tuple[Pairs, np.ndarray]:
    """30 detections and 12 objects, with equal IoUs among the pairs; and the ranks of the detections."""
    generator = np.random.default_rng(seed)
    detections, objects = np.nonzero(generator.random((30, 12)) < 0.4)
    return Pairs(detections, objects, generator.integers(1, 6, len(detections)) / 5), generator.permutation(30)


def preferred(pairs: Pairs, detection: int) -> list[int]:
    """The objects of a detection by falling IoU, then by row."""
    rows = np.flatnonzero(pairs.detections == detection)
    return [int(pairs.objects[row]) for row in sorted(rows, key=lambda row: (-pairs.ious[row], pairs.objects[row]))]


@pytest.mark.parametrize("seed", range(20))
def test_from_best_to_worst_each_detection_takes_the_free_object_with_the_largest_iou(seed: int) -> None:
    pairs, ranks = random_pairs(seed)
    expected, taken = np.full(30, -1), set()
    for detection in np.argsort(ranks).tolist():
        free = [number for number in preferred(pairs, detection) if number not in taken]
        if free:
            expected[detection] = free[0]
            taken.add(free[0])
    assert match_free_objects(pairs, ranks, 12).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_from_best_to_worst_each_detection_can_only_take_its_closest_object(seed: int) -> None:
    pairs, ranks = random_pairs(seed)
    difficult = np.random.default_rng(seed).random(12) < 0.3
    expected, expected_ignored, taken = np.full(30, -1), np.zeros(30, bool), set()
    for detection in np.argsort(ranks).tolist():
        closest = next(iter(preferred(pairs, detection)), None)
        if closest is not None and difficult[closest]:
            expected_ignored[detection] = True
        elif closest is not None and closest not in taken:
            expected[detection] = closest
            taken.add(closest)
    matched, ignored = match_closest_objects(pairs, ranks, difficult)
    assert matched.tolist() == expected.tolist()
    assert ignored.tolist() == expected_ignored.tolist()
