"""Fits the calibration of a detector's scores to detections in held-out pictures."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from ..calibration import ScoreCalibration, ScreenedCalibration, logit, screen_logit

# Strength with which the weights are drawn to those of a network that is calibrated already, so that its class
# probability alone is the score. With few detections the scores then stay as they are.
PRIOR = 1.0
# Number of equally wide bins of the expected calibration error.
_BINS = 10


def fit_calibration(
    probability: np.ndarray, quality: np.ndarray, by_screen: np.ndarray, right: np.ndarray
) -> ScoreCalibration:
    """Fit logistic regressions: one without the screen's class to all detections, one with it where it is known.

    Args:
        probability: float [N], class probabilities of detections.
        quality: float [N], expected IoU of their regions.
        by_screen: float [N], the screen's probability of the detection's class; NaN where the screen does not know the
            class.
        right: bool [N], whether the detection found an object that no better detection had found.

    Returns:
        The calibration. It has a part for classes that the screen knows if a detection has such a class.
    """
    known = ~np.isnan(by_screen)
    screened = None
    if known.any():
        terms = logit(probability[known]), logit(quality[known]), screen_logit(by_screen[known])
        screened = ScreenedCalibration(*_logistic_regression(terms, right[known]))
    of_probability, of_quality, bias = _logistic_regression((logit(probability), logit(quality)), right)
    return ScoreCalibration(of_probability, of_quality, bias, screened)


def _logistic_regression(logits: Sequence[np.ndarray], right: np.ndarray) -> list[float]:
    """The weight of each of the logits, float [N] each, and a bias."""
    terms = np.stack([*logits, np.ones(len(right))], axis=1).astype(np.float64)
    prior = np.eye(terms.shape[1])[0]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative log-likelihood with the prior, and its gradient."""
        exponent = terms @ weights
        distance = weights - prior
        value = np.logaddexp(0, exponent).sum() - exponent[right].sum() + PRIOR / 2 * distance @ distance
        return float(value), terms.T @ (expit(exponent) - right) + PRIOR * distance

    weights = minimize(loss, prior, jac=True, method="BFGS").x
    return [round(float(weight), 4) for weight in weights]


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
