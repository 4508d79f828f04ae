"""AP of a resampled set of pictures equals AP of an evaluation of exactly these pictures."""

from __future__ import annotations

import numpy as np
import pytest

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.bootstrap import bootstrap, interval
from inception_rcnn.detection.evaluation.checks import EvaluationError
from inception_rcnn.detection.evaluation.coco import evaluate_coco
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
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


def resampled(truth: GroundTruth, found: Submission, pictures: np.ndarray) -> tuple[GroundTruth, Submission]:
    """The set of these pictures. A picture that occurs twice becomes two pictures with different numbers."""
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
def test_ap_of_a_resampled_set_is_that_of_an_evaluation_of_its_pictures(protocol: str, seed: int) -> None:
    truth, found = random_case(seed)
    drawn = bootstrap(EVALUATE[protocol](truth, found), resamples=20, seed=4)
    times_drawn = np.random.default_rng([4, 0]).multinomial(6, np.full(6, 1 / 6), 20)  # documents which sets are drawn
    for aps, mean, counts in zip(drawn.aps, drawn.mean, times_drawn, strict=True):
        evaluation = EVALUATE[protocol](*resampled(truth, found, np.repeat(PICTURES, counts)))
        expected = {one.category.id: one.ap for one in evaluation.classes if one.positives}
        defined = ~np.isnan(aps)
        got = dict(zip(drawn.labels[defined].tolist(), aps[defined], strict=True))
        assert got == pytest.approx(expected, abs=1e-12)
        assert mean == pytest.approx(evaluation.mean_ap(), abs=1e-12)


def test_the_seed_alone_decides_which_pictures_are_drawn() -> None:
    truth, found = random_case(0)
    first, again = (bootstrap(evaluate(truth, found), resamples=50) for _ in range(2))
    np.testing.assert_array_equal(first.aps, again.aps)
    other_seed = bootstrap(evaluate(truth, found), resamples=50, seed=1)
    assert not np.array_equal(other_seed.aps, first.aps, equal_nan=True)
    no_detections = Submission(np.empty(0, int), np.empty(0, int), np.empty(0), np.empty((0, 4)))
    other_detections = bootstrap(evaluate(truth, no_detections), resamples=50)
    # The same classes have no object in the same sets, so the sets are the same.
    np.testing.assert_array_equal(np.isnan(other_detections.aps), np.isnan(first.aps))


def test_a_set_of_pictures_without_any_object_has_no_ap_and_does_not_count() -> None:
    box = [[1, 1, 50, 50]]
    truth = GroundTruth.from_arrays(range(4), [0], [7], box)
    found = Submission(np.array([0]), np.array([7]), np.ones(1), np.array(box, float))
    drawn = bootstrap(evaluate(truth, found), resamples=2000)
    # Four draws among four pictures leave out the picture with the object with probability (3/4)^4 = 0.316.
    assert np.isnan(drawn.mean).mean() == pytest.approx(0.316, abs=0.03)
    assert interval(drawn.mean) == (1, 1)


def test_the_interval_encloses_the_middle_of_the_values_that_are_defined() -> None:
    values = np.append(np.arange(101.0), [np.nan] * 7)
    assert interval(values) == pytest.approx((2.5, 97.5))
    assert interval(values, 0.5) == pytest.approx((25, 75))
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_a_class_without_objects_and_a_protocol_without_intervals_are_errors_that_name_them() -> None:
    truth, found = random_case(0)
    with pytest.raises(KeyError, match="class 12 has no object"):
        bootstrap(evaluate(truth, found), resamples=2).of(12)
    with pytest.raises(EvaluationError, match="no intervals for the protocol coco; expected one of ilsvrc"):
        bootstrap(evaluate_coco(truth, found))
