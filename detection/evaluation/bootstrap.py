"""Confidence intervals of AP, from resampling the pictures with replacement (the bootstrap: Efron, 1979).

    resampled = bootstrap(evaluation)
    interval(resampled.mean), interval(resampled.aps[:, 0])

The pictures of an evaluation are a random sample. The spread of AP over resampled sets estimates how much AP would
differ on another sample. Detections are matched within each picture, so the matching need not be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .average_precision import area_under_envelope, eleven_point_ap, precision_recall
from .checks import EvaluationError
from .result import Evaluation

_AVERAGE_PRECISION = {"ilsvrc": area_under_envelope, "voc12": area_under_envelope, "voc07": eleven_point_ap}


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """AP of the classes in resampled sets of pictures.

    Attributes:
        labels: int64 [K], the ids of the classes that have an object to find, rising.
        aps: float64 [resamples, K]; NaN if a class has no object in the resampled pictures.
    """

    labels: npt.NDArray[np.int64]
    aps: npt.NDArray[np.float64]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean AP over the classes that have an object in the resampled pictures, float64 [resamples]; NaN if none."""
        defined = ~np.isnan(self.aps)
        classes = defined.sum(axis=1)
        total = np.where(defined, self.aps, 0).sum(axis=1)
        return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)

    def of(self, label: int) -> npt.NDArray[np.float64]:
        """Returns AP of the class with this id, float64 [resamples].

        Raises:
            KeyError: the class has no object to find.
        """
        columns = np.flatnonzero(self.labels == label)
        if not len(columns):
            raise KeyError(f"class {label} has no object to find")
        return self.aps[:, columns[0]]


def interval(values: npt.NDArray[np.float64], share: float = 0.95) -> tuple[float, float]:
    """Returns the percentiles that enclose the middle `share` of the values. NaN values are left out.

    Both percentiles are NaN if all values are NaN.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def bootstrap(evaluation: Evaluation, resamples: int = 1000, seed: int = 0) -> Bootstrap:
    """Computes AP of resampled sets of pictures. Each set has as many pictures as the evaluation.

    Two evaluations of the same pictures with the same seed get the same sets, so their APs can be compared set by set.

    Args:
        evaluation: an evaluation by the protocol ilsvrc, voc07 or voc12.
        resamples: the number of sets.
        seed: the seed of the random numbers.

    Raises:
        EvaluationError: the evaluation has another protocol.
    """
    if evaluation.protocol not in _AVERAGE_PRECISION:
        raise EvaluationError(
            f"no intervals for the protocol {evaluation.protocol}; expected one of {', '.join(_AVERAGE_PRECISION)}"
        )
    average_precision = _AVERAGE_PRECISION[evaluation.protocol]
    truth, detections = evaluation.ground_truth, evaluation.detections
    pictures = np.unique(truth.image_indices)
    rng = np.random.default_rng([seed, 0])
    times_drawn = rng.multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)), resamples)  # [resamples, I]
    labels = np.unique(truth.labels[evaluation.counted])
    aps = np.full((resamples, len(labels)), np.nan)
    order = np.lexsort((evaluation.ranks, detections.labels))
    by_label = detections.labels[order]
    counted = np.flatnonzero(evaluation.counted)
    counted = counted[np.argsort(truth.labels[counted], kind="stable")]
    object_labels = truth.labels[counted]
    for column, label in enumerate(labels.tolist()):
        rows = order[slice(*np.searchsorted(by_label, [label, label + 1]))]  # best first
        true_positive, false_positive = evaluation.matched[rows] >= 0, evaluation.false_positives[rows]
        picture_of_row = np.searchsorted(pictures, detections.image_indices[rows])
        of_class = truth.images[counted[slice(*np.searchsorted(object_labels, [label, label + 1]))]]
        objects = np.bincount(np.searchsorted(pictures, of_class), minlength=len(pictures))  # [I]
        for resample in range(resamples):
            positives = int(times_drawn[resample] @ objects)
            if positives:
                weight = times_drawn[resample][picture_of_row]
                curve = precision_recall(
                    detections.scores[rows], true_positive * weight, false_positive * weight, positives
                )
                aps[resample, column] = average_precision(curve)
    return Bootstrap(labels, aps)
