"""Class-specific box regression: predicts the box of an object from the features of a region near it.

The method is R-CNN's (Girshick et al., CVPR 2014, appendix C). R-CNN regresses from AlexNet's pool5 map. Here the
features are the spatial moments of GoogLeNet's last feature map (`Engine(moments=True)`), because channel means alone
do not tell where in the region the object lies. Measured on 7,000 windows near objects of six classes of the training
pictures. The mean IoU is over the 1,461 windows of held-out pictures; before regression it was 0.737:

    features                                                              mean IoU after regression
    channel means                                                         0.744
    channel means, and means weighted by x and y                          0.757
    channel means, and means weighted by x, y, x^2 and y^2 (used here)    0.760
    channel means over 3 x 3 cells                                        0.761

The paper's detector has no box regression, "due to lack of time" (Szegedy et al. 2015, section 8).

R-CNN fits a separate ridge regression for each class. With few samples, a separate regression makes boxes worse. Here a
common regression is fitted to the samples of all classes first. Then a regression for each class is fitted to the
residuals of the common regression. A class with many samples gets in effect its own regression. A class with few
samples stays close to the common regression, and a class without samples gets exactly the common regression.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ..data.boxes import clip

# A region is a training sample if its IoU with an object is at least this (R-CNN, appendix C). Regions farther from an
# object would need another linear map.
NEAR_IOU = 0.6
# Boxes are regressed only for classes with at least this probability. `Detector` drops detections with a smaller score
# by default, and regions with a smaller probability have almost no weight in box voting.
LEAST_PROBABILITY = 0.01
# Largest absolute delta. Regions with an IoU of NEAR_IOU never need a larger delta, and the linear map is unreliable
# outside the range of its training samples.
_LIMIT = 0.5


@dataclass(frozen=True, eq=False)
class BoxRegressor:
    """A linear map from the features of a region to box deltas, for each class.

    Attributes:
        weights: float32 [classes, 1 + D, 4]. Row 0 is the intercept. Class c is the network's output c + 1.
    """

    weights: np.ndarray

    def save(self, file: Path) -> None:
        """Write the weights in float16. The weights of each feature are scaled to at most 1, so that none overflows.

        Classes without samples have equal maps. The file holds each map once, and the map of each class.
        """
        scale = np.abs(self.weights).max(axis=(0, 2), initial=0)  # [1 + D]
        scale[scale == 0] = 1
        rounded = (self.weights / scale[:, None]).astype(np.float16)
        first: dict[bytes, int] = {}
        map_of_class = np.array([first.setdefault(row.tobytes(), len(first)) for row in rounded], np.int32)
        _, classes = np.unique(map_of_class, return_index=True)
        save_file({"weights": rounded[classes], "map_of_class": map_of_class, "scale": scale}, file)

    @classmethod
    def load(cls, file: Path, classes: int) -> "BoxRegressor":
        """Load weights that `save` wrote.

        Args:
            file: the file.
            classes: the number of classes that the regression must have. A file without classes is right too.

        Raises:
            FileNotFoundError: the file does not exist.
            SafetensorError: the file is damaged.
            KeyError: the file holds other tensors.
            ValueError: the tensors have other shapes or types, the number of classes is another, or weights are not
                finite.
        """
        stored = load_file(file)
        weights, scale = stored["weights"], stored["scale"]
        map_of_class = stored.get("map_of_class", np.arange(len(weights), dtype=np.int32))  # missing in older files
        if weights.ndim != 3 or weights.shape[2] != 4 or scale.shape != weights.shape[1:2]:
            raise ValueError(
                f"weights {list(weights.shape)} and scale {list(scale.shape)}, expected [classes, 1 + D, 4] and [1 + D]"
            )
        if weights.dtype.kind != "f" or scale.dtype.kind != "f":
            raise ValueError(f"weights are {weights.dtype} and scales {scale.dtype}, expected floating-point numbers")
        if map_of_class.ndim != 1 or map_of_class.dtype.kind != "i":
            raise ValueError(f"map_of_class is {map_of_class.dtype} {list(map_of_class.shape)}, expected int [classes]")
        # Checked before the maps are copied for each class: a small file must not fill the memory.
        if len(map_of_class) not in (0, classes):
            raise ValueError(f"the regression has {len(map_of_class)} classes, expected {classes}")
        if len(map_of_class) and not 0 <= map_of_class.min() <= map_of_class.max() < len(weights):
            raise ValueError(f"map_of_class refers to other maps than the {len(weights)} in the file")
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (weights.astype(np.float32) * scale[:, None]).astype(np.float32)
        if not np.isfinite(scaled).all():
            raise ValueError("a weight is NaN or infinite")
        return cls(scaled[map_of_class])

    def deltas(self, features: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Predict the deltas from regions to objects, as `box_deltas` defines them.

        Args:
            features: float32 [N, D], features of the first member of the ensemble, from `Engine(moments=True)`.
            classes: int64 [N], the class whose map is applied to each region, 0-based.

        Returns:
            float32 [N, 4], each clipped to -0.5..0.5.
        """
        moved = np.empty((len(classes), 4), np.float32)
        for number in np.unique(classes):
            rows = np.flatnonzero(classes == number)
            moved[rows] = self.weights[number, 0] + features[rows] @ self.weights[number, 1:]
        return np.clip(moved, -_LIMIT, _LIMIT)

    def regress(
        self,
        boxes: np.ndarray,
        probabilities: np.ndarray,
        features: np.ndarray,
        kept: np.ndarray,
        width: int,
        height: int,
    ) -> np.ndarray:
        """Predict the box of each region for each class.

        A region without features keeps its box. A region also keeps its box for classes with a probability below
        `LEAST_PROBABILITY`, and for classes whose predicted box is less than one pixel wide or high inside
        the picture.

        Args:
            boxes: float32 [N, 4], the regions.
            probabilities: float32 [N, 1 + classes]; column 0 is the background.
            features: float32 [R, D], the features of R of the N regions, see `deltas`.
            kept: int64 [R], the rows of these R regions in `boxes`.
            width, height: size of the picture in pixels; predicted boxes are clipped to it.

        Returns:
            float32 [N, classes, 4].
        """
        rows, classes = np.nonzero(probabilities[kept, 1:] >= LEAST_PROBABILITY)
        regions = kept[rows]
        moved = clip(move_boxes(boxes[regions], self.deltas(features[rows], classes)), width, height)
        stays = np.min(moved[:, 2:] - moved[:, :2], axis=1) < 1  # less than one pixel wide or high inside the picture
        by_class = np.repeat(boxes[:, None], len(self.weights), axis=1)
        by_class[regions, classes] = np.where(stays[:, None], boxes[regions], moved)
        return by_class


