"""Fits the calibration of a detector's scores to detections in held-out pictures."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from ..calibration import ScoreCalibration, logit

# Strength with which the weights are drawn to those of a network that is calibrated already. With few detections the
# scores then stay as they are.
PRIOR = 1.0
# Number of equally wide bins of the expected calibration error.
_BINS = 10


def fit_calibration(probability: np.ndarray, quality: np.ndarray, right: np.ndarray) -> ScoreCalibration:
    """Fit a logistic regression.

    Args:
        probability: float [N], class probabilities of detections.
        quality: float [N], expected IoU of their regions.
        right: bool [N], whether the detection found an object that no better detection had found.
    """
    terms = np.stack([logit(probability), logit(quality), np.ones(len(right))], axis=1).astype(np.float64)
    prior = np.array([1.0, 0.0, 0.0])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative log-likelihood with the prior, and its gradient."""
        exponent = terms @ weights
        distance = weights - prior
        value = np.logaddexp(0, exponent).sum() - exponent[right].sum() + PRIOR / 2 * distance @ distance
        return float(value), terms.T @ (expit(exponent) - right) + PRIOR * distance

    weights = minimize(loss, prior, jac=True, method="BFGS").x
    return ScoreCalibration(*(round(float(weight), 4) for weight in weights))


def expected_calibration_error(scores: np.ndarray, right: np.ndarray) -> float:
    """The mean distance between score and share of right detections over ten bins of scores (Naeini et al., AAAI 2015).

    Args:
        scores: float [N] in 0..1.
        right: bool [N].
    """
    if not len(scores):
        return 0.0
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float((right[bins == one] - scores[bins == one]).sum())) for one in np.unique(bins)]
    return sum(gaps) / len(scores)
