"""How sure an AP is: intervals from drawing the pictures again, with replacement (Efron, 1979).

    drawn = bootstrap(evaluation)
    interval(drawn.mean), interval(drawn.aps[:, 0])

A small set of pictures is one draw of many that could have been; the spread of AP over sets drawn from it says how far
another draw may lie. Matching stays as it was, since it goes picture by picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .average_precision import area_under_envelope, eleven_points, precision_recall
from .ilsvrc import Evaluation, EvaluationError

_AVERAGE_PRECISION = {"ilsvrc": area_under_envelope, "voc12": area_under_envelope, "voc07": eleven_points}


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """AP over sets of pictures drawn again.

    Attributes:
        labels: int64 [K], the ids of the classes that have an object to find, rising.
        aps: float64 [resamples, K]; NaN where a class has no object in the pictures drawn.
    """

    labels: npt.NDArray[np.int64]
    aps: npt.NDArray[np.float64]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """float64 [resamples]: mean AP over the classes that have an object in the pictures drawn; NaN if none has."""
        known = ~np.isnan(self.aps)
        classes = known.sum(axis=1)
        total = np.where(known, self.aps, 0).sum(axis=1)
        return np.where(classes > 0, total / np.maximum(classes, 1), np.nan)

    def of(self, label: int) -> npt.NDArray[np.float64]:
        """float64 [resamples]: AP of the class with this id.

        Raises:
            KeyError: the class has no object to find.
        """
        places = np.flatnonzero(self.labels == label)
        if not len(places):
            raise KeyError(f"class {label} has no object to find")
        return self.aps[:, places[0]]


def interval(values: npt.NDArray[np.float64], share: float = 0.95) -> tuple[float, float]:
    """The middle `share` of the values that are numbers, by percentiles; NaN if there are none."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def bootstrap(evaluation: Evaluation, resamples: int = 1000, seed: int = 0) -> Bootstrap:
    """Draw the pictures of an evaluation again and again, as many as there are, and take AP of each draw.

    Two evaluations of the same pictures get the same draws from the same seed, so that differences between them can be
    taken draw by draw.

    Args:
        evaluation: of the protocols ilsvrc, voc07 or voc12.
        resamples: how many draws.
        seed: of the draws.

    Raises:
        EvaluationError: another protocol.
    """
    if evaluation.protocol not in _AVERAGE_PRECISION:
        raise EvaluationError(
            f"no intervals for the protocol {evaluation.protocol}; expected one of {', '.join(_AVERAGE_PRECISION)}"
        )
    average_precision = _AVERAGE_PRECISION[evaluation.protocol]
    truth, detections = evaluation.ground_truth, evaluation.detections
    pictures = np.unique(truth.image_indices)
    rng = np.random.default_rng([seed, 0])
    times = rng.multinomial(len(pictures), np.full(len(pictures), 1 / len(pictures)), resamples)  # [resamples, I]
    labels = np.unique(truth.labels[evaluation.counted])
    aps = np.full((resamples, len(labels)), np.nan)
    order = np.argsort(evaluation.ranks)
    for column, label in enumerate(labels.tolist()):
        rows = order[detections.labels[order] == label]
        hit, false = evaluation.matched[rows] >= 0, evaluation.false_positives[rows]
        where = np.searchsorted(pictures, detections.image_indices[rows])
        of_class = truth.images[evaluation.counted & (truth.labels == label)]
        objects = np.bincount(np.searchsorted(pictures, of_class), minlength=len(pictures))
        for draw in range(resamples):
            positives = int(times[draw] @ objects)
            if positives:
                weight = times[draw][where]
                curve = precision_recall(detections.scores[rows], hit * weight, false * weight, positives)
                aps[draw, column] = average_precision(curve)
    return Bootstrap(labels, aps)
