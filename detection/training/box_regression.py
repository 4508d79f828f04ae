"""Fitting the box regression of a trained detector."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ...data.dataset import Dataset
from ...data.images import read_image
from ...data.prefetch import prefetch
from ..backbones import Backbone
from ..engine import Engine
from ..model_files import RegionSettings
from ..regression import NEAR_IOU, BoxRegressor, fit_box_regressor
from ..warp import warp_regions
from .windows import Windows, label_windows

# Regions that the regression is fitted on. 1,000 features need no more, and the network has to see each.
_PER_CLASS = 2000
_IN_ALL = 30_000
_PICTURES_AHEAD = 8


def train_box_regressor(
    network: Backbone,
    dataset: Dataset,
    windows: Windows,
    regions: RegionSettings,
    classes: int,
    folder: Path,
    *,
    seed: int,
    device: str = "auto",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> BoxRegressor:
    """Fit a box regression to what `network`, the first member of a detector, sees in the windows near objects.

    Args:
        windows: as `fine_tune` has them, labels turned to network outputs.
        classes: of the detector, the background not counted.
        folder: a regression that was fitted there to the same network and windows is used again.
        seed: which windows are taken where there are very many.
        report: called with the number of windows seen and in all.
    """
    chosen, objects = near_windows(dataset, windows, seed)
    digest = hashlib.sha256()
    for array in (chosen.images, chosen.boxes, objects, *(value.numpy() for value in network.state_dict().values())):
        digest.update(np.ascontiguousarray(array).tobytes())
    file = folder / f"box_regression_{digest.hexdigest()[:16]}.safetensors"
    if file.exists():
        return BoxRegressor.load(file)
    engine = Engine(network, device=device)
    features = np.empty((len(chosen), network.out_channels), np.float32)
    done = 0
    for crops in prefetch(_crops(dataset, chosen, regions), _PICTURES_AHEAD):
        features[done : done + len(crops)] = engine.features(crops)
        done += len(crops)
        report(done, len(chosen))
    regressor = fit_box_regressor(features, chosen.boxes, objects, chosen.labels - 1, classes)
    regressor.save(file)
    return BoxRegressor.load(file)  # as rounded, whether it was fitted now or before


def near_windows(dataset: Dataset, windows: Windows, seed: int) -> tuple[Windows, np.ndarray]:
    """The windows that regression learns from, those that overlap an object by `NEAR_IOU` or more, and that object's
    box: float32 [N, 4]. Where a class has very many a random part is taken."""
    objects = np.zeros((len(windows), 4), np.float32)
    near = np.zeros(len(windows), np.bool_)
    for picture in np.unique(windows.images[windows.labels > 0]):
        rows = np.flatnonzero((windows.images == picture) & (windows.labels > 0))
        sample = dataset[int(picture)]
        _, numbers, overlaps = label_windows(windows.boxes[rows], sample)
        objects[rows], near[rows] = sample.boxes[numbers], overlaps >= NEAR_IOU
    rng = np.random.default_rng([seed, 9])
    most = min(_PER_CLASS, _IN_ALL // max(1, len(np.unique(windows.labels[near]))))
    kept = [
        rng.permutation(np.flatnonzero(near & (windows.labels == label)))[:most]
        for label in np.unique(windows.labels[near])
    ]
    index = np.sort(np.concatenate([np.zeros(0, np.int64), *kept]))
    return windows[index], objects[index]


def _crops(dataset: Dataset, windows: Windows, regions: RegionSettings) -> Iterator[np.ndarray]:
    """The windows as a detector sees them, uint8 [n, 224, 224, 3], of one picture after the other."""
    for picture in np.unique(windows.images):
        boxes = windows.boxes[windows.images == picture]
        yield warp_regions(
            read_image(dataset[int(picture)].path), boxes, padding=regions.padding, mode=regions.warp_mode
        )
