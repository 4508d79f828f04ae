"""Box regression: R-CNN's deltas, and fits to samples whose linear map is known."""

import math

import numpy as np
import pytest

from inception_rcnn.data.boxes import iou
from inception_rcnn.detection.regression import BoxRegressor, box_deltas, fit_box_regressor, move_boxes


def random_boxes(rng, count) -> np.ndarray:
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 60, (count, 2))], axis=1).astype(np.float32)


def test_deltas_follow_equations_6_to_9_of_r_cnn():
    px, py, pw, ph = 30, 40, 20, 10  # centre and size of the region P and the object G, in R-CNN's notation
    gx, gy, gw, gh = 35, 38, 40, 5
    (got,) = box_deltas(np.array([[20, 35, 40, 45]], np.float32), np.array([[15, 35.5, 55, 40.5]], np.float32))
    expected = [(gx - px) / pw, (gy - py) / ph, math.log(gw / pw), math.log(gh / ph)]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_moving_by_the_deltas_to_an_object_gives_the_object():
    rng = np.random.default_rng(0)
    boxes, objects = random_boxes(rng, 200), random_boxes(rng, 200)
    np.testing.assert_allclose(move_boxes(boxes, box_deltas(boxes, objects)), objects, atol=1e-3)
    np.testing.assert_allclose(move_boxes(boxes, np.zeros((200, 4))), boxes, atol=1e-5)
    assert move_boxes(boxes[:0], np.zeros((0, 4))).shape == (0, 4)


def samples(rng, count, weights):
    """Samples whose deltas are a linear map `weights` [D, 4] of their features, plus 0.05 and noise."""
    features = rng.normal(size=(count, len(weights))).astype(np.float32)
    boxes = random_boxes(rng, count)
    deltas = features @ weights + 0.05 + rng.normal(size=(count, 4)) * 0.01
    return features, boxes, move_boxes(boxes, deltas)


def mean_overlap(boxes, objects) -> float:
    return float(np.diag(iou(boxes, objects)).mean())


def test_a_class_with_many_samples_learns_its_own_map_and_a_class_without_samples_gets_the_common_map():
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(2, 8, 4)) * 0.05
    parts = [samples(rng, 4000, weights) for weights in maps]
    labels = np.repeat([0, 1], 4000)
    regressor = fit_box_regressor(
        *(np.concatenate(part) for part in zip(*parts, strict=True)), labels, classes=3, penalty=100
    )
    for label, weights in enumerate(maps):
        features, boxes, objects = samples(rng, 500, weights)

        def overlap(as_class, features=features, boxes=boxes, objects=objects):
            return mean_overlap(move_boxes(boxes, regressor.deltas(features, np.full(500, as_class))), objects)

        assert overlap(label) > 0.9
        assert overlap(label) > overlap(2) + 0.02
        assert overlap(label) > overlap(1 - label) + 0.05
        assert overlap(label) > mean_overlap(boxes, objects) + 0.1
    np.testing.assert_allclose(regressor.weights[2], regressor.weights[:2].mean(axis=0), atol=0.02)


def test_a_class_with_one_sample_stays_close_to_the_common_map():
    rng = np.random.default_rng(2)
    features, boxes, objects = samples(rng, 1001, rng.normal(size=(8, 4)) * 0.05)
    labels = np.array([0] * 1000 + [1])
    common = fit_box_regressor(features[:1000], boxes[:1000], objects[:1000], labels[:1000], classes=2, penalty=1000)
    regressor = fit_box_regressor(features, boxes, objects, labels, classes=2, penalty=1000)
    np.testing.assert_allclose(regressor.weights[1], common.weights[1], atol=0.002)


def test_a_constant_feature_gets_weight_0():
    rng = np.random.default_rng(3)
    features, boxes, objects = samples(rng, 300, rng.normal(size=(8, 4)) * 0.05)
    features[:, 3] = 0
    regressor = fit_box_regressor(features, boxes, objects, np.zeros(300, np.int64), classes=1, penalty=100)
    assert np.isfinite(regressor.weights).all()
    assert (regressor.weights[0, 4] == 0).all()


def test_regions_move_for_each_probable_class_and_are_clipped_to_the_picture():
    weights = np.zeros((2, 3, 4), np.float32)
    weights[0, 0] = [0.2, 0, 0, 0]  # class 0 moves every region to the right by a fifth of its width
    weights[1, 1] = [0, 0, 0.3, 0]  # class 1 widens a region by the first feature
    boxes = np.array([[10, 10, 20, 30], [7, 7, 9, 9], [85, 10, 95, 30], [10, 10, 20, 30]], np.float32)
    likely, hardly = [0.2, 0.5, 0.3], [0.99, 0.009, 0.001]
    probabilities = np.array([likely, likely, likely, hardly], np.float32)
    features = np.array([[1, 0], [0, 0], [1, 0]], np.float32)
    moved = BoxRegressor(weights).regress(boxes, probabilities, features, np.array([0, 2, 3]), 96, 100)
    half = 5 * math.exp(0.3)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved[0], [[12, 10, 22, 30], [15 - half, 10, 15 + half, 30]], rtol=1e-6)
    np.testing.assert_array_equal(moved[1], boxes[[1, 1]])  # its features are not given
    np.testing.assert_allclose(moved[2], [[87, 10, 96, 30], boxes[2]], rtol=1e-6)
    np.testing.assert_array_equal(moved[3], boxes[[3, 3]])


def test_a_region_whose_predicted_box_lies_outside_the_picture_keeps_its_box():
    weights = np.zeros((1, 2, 4), np.float32)
    weights[0, 0] = [9, 0, 0, 0]
    boxes = np.array([[96, 0, 100, 50]], np.float32)
    probabilities, features = np.array([[0, 1]], np.float32), np.zeros((1, 1), np.float32)
    moved = BoxRegressor(weights).regress(boxes, probabilities, features, np.array([0]), 98, 50)
    np.testing.assert_array_equal(moved[0], boxes)


@pytest.mark.parametrize("value", [1e6, -1e6])
def test_deltas_are_at_most_one_half(value):
    regressor = BoxRegressor(np.full((1, 2, 4), value, np.float32))
    assert np.abs(regressor.deltas(np.ones((5, 1), np.float32), np.zeros(5, np.int64))).max() == 0.5
