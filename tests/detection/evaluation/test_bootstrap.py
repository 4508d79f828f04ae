"""Intervals of AP against sets of pictures that are really put together anew."""

from __future__ import annotations

import numpy as np
import pytest

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.bootstrap import bootstrap, interval
from inception_rcnn.detection.evaluation.coco import evaluate_coco
from inception_rcnn.detection.evaluation.ilsvrc import EvaluationError, evaluate
from inception_rcnn.detection.evaluation.voc import evaluate_voc

PICTURES, LABELS = np.array([3, 5, 8, 9, 11, 20]), (7, 30, 58)
EVALUATE = {
    "ilsvrc": evaluate,
    "voc12": evaluate_voc,
    "voc07": lambda truth, found: evaluate_voc(truth, found, 2007),
}


def random_case(seed: int) -> tuple[GroundTruth, Submission]:
    rng = np.random.default_rng(seed)
    images, labels = rng.choice(PICTURES[:-1], 25), rng.choice(LABELS, 25)
    corners = rng.integers(1, 300, (25, 2))
    boxes = np.concatenate([corners, corners + rng.integers(30, 120, (25, 2))], axis=1)
    rows = rng.integers(0, 25, 60)
    truth = GroundTruth.from_arrays(PICTURES, images, labels, boxes, difficult=rng.random(25) < 0.2)
    found = boxes[rows] + rng.integers(-12, 13, (60, 4))
    return truth, Submission(images[rows], labels[rows], rng.permutation(60) / 60, found.astype(float))


def drawn_again(truth: GroundTruth, found: Submission, pictures: np.ndarray) -> tuple[GroundTruth, Submission]:
    """The set of these pictures, each a picture of its own under a number of its own."""
    objects, rows, object_images, row_images = [], [], [], []
    for number, picture in enumerate(pictures, 1):
        some, others = np.flatnonzero(truth.images == picture), np.flatnonzero(found.image_indices == picture)
        objects, rows = [*objects, *some], [*rows, *others]
        object_images, row_images = object_images + [number] * len(some), row_images + [number] * len(others)
    return (
        GroundTruth.from_arrays(
            range(1, len(pictures) + 1),
            object_images,
            truth.labels[objects],
            truth.inclusive[objects],
            difficult=truth.difficult[objects],
        ),
        Submission(np.array(row_images), found.labels[rows], found.scores[rows], found.inclusive[rows]),
    )


@pytest.mark.parametrize("protocol", EVALUATE)
@pytest.mark.parametrize("seed", range(3))
def test_a_draw_has_the_ap_of_the_set_of_pictures_that_it_drew(protocol: str, seed: int) -> None:
    truth, found = random_case(seed)
    drawn = bootstrap(EVALUATE[protocol](truth, found), resamples=20, seed=4)
    times = np.random.default_rng([4, 0]).multinomial(6, np.full(6, 1 / 6), 20)
    for aps, mean, counts in zip(drawn.aps, drawn.mean, times, strict=True):
        evaluation = EVALUATE[protocol](*drawn_again(truth, found, np.repeat(PICTURES, counts)))
        expected = {one.category.id: one.ap for one in evaluation.classes if one.positives}
        assert dict(zip(drawn.labels[~np.isnan(aps)].tolist(), aps[~np.isnan(aps)], strict=True)) == pytest.approx(
            expected, abs=1e-12
        )
        assert mean == pytest.approx(evaluation.mean_ap(), abs=1e-12)


def test_two_evaluations_get_the_same_draws_and_a_seed_fixes_them() -> None:
    truth, found = random_case(0)
    one, same = (bootstrap(evaluate(truth, found), resamples=50) for _ in range(2))
    np.testing.assert_array_equal(one.aps, same.aps)
    nothing = bootstrap(
        evaluate(truth, Submission(*(array[:0] for array in vars(found).values() if not isinstance(array, int)))), 50
    )
    np.testing.assert_array_equal(np.isnan(nothing.aps), np.isnan(one.aps))  # the same classes are without an object
    assert (bootstrap(evaluate(truth, found), resamples=50, seed=1).aps != one.aps).any()


def test_draws_of_pictures_without_any_object_count_neither_way() -> None:
    box = [[1, 1, 50, 50]]
    truth = GroundTruth.from_arrays(range(4), [0], [7], box)
    drawn = bootstrap(evaluate(truth, Submission(np.array([0]), np.array([7]), np.ones(1), np.array(box, float))), 100)
    assert 0 < np.isnan(drawn.mean).sum() < 100
    assert interval(drawn.mean) == (1, 1)


def test_the_interval_holds_the_middle_and_skips_what_is_undefined() -> None:
    values = np.append(np.arange(101.0), [np.nan] * 7)
    assert interval(values) == pytest.approx((2.5, 97.5))
    assert interval(values, 0.5) == pytest.approx((25, 75))
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_a_class_without_objects_and_a_protocol_without_intervals_are_named() -> None:
    truth, found = random_case(0)
    with pytest.raises(KeyError, match="class 12 has no object"):
        bootstrap(evaluate(truth, found), resamples=2).of(12)
    with pytest.raises(EvaluationError, match="no intervals for the protocol coco; expected one of ilsvrc"):
        bootstrap(evaluate_coco(truth, found))
