from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.boxes import iou
from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.regression import BoxRegressor, box_deltas, move_boxes
from inception_rcnn.detection.training import box_regression
from inception_rcnn.detection.training.box_regression import fit_if_it_helps, near_windows
from inception_rcnn.detection.training.windows import Windows


def scene(count: int):
    """Pictures with two objects each, and windows around the objects."""
    objects = np.array([[10, 10, 50, 50], [60, 60, 90, 100]], np.float32)
    samples = [
        Sample(str(n), n + 1, Path(f"{n}.jpg"), objects, np.array([1, 2]), np.zeros(2, bool)) for n in range(count)
    ]
    rng = np.random.default_rng(0)
    boxes = np.concatenate([objects, *(objects + rng.normal(size=(2, 4)) * 8 for _ in range(20))] * count)
    labels = np.tile([1, 2], 21 * count)
    labels[4::10] = 0
    images = np.repeat(np.arange(count, dtype=np.int32), 42)
    return Dataset("two", [Category(1, "a", "a"), Category(2, "b", "b")], samples, lambda s: s), Windows(
        images, boxes.astype(np.float32), labels
    )


def test_all_windows_near_an_object_are_chosen():
    dataset, windows = scene(3)
    near, objects = near_windows(dataset, windows, seed=0)
    overlaps = np.diag(iou(near.boxes, objects))
    assert overlaps.min() >= 0.6
    best = iou(windows.boxes, dataset[0].boxes).max(axis=1)
    assert len(near) == ((best >= 0.6) & (best < 1) & (windows.labels > 0)).sum() > 20
    assert len(np.unique(objects, axis=0)) == 2


def test_the_seed_decides_which_windows_of_a_large_class_are_chosen(monkeypatch):
    monkeypatch.setattr(box_regression, "_PER_CLASS", 10)
    dataset, windows = scene(6)
    near, _ = near_windows(dataset, windows, seed=0)
    assert np.bincount(near.labels).tolist() == [0, 10, 10]
    assert (np.diff(near.images) >= 0).all()
    np.testing.assert_array_equal(near.boxes, near_windows(dataset, windows, seed=0)[0].boxes)
    assert not np.array_equal(near.boxes, near_windows(dataset, windows, seed=1)[0].boxes)


def test_without_positive_windows_none_are_chosen():
    dataset, windows = scene(1)
    near, objects = near_windows(dataset, windows[windows.labels == 0], seed=0)
    assert len(near) == 0
    assert objects.shape == (0, 4)


def test_only_features_that_locate_the_object_give_a_regression():
    dataset, windows = scene(60)
    near, objects = near_windows(dataset, windows, seed=0)
    rng = np.random.default_rng(0)
    telling = np.concatenate([box_deltas(near.boxes, objects), rng.normal(size=(len(near), 3))], axis=1)
    regressor = fit_if_it_helps(telling.astype(np.float32), near, objects, classes=2)
    moved = move_boxes(near.boxes, regressor.deltas(telling.astype(np.float32), near.labels - 1))
    before, after = (np.diag(iou(boxes, objects)).mean() for boxes in (near.boxes, moved))
    assert after > before + 0.1
    noise = rng.normal(size=(len(near), 200)).astype(np.float32)
    assert fit_if_it_helps(noise, near, objects, classes=2) is None


def test_too_few_pictures_to_hold_some_out_give_no_regression():
    dataset, windows = scene(1)
    near, objects = near_windows(dataset, windows, seed=0)
    assert fit_if_it_helps(np.ones((len(near), 3), np.float32), near, objects, classes=2) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: BoxRegressor(np.ones((2, 322, 4), np.float32)).save(file),
        lambda file: BoxRegressor(np.ones((1, 321, 4), np.float32)).save(file),
        lambda file: BoxRegressor(np.full((2, 321, 4), np.nan, np.float32)).save(file),
    ],
    ids=["empty", "cut", "other features", "other classes", "NaN"],
)
def test_a_damaged_regression_is_fitted_again_with_a_warning(damage, tiny_googlenet, tmp_path, caplog):
    network, file = GoogLeNet(3, auxiliary=False), tmp_path / "box_regression_1.safetensors"
    assert box_regression._stored_regressor(file, network, 2) is None
    assert not caplog.records
    for count in (0, 2):
        BoxRegressor(np.ones((count, 1 + 5 * 64, 4), np.float32)).save(file)
        assert len(box_regression._stored_regressor(file, network, 2).weights) == count
    damage(file)
    assert box_regression._stored_regressor(file, network, 2) is None
    assert f"{file}: damaged" in caplog.text
