"""Scores that are probabilities: how likely a detection is right, given its class probability and its quality.

The networks are trained on batches with many more objects than pictures have, and they know little about how well a box
fits. A region that shows half a motorcycle is a motorcycle to them. The screen's quality, the expected IoU, knows more
about the fit. Platt ("Probabilistic outputs for support vector machines", 1999) fits a logistic function of a
classifier's score to held-out data. Here it is a function of both numbers.
"""

from dataclasses import dataclass

import numpy as np

# Smallest distance of a probability from 0 and 1 before its logarithm is taken.
_MARGIN = 1e-6


@dataclass(frozen=True)
class ScoreCalibration:
    """score = sigmoid(probability * logit(class probability) + quality * logit(expected IoU) + bias).

    Attributes:
        probability, quality: weights of the two logits; a network that is calibrated already has 1 and 0.
        bias: is added to them.
    """

    probability: float
    quality: float
    bias: float

    def scores(self, probabilities: np.ndarray, quality: np.ndarray) -> np.ndarray:
        """The scores of N regions.

        Args:
            probabilities: float32 [N, classes], without the background.
            quality: float32 [N], the expected IoU.

        Returns:
            float32 [N, classes] in 0..1.
        """
        exponent = (
            self.probability * logit(probabilities)
            + self.quality * logit(quality)[:, None].astype(np.float32)
            + np.float32(self.bias)
        )
        return (1 / (1 + np.exp(-exponent))).astype(np.float32)


def logit(probability: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), with p clipped to 1e-6 .. 1 - 1e-6: the type and shape of the argument."""
    clipped = np.clip(probability, _MARGIN, 1 - _MARGIN)
    return np.log(clipped / (1 - clipped))
