"""Fitting the box regression of a trained detector."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from ...data import boxes as box_ops
from ...data.dataset import Dataset
from ...data.images import read_image
from ...runtime.atomic_write import atomic_write
from ...runtime.prefetch import prefetch
from ..engines.engine import Engine
from ..model_files import RegionSettings
from ..networks.backbones import Backbone
from ..regression import NEAR_IOU, BoxRegressor, fit_box_regressor, move_boxes
from ..warping.warp import warp_regions
from .keys import pictures_key, result_key
from .progress import Report, no_report
from .windows import Windows, label_windows

# Largest number of windows of a class, and of all classes. The network scores each window, and the matrix of their
# features has to fit into memory several times.
_PER_CLASS = 2000
MOST_WINDOWS = 16_000
_PICTURES_AHEAD = 8
_CROPS = 64
# Ridge penalties to try, as multiples of the number of samples. Every fifth picture is held out to compare them.
_PENALTIES = (1.0, 3.0, 10.0, 30.0)
_HELD_OUT = 5
# A model gets a regression only if it raises the mean IoU of the held-out windows by this much. A smaller gain is not
# worth the time, and regression on features that do not locate the object does harm.
LEAST_GAIN = 0.01

_logger = logging.getLogger(__name__.split(".")[0])


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
    report: Report = no_report,
) -> BoxRegressor | None:
    """Fit a box regression to the features of the windows near objects.

    Args:
        network: the first member of the detector.
        dataset: the pictures of the windows.
        windows: as for `fine_tune`, with the index of a network output as label.
        regions: how windows are warped.
        classes: number of classes, without background.
        folder: for the fitted regression. If it exists for the same network, windows, objects and pictures, it is
            loaded. A damaged file is replaced with a warning.
        seed: of the random choice of windows, see `near_windows`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with the stage "box regression" and the number of windows done.

    Returns:
        The regression, or None if it does not help, see `fit_if_it_helps`.
    """
    chosen, objects = near_windows(dataset, windows, seed)
    file = folder / f"box_regression_{regression_key(network, dataset, chosen, objects, regions, classes)}.safetensors"
    regressor = _stored_regressor(file, network, classes)
    if regressor is None:
        features = _features(network, dataset, chosen, regions, device, report)
        fitted = fit_if_it_helps(features, chosen, objects, classes)
        without_classes = BoxRegressor(np.zeros((0, 1 + features.shape[1], 4), np.float32))
        with atomic_write(file) as partial:
            (fitted or without_classes).save(partial)
        # Weights are rounded when they are saved. Loading them gives the same weights now and when training is
        # repeated.
        regressor = BoxRegressor.load(file, classes)
    return regressor if len(regressor.weights) else None


def regression_key(
    network: Backbone, dataset: Dataset, windows: Windows, objects: np.ndarray, regions: RegionSettings, classes: int
) -> str:
    """The key of everything that a regression depends on. The arguments are those of `_features` and the fit."""
    return result_key(
        network=network,
        features="moments",
        pictures=pictures_key(dataset, np.unique(windows.images)),
        images=windows.images,
        boxes=windows.boxes,
        labels=windows.labels,
        objects=objects,
        warp=[regions.warp_mode, regions.padding],
        classes=classes,
        fit=[_PENALTIES, _HELD_OUT, LEAST_GAIN],
    )


def _stored_regressor(file: Path, network: Backbone, classes: int) -> BoxRegressor | None:
    """The regression in a file, without classes if none helped; None if there is no file or it is damaged."""
    if not file.exists():
        return None
    try:
        regressor = BoxRegressor.load(file, classes)
        if regressor.weights.shape[1:] == (1 + 5 * network.out_channels, 4):
            return regressor
    except (SafetensorError, KeyError, ValueError):
        pass
    _logger.warning("%s: damaged; the box regression is fitted again", file)
    return None


def fit_if_it_helps(features: np.ndarray, windows: Windows, objects: np.ndarray, classes: int) -> BoxRegressor | None:
    """Fit a regression with the penalty that gives the largest gain in mean IoU on held-out pictures.

    Args:
        features: float32 [N, D], features of the windows.
        windows: labels are network outputs, from 1.
        objects: float32 [N, 4], the object near each window.
        classes: number of classes, without background.

    Returns:
        The regression, fitted to all pictures; None if no penalty gains `LEAST_GAIN` or no pictures can be held out.
    """
    held = windows.images % _HELD_OUT == 0
    if not held.any() or held.all():
        return None
    columns, fitted = windows.labels - 1, ~held
    gains = []
    for penalty in _PENALTIES:
        trial = fit_box_regressor(
            features[fitted],
            windows.boxes[fitted],
            objects[fitted],
            columns[fitted],
            classes,
            penalty * int(fitted.sum()),
        )
        moved = move_boxes(windows.boxes[held], trial.deltas(features[held], columns[held]))
        gain = _paired_iou(moved, objects[held]) - _paired_iou(windows.boxes[held], objects[held])
        gains.append(float(gain.mean()))
    best = int(np.argmax(gains))
    if gains[best] < LEAST_GAIN:
        return None
    return fit_box_regressor(features, windows.boxes, objects, columns, classes, _PENALTIES[best] * len(windows))


def near_windows(dataset: Dataset, windows: Windows, seed: int) -> tuple[Windows, np.ndarray]:
    """Choose the windows that the regression is fitted to: IoU with an object at least `NEAR_IOU`, but below 1.

    If a class has too many such windows, a random part of them is chosen.

    Returns:
        The windows, and the object that each of them overlaps most, float32 [N, 4].
    """
    objects = np.zeros((len(windows), 4), np.float32)
    near = np.zeros(len(windows), np.bool_)
    for picture in np.unique(windows.images[windows.labels > 0]):
        rows = np.flatnonzero((windows.images == picture) & (windows.labels > 0))
        sample = dataset[int(picture)]
        _, numbers, overlaps = label_windows(windows.boxes[rows], sample)
        objects[rows], near[rows] = sample.boxes[numbers], (overlaps >= NEAR_IOU) & (overlaps < 1)
    rng = np.random.default_rng([seed, 9])
    labels, counts = np.unique(windows.labels[near], return_counts=True)
    most = _most_per_class(counts)
    kept = [rng.permutation(np.flatnonzero(near & (windows.labels == label)))[:most] for label in labels]
    index = np.sort(np.concatenate([np.zeros(0, np.int64), *kept]))
    return windows[index], objects[index]


def _most_per_class(counts: np.ndarray) -> int:
    """The largest limit for the windows of a class with which all classes have at most `MOST_WINDOWS` windows.

    Args:
        counts: int64 [classes], windows of each class.
    """
    limits = np.arange(_PER_CLASS, 0, -1)
    sums = np.minimum(counts[:, None], limits).sum(axis=0)
    return int(limits[np.argmax(sums <= MOST_WINDOWS)])


def _features(
    network: Backbone,
    dataset: Dataset,
    windows: Windows,
    regions: RegionSettings,
    device: str,
    report: Report,
) -> np.ndarray:
    """The features of the windows and their moments: float32 [N, D]."""
    engine = Engine(network, device=device, moments=True)
    features = np.empty((len(windows), engine.num_features), np.float32)
    done = 0
    for crops in _joined(prefetch(_crops(dataset, windows, regions), _PICTURES_AHEAD)):
        features[done : done + len(crops)] = engine.features(crops)
        done += len(crops)
        report("box regression", done, len(windows), {})
    return features


def _joined(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Join the crops of several pictures to at least `_CROPS`: a network takes as long for a few as for a batch."""
    waiting: list[np.ndarray] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= _CROPS:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _crops(dataset: Dataset, windows: Windows, regions: RegionSettings) -> Iterator[np.ndarray]:
    """Yield the crops of each picture's windows, undistorted as in a detector: uint8 [n, 224, 224, 3]."""
    for picture in np.unique(windows.images):
        boxes = windows.boxes[windows.images == picture]
        yield warp_regions(
            read_image(dataset[int(picture)].path), boxes, padding=regions.padding, mode=regions.warp_mode
        )


def _paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of each row of `a` with the same row of `b`: [N, 4] and [N, 4] -> [N]."""
    common = box_ops.area(np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1))
    return common / (box_ops.area(a) + box_ops.area(b) - common)
