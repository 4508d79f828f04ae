"""Fitting the box regression of a trained detector."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from ...data import boxes as box_ops
from ...data.dataset import Dataset
from ...data.images import read_image
from ...runtime.prefetch import prefetch
from ..engines.engine import Engine
from ..model_files import RegionSettings
from ..networks.backbones import Backbone
from ..regression import NEAR_IOU, BoxRegressor, fit_box_regressor, move_boxes
from ..warping.warp import warp_regions
from .windows import Windows, label_windows

# Regions that the regression is fitted on: the network has to see each, and their number times that of the features
# has to fit into memory several times over.
_PER_CLASS = 2000
_IN_ALL = 16_000
_PICTURES_AHEAD = 8
_CROPS = 64
# Penalties of the ridge, as multiples of the number of samples, that are tried on pictures held out, one in so many,
# and the least gain in mean IoU there for which a model gets a regression at all: less is not worth its cost, and
# regression on features that say little of where the object is does harm..
_PENALTIES = (1.0, 3.0, 10.0, 30.0)
_HELD_OUT = 5
LEAST_GAIN = 0.01


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
) -> BoxRegressor | None:
    """Fit a box regression to what `network`, the first member of a detector, sees in the windows near objects.

    Args:
        windows: as `fine_tune` has them, labels turned to network outputs.
        classes: of the detector, the background not counted.
        folder: a regression that was fitted there to the same network and windows is used again.
        seed: which windows are taken where there are very many.
        report: called with the number of windows seen and in all.

    Returns:
        The regression, or None where it does not help, see `fit_if_it_helps`.
    """
    chosen, objects = near_windows(dataset, windows, seed)
    digest = hashlib.sha256(b"moments")  # of the form of the file
    for array in (chosen.images, chosen.boxes, objects, *(value.numpy() for value in network.state_dict().values())):
        digest.update(np.ascontiguousarray(array).tobytes())
    file = folder / f"box_regression_{digest.hexdigest()[:16]}.safetensors"
    if not file.exists():
        features = _features(network, dataset, chosen, regions, device, report)
        fitted = fit_if_it_helps(features, chosen, objects, classes)
        nothing = BoxRegressor(np.zeros((0, 1 + features.shape[1], 4), np.float32))
        partial = file.with_name(file.name + ".partial")
        (fitted or nothing).save(partial)
        partial.replace(file)
    regressor = BoxRegressor.load(file)  # as rounded, whether it was fitted now or before
    return regressor if len(regressor.weights) else None


def fit_if_it_helps(features: np.ndarray, windows: Windows, objects: np.ndarray, classes: int) -> BoxRegressor | None:
    """A regression fitted with the penalty that is best on held-out pictures; None where none gains `LEAST_GAIN` there.

    Args:
        features: float32 [N, D], what the network sees in the windows.
        windows: labels are network outputs, from 1.
        objects: float32 [N, 4], the object near each window.
        classes: number of classes.
    """
    held = windows.images % _HELD_OUT == 0
    if not held.any() or held.all():
        return None
    columns, some = windows.labels - 1, ~held
    gains = []
    for penalty in _PENALTIES:
        trial = fit_box_regressor(
            features[some], windows.boxes[some], objects[some], columns[some], classes, penalty * int(some.sum())
        )
        moved = move_boxes(windows.boxes[held], trial.deltas(features[held], columns[held]))
        gain = _overlaps(moved, objects[held]) - _overlaps(windows.boxes[held], objects[held])
        gains.append(float(gain.mean()))
    best = int(np.argmax(gains))
    if gains[best] < LEAST_GAIN:
        return None
    return fit_box_regressor(features, windows.boxes, objects, columns, classes, _PENALTIES[best] * len(windows))


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of each row of `a` with that row of `b`: [N, 4] and [N, 4] -> [N]."""
    common = box_ops.area(np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1))
    return common / (box_ops.area(a) + box_ops.area(b) - common)


def _features(
    network: Backbone,
    dataset: Dataset,
    windows: Windows,
    regions: RegionSettings,
    device: str,
    report: Callable[[int, int], None],
) -> np.ndarray:
    """What the network sees in the windows, and where: float32 [N, D]."""
    engine = Engine(network, device=device, moments=True)
    features = np.empty((len(windows), engine.num_features), np.float32)
    done = 0
    for crops in _together(prefetch(_crops(dataset, windows, regions), _PICTURES_AHEAD)):
        features[done : done + len(crops)] = engine.features(crops)
        done += len(crops)
        report(done, len(windows))
    return features


def _together(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Crops of several pictures at a time, `_CROPS` and more: a network takes as long for a few as for its batch."""
    waiting: list[np.ndarray] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= _CROPS:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def near_windows(dataset: Dataset, windows: Windows, seed: int) -> tuple[Windows, np.ndarray]:
    """The windows that regression learns from, those that overlap an object by `NEAR_IOU` or more without being its
    box, and that box: float32 [N, 4]. Where a class has very many a random part is taken."""
    objects = np.zeros((len(windows), 4), np.float32)
    near = np.zeros(len(windows), np.bool_)
    for picture in np.unique(windows.images[windows.labels > 0]):
        rows = np.flatnonzero((windows.images == picture) & (windows.labels > 0))
        sample = dataset[int(picture)]
        _, numbers, overlaps = label_windows(windows.boxes[rows], sample)
        objects[rows], near[rows] = sample.boxes[numbers], (overlaps >= NEAR_IOU) & (overlaps < 1)
    rng = np.random.default_rng([seed, 9])
    numbers, counts = np.unique(windows.labels[near], return_counts=True)
    most = _most_of_a_class(counts)
    kept = [rng.permutation(np.flatnonzero(near & (windows.labels == label)))[:most] for label in numbers]
    index = np.sort(np.concatenate([np.zeros(0, np.int64), *kept]))
    return windows[index], objects[index]


def _most_of_a_class(counts: np.ndarray) -> int:
    """How many windows of each class may be taken at most so that there are no more than `_IN_ALL`: int64 [classes]."""
    possible = np.arange(_PER_CLASS, 0, -1)
    sums = np.minimum(counts[:, None], possible).sum(axis=0)
    return int(possible[np.argmax(sums <= _IN_ALL)])


def _crops(dataset: Dataset, windows: Windows, regions: RegionSettings) -> Iterator[np.ndarray]:
    """The windows as a detector sees them, uint8 [n, 224, 224, 3], of one picture after the other."""
    for picture in np.unique(windows.images):
        boxes = windows.boxes[windows.images == picture]
        yield warp_regions(
            read_image(dataset[int(picture)].path), boxes, padding=regions.padding, mode=regions.warp_mode
        )
