"""Scores that are probabilities: how likely a detection is right, given what the networks and the screen say.

The networks are trained on batches with many more objects than pictures have, and they know little about how well a box
fits. A region that shows half a motorcycle is a motorcycle to them. The screen's quality, the expected IoU, knows more
about the fit, and the screen's own class probability is a second opinion that costs nothing. Platt ("Probabilistic
outputs for support vector machines", 1999) fits a logistic function of a classifier's score to held-out data. Here it
is a function of two or three numbers.
"""

from dataclasses import dataclass

import numpy as np

# Smallest distance of a probability from 0 and 1 before its logarithm is taken.
_MARGIN = 1e-6
# The same for the probability of a class by the screen. Below, the screen only says that it does not see the class.
_SCREEN_MARGIN = 1e-4


@dataclass(frozen=True)
class ScreenedCalibration:
    """The calibration of a class that the screen knows.

    score = sigmoid(probability * logit(class probability) + quality * logit(expected IoU) + screen * logit(class
    probability by the screen) + bias).

    Attributes:
        probability, quality, screen: weights of the three logits.
        bias: is added to them.
    """

    probability: float
    quality: float
    screen: float
    bias: float


@dataclass(frozen=True)
class ScoreCalibration:
    """score = sigmoid(probability * logit(class probability) + quality * logit(expected IoU) + bias).

    Attributes:
        probability, quality: weights of the two logits; a network that is calibrated already has 1 and 0.
        bias: is added to them.
        screened: the calibration of classes that the screen knows; None if they are calibrated like the others.
    """

    probability: float
    quality: float
    bias: float
    screened: ScreenedCalibration | None = None

    def scores(self, probabilities: np.ndarray, quality: np.ndarray, by_screen: np.ndarray | None = None) -> np.ndarray:
        """The scores of N regions.

        Args:
            probabilities: float32 [N, classes], without the background.
            quality: float32 [N], the expected IoU.
            by_screen: float32 [N, classes], class probabilities by the screen, NaN in the columns of classes that the
                screen does not know; None if it knows none.

        Returns:
            float32 [N, classes] in 0..1.
        """
        of_networks, of_quality = logit(probabilities), logit(quality)[:, None].astype(np.float32)
        exponent = self.probability * of_networks + self.quality * of_quality + np.float32(self.bias)
        if self.screened is not None and by_screen is not None:
            known = self.screened
            of_screen = screen_logit(by_screen)
            seen = known.probability * of_networks + known.quality * of_quality + known.screen * of_screen
            exponent = np.where(np.isnan(by_screen), exponent, seen + np.float32(known.bias))
        return (1 / (1 + np.exp(-exponent))).astype(np.float32)


def logit(probability: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), with p clipped to 1e-6 .. 1 - 1e-6: the type and shape of the argument."""
    return _clipped_logit(probability, _MARGIN)


def screen_logit(probability: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), with p clipped to 1e-4 .. 1 - 1e-4: the type and shape of the argument."""
    return _clipped_logit(probability, _SCREEN_MARGIN)


def _clipped_logit(probability: np.ndarray, margin: float) -> np.ndarray:
    clipped = np.clip(probability, margin, 1 - margin)
    return np.log(clipped / (1 - clipped))