def box_deltas(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Deltas from regions to objects (R-CNN, equations 6 to 9), the inverse of `move_boxes`.

    Args:
        boxes: float32 [N, 4], the regions, with positive area.
        objects: float32 [N, 4], the boxes of the objects, with positive area.

    Returns:
        float32 [N, 4], (dx, dy, dw, dh): the shift of the centre divided by the region's width and height, and the
        logarithms of object width / region width and object height / region height.
    """
    sizes, object_sizes = boxes[:, 2:] - boxes[:, :2], objects[:, 2:] - objects[:, :2]
    shifts = (objects[:, :2] + objects[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    return np.concatenate([shifts / sizes, np.log(object_sizes / sizes)], axis=1)


def move_boxes(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Apply deltas to regions (R-CNN, equations 1 to 4): boxes [N, 4] and deltas [N, 4] -> float32 [N, 4]."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + deltas[:, :2] * sizes
    half = sizes * np.exp(deltas[:, 2:]) / 2
    return np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)


def fit_box_regressor(
    features: np.ndarray, boxes: np.ndarray, objects: np.ndarray, labels: np.ndarray, classes: int, penalty: float
) -> BoxRegressor:
    """Fit a ridge regression to all samples, then one for each class to the residuals.

    Args:
        features: float32 [N, D], features of the regions, N >= 1.
        boxes: float32 [N, 4], the regions.
        objects: float32 [N, 4], for each region the object with the largest IoU, which is at least `NEAR_IOU`.
        labels: int64 [N], the class of each object, 0-based.
        classes: number of classes. A class without samples gets the common regression.
        penalty: weight of the squared weights in the loss. Features are scaled to variance 1, so a penalty of P counts
            as much as P samples.
    """
    targets = box_deltas(boxes, objects)
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale += 1e-3 * max(float(scale.max()), 1e-6)  # do not amplify channels that are almost never active
    inputs = np.ones((len(features), 1 + features.shape[1]), np.float32)
    inputs[:, 1:] = (features - mean.astype(np.float32)) / scale.astype(np.float32)
    common = _ridge(inputs, targets, penalty)
    residuals = targets - inputs @ common
    weights = np.repeat(common[None].astype(np.float64), classes, axis=0)  # [classes, 1 + D, 4]
    for label in np.unique(labels):
        rows = labels == label
        weights[label] += _ridge(inputs[rows], residuals[rows], penalty)
    weights[:, 1:] /= scale[:, None]
    weights[:, 0] -= mean @ weights[:, 1:]
    return BoxRegressor(weights.astype(np.float32))


def _ridge(inputs: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """The W that minimises |inputs W - targets|^2 + penalty |W|^2, from the smaller of the two Gram matrices."""
    samples, columns = inputs.shape
    if samples < columns:
        gram = inputs @ inputs.T + penalty * np.eye(samples, dtype=inputs.dtype)
        return inputs.T @ np.linalg.solve(gram, targets.astype(inputs.dtype))
    gram = inputs.T @ inputs + penalty * np.eye(columns, dtype=inputs.dtype)
    return np.linalg.solve(gram, inputs.T @ targets.astype(inputs.dtype))
