"""Each input of a stored result changes its key."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from torch import nn

from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.data.images import ImageError
from inception_rcnn.detection.model_files import Model, RegionSettings
from inception_rcnn.detection.networks.backbones import headless
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training import box_regression, cascade, finetune, multibox
from inception_rcnn.detection.training.box_regression import regression_key
from inception_rcnn.detection.training.cascade import cascade_key
from inception_rcnn.detection.training.finetune import FineTuneSettings
from inception_rcnn.detection.training.keys import pictures_key, result_key
from inception_rcnn.detection.training.multibox import MultiBoxSettings
from inception_rcnn.detection.training.windows import Windows
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid

pytestmark = pytest.mark.usefixtures("tiny_googlenet")


@pytest.fixture
def pictures(tmp_path: Path) -> Dataset:
    """Two pictures without objects."""
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    samples = []
    for number in range(2):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        samples.append(Sample(str(number), number + 1, tmp_path / f"{number}.png", *nothing))
    return Dataset("two", (Category(1, "n1", "thing"),), samples, lambda sample: sample)


def paint(dataset: Dataset, picture: int) -> None:
    """Changes a pixel of a picture."""
    Image.new("RGB", (8, 8), (0, 0, 77)).save(dataset[picture].path)


def network(change: float = 0.0) -> GoogLeNet:
    torch.manual_seed(0)
    made = GoogLeNet(3, auxiliary=False)
    with torch.no_grad():
        made.trunk.conv2.convolution.bias[0] += change
    return made


def small_multibox(change: float = 0.0, *, side: float = 20.0, sizes: tuple[int, ...] = (64,)) -> MultiBox:
    torch.manual_seed(0)
    made = MultiBox(headless(network()), [PriorGrid(16, 1, ((10.0, side),))], width=8, sizes=sizes)
    with torch.no_grad():
        made.lateral_fine.bias[0] += change
    return made


WINDOWS = Windows(np.array([0, 1], np.int32), np.array([[0, 0, 4, 4], [1, 1, 8, 8]], np.float32), np.array([1, 2]))


def assert_each_change_changes_the_key(key: Callable[..., str], right: dict[str, Any], changes: dict[str, Any]) -> None:
    """Changes one argument of `key` at a time. Equal arguments give equal keys."""
    made = {"nothing": key(**right)}
    assert key(**right) == made["nothing"]
    for name, value in changes.items():
        made[f"{name}: {type(value).__name__}, {len(made)}"] = key(**{**right, name.split(" ")[0]: value})
    assert len(set(made.values())) == len(made), made


def test_the_key_of_a_cascade_depends_on_everything_that_decides_the_threshold(pictures, monkeypatch) -> None:
    model = Model([network(), network()], pictures.categories, multibox=small_multibox())
    with_ranges = network()
    with_ranges.input_ranges = {"trunk.conv2.convolution": 3.0}
    right = {"model": model, "dataset": pictures, "chosen": np.array([1, 0]), "seed": 0}
    changes = {
        "model, member": replace(model, members=[network(0.5), network()]),
        "model, ranges": replace(model, members=[with_ranges, network()]),
        "model, no multibox": replace(model, multibox=None),
        "model, multibox": replace(model, multibox=small_multibox(0.5)),
        "model, priors": replace(model, multibox=small_multibox(side=30.0)),
        "model, sizes": replace(model, multibox=small_multibox(sizes=(96,))),
        "model, regions": replace(model, regions=RegionSettings(min_side=11)),
        "chosen": np.array([0, 1]),
        "chosen, fewer": np.array([1]),
        "seed": 1,
    }
    assert_each_change_changes_the_key(
        cascade_key, right, {name.replace(",", ""): value for name, value in changes.items()}
    )
    before = cascade_key(**right)
    for constant in ("PASSED_SHARE", "REGIONS_PER_PICTURE"):
        with monkeypatch.context() as patch:
            patch.setattr(cascade, constant, 3)
            assert cascade_key(**right) != before
    paint(pictures, 0)
    assert cascade_key(**right) != before


def test_the_key_of_a_box_regression_depends_on_everything_that_decides_the_fit(pictures, monkeypatch) -> None:
    right = {
        "network": network(),
        "dataset": pictures,
        "windows": WINDOWS,
        "objects": WINDOWS.boxes,
        "regions": RegionSettings(),
        "classes": 2,
    }
    changes = {
        "network": network(0.5),
        "windows images": Windows(np.array([0, 0], np.int32), WINDOWS.boxes, WINDOWS.labels),
        "windows boxes": Windows(WINDOWS.images, WINDOWS.boxes + 1, WINDOWS.labels),
        "windows labels": Windows(WINDOWS.images, WINDOWS.boxes, np.array([2, 1])),
        "objects": WINDOWS.boxes + 1,
        "regions padding": RegionSettings(padding=8),
        "regions mode": RegionSettings(warp_mode="square_with_context"),
        "classes": 3,
    }
    assert_each_change_changes_the_key(regression_key, right, changes)
    before = regression_key(**right)
    monkeypatch.setattr(box_regression, "LEAST_GAIN", 0.5)
    assert regression_key(**right) != before
    monkeypatch.undo()
    paint(pictures, 1)
    assert regression_key(**right) != before


def test_the_key_of_frozen_features_depends_on_windows_weights_pictures_and_seed() -> None:
    settings = FineTuneSettings()
    right = {"origin": "a", "pictures": "b", "settings": settings}
    changes = {
        "origin": "c",
        "pictures": "c",
        "settings seed": replace(settings, seed=1),
        "settings block": replace(settings, freeze_below="inception_5a"),
    }
    assert_each_change_changes_the_key(finetune.features_key, right, changes)
    settings = MultiBoxSettings()
    changes = {
        "origin": "c",
        "pictures": "c",
        "settings seed": replace(settings, seed=1),
        "settings views": replace(settings, views=settings.views + 1),
        "settings size": replace(settings, size=settings.size + 32),
        "settings block": replace(settings, freeze_below="inception_5a"),
    }
    assert_each_change_changes_the_key(multibox.features_key, {**right, "settings": settings}, changes)


def test_a_fingerprint_depends_on_windows_warping_and_weights_but_the_new_classifier() -> None:
    other_classifier = network()
    nn.init.ones_(other_classifier.classifier.weight)
    right = {"network": network(), "windows": WINDOWS, "regions": RegionSettings(), "lesson": None}
    assert finetune._fingerprint(**{**right, "network": other_classifier}) == finetune._fingerprint(**right)
    changes = {
        "network": network(0.5),
        "windows images": Windows(np.array([0, 0], np.int32), WINDOWS.boxes, WINDOWS.labels),
        "windows boxes": Windows(WINDOWS.images, WINDOWS.boxes + 1, WINDOWS.labels),
        "windows labels": Windows(WINDOWS.images, WINDOWS.boxes, np.array([2, 1])),
        "regions padding": RegionSettings(padding=8),
        "regions mode": RegionSettings(warp_mode="square_with_context"),
    }
    assert_each_change_changes_the_key(finetune._fingerprint, right, changes)


def test_keys_tell_types_and_shapes_of_equal_bytes_apart() -> None:
    values = [
        np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32), np.zeros((2, 3), np.int32), None, 0, "0", [0], [],
    ]  # fmt: skip
    assert len({result_key(value=value) for value in values}) == len(values)
    assert result_key(a=1, b=2) == result_key(b=2, a=1) != result_key(a=2, b=1)


def test_keys_depend_on_the_libraries_that_read_pictures(monkeypatch) -> None:
    before = result_key(value=1)
    for library in (cv2, PIL):
        with monkeypatch.context() as patch:
            patch.setattr(library, "__version__", "0.0")
            assert result_key(value=1) != before


def test_a_picture_that_cannot_be_read_is_named(pictures) -> None:
    pictures[1].path.unlink()
    with pytest.raises(ImageError, match=r"1\.png: cannot read the file"):
        pictures_key(pictures, [0, 1])
