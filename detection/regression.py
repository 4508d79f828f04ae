"""Class-specific box regression: from what the network sees in a region, where the object's box is.

R-CNN's (Girshick et al., CVPR 2014, appendix C), with the moments of GoogLeNet's last map in place of AlexNet's pool5:
the pooled features alone do not say where in the region the object is. On 7,000 windows near objects of six classes of
the training pictures, of which 1,461 were on pictures held out, the mean IoU of 0.737 became 0.744 at best with pooled
features, 0.757 with means weighted by x and y added, 0.760 with x^2 and y^2 too (`Engine(moments=True)`), and 0.761
with means over 3 x 3 cells. The paper's entry went without regression "due to lack of time" (Szegedy et al. 2015,
section 8).

For every class R-CNN fits a ridge regression of its own, which few samples make worse than none. Here one regression is
fitted on the samples of all classes, and each class then fits what that one leaves: with many samples this comes to a
regression of its own, with few to the common one, with a class never seen to the common one exactly.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ..data.boxes import clip

# Regression learns from regions that lie near an object (R-CNN, appendix C); the line from those far off is another.
NEAR_IOU = 0.6
# Classes less probable than this are not shown, and their weight in a vote is next to nothing.
LEAST_PROBABILITY = 0.01
# No region is moved by more than half its size, or its sides' logarithm by more than this: regions of NEAR_IOU never
# need more, and a linear map knows nothing beyond what it was fitted on.
_LIMIT = 0.5


@dataclass(frozen=True, eq=False)
class BoxRegressor:
    """A linear map from features to moved boxes, for each class.

    Attributes:
        weights: float32 [classes, 1 + D, 4], row 0 the intercept; class c belongs to the network's output c + 1.
    """

    weights: np.ndarray

    def save(self, file: Path) -> None:
        """Write the weights, rounded to float16 of the largest of each feature, which may be of any size."""
        scale = np.abs(self.weights).max(axis=(0, 2), initial=0)  # [1 + D]
        scale[scale == 0] = 1
        save_file({"weights": (self.weights / scale[:, None]).astype(np.float16), "scale": scale}, file)

    @classmethod
    def load(cls, file: Path) -> "BoxRegressor":
        """What `save` wrote.

        Raises:
            FileNotFoundError, SafetensorError, KeyError: it is not there, damaged, or another file.
        """
        stored = load_file(file)
        return cls(stored["weights"].astype(np.float32) * stored["scale"][:, None])

    def deltas(self, features: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """How regions are to be moved, in `box_deltas`' terms.

        Args:
            features: float32 [N, D], features of the first member of the ensemble, from `Engine(moments=True)`.
            classes: int64 [N], for which class each region is meant, from 0.

        Returns:
            float32 [N, 4], within -0.5..0.5.
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
        seen: np.ndarray,
        width: int,
        height: int,
    ) -> np.ndarray:
        """The box of each region as each class would have it.

        Only regions that are `seen`, and where a class has at least `LEAST_PROBABILITY`; elsewhere a region stays as it
        is.

        Args:
            boxes: float32 [N, 4].
            probabilities: float32 [N, 1 + classes], column 0 the background.
            features: float32 [R, D], as for `deltas`, of some of the regions.
            seen: int64 [R], which these are.
            width, height: of the picture; boxes are clipped to it.

        Returns:
            float32 [N, classes, 4].
        """
        rows, classes = np.nonzero(probabilities[seen, 1:] >= LEAST_PROBABILITY)
        regions = seen[rows]
        moved = clip(move_boxes(boxes[regions], self.deltas(features[rows], classes)), width, height)
        stays = np.min(moved[:, 2:] - moved[:, :2], axis=1) < 1  # nothing of it is left in the picture
        by_class = np.repeat(boxes[:, None], len(self.weights), axis=1)
        by_class[regions, classes] = np.where(stays[:, None], boxes[regions], moved)
        return by_class


def box_deltas(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """What takes regions to objects (R-CNN, equations 6 to 9); the inverse of `move_boxes`.

    Args:
        boxes, objects: float32 [N, 4], of positive area.

    Returns:
        float32 [N, 4]: the shift of the centre in widths and heights of the region, and the logarithm of the growth of
        width and height.
    """
    sizes, object_sizes = boxes[:, 2:] - boxes[:, :2], objects[:, 2:] - objects[:, :2]
    shifts = (objects[:, :2] + objects[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    return np.concatenate([shifts / sizes, np.log(object_sizes / sizes)], axis=1)


def move_boxes(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Regions moved (R-CNN, equations 1 to 4): boxes [N, 4] and deltas [N, 4] -> float32 [N, 4]."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + deltas[:, :2] * sizes
    half = sizes * np.exp(deltas[:, 2:]) / 2
    return np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)


def fit_box_regressor(
    features: np.ndarray, boxes: np.ndarray, objects: np.ndarray, labels: np.ndarray, classes: int, penalty: float
) -> BoxRegressor:
    """Least squares with a ridge, first over all classes, then for each on what is left.

    Args:
        features: float32 [N, D], of regions, N >= 1.
        boxes: float32 [N, 4], the regions.
        objects: float32 [N, 4], the object that each overlaps most, by `NEAR_IOU` or more.
        labels: int64 [N], its class, from 0.
        classes: number of classes; those without a sample get the common regression.
        penalty: of the ridge, in units of the number of samples that weigh as much; features are scaled to variance 1.
    """
    targets = box_deltas(boxes, objects)
    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale += 1e-3 * max(float(scale.max()), 1e-6)  # channels that are hardly ever active stay quiet
    inputs = np.ones((len(features), 1 + features.shape[1]), np.float32)
    inputs[:, 1:] = (features - mean.astype(np.float32)) / scale.astype(np.float32)
    common = _ridge(inputs, targets, penalty)
    left = targets - inputs @ common
    weights = np.repeat(common[None].astype(np.float64), classes, axis=0)  # [classes, 1 + D, 4]
    for label in np.unique(labels):
        rows = labels == label
        weights[label] += _ridge(inputs[rows], left[rows], penalty)
    weights[:, 1:] /= scale[:, None]
    weights[:, 0] -= mean @ weights[:, 1:]
    return BoxRegressor(weights.astype(np.float32))


def _ridge(inputs: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    """argmin over W of |inputs W - targets|^2 + penalty |W|^2, by whichever normal equations are smaller."""
    samples, columns = inputs.shape
    if samples < columns:
        gram = inputs @ inputs.T + penalty * np.eye(samples, dtype=inputs.dtype)
        return inputs.T @ np.linalg.solve(gram, targets.astype(inputs.dtype))
    gram = inputs.T @ inputs + penalty * np.eye(columns, dtype=inputs.dtype)
    return np.linalg.solve(gram, inputs.T @ targets.astype(inputs.dtype))
