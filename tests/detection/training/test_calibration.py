"""The calibration of scores, on detections whose chances are known."""

import numpy as np
import pytest

from inception_rcnn.detection.calibration import ScoreCalibration, logit
from inception_rcnn.detection.training.calibration import expected_calibration_error, fit_calibration


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def drawn(count: int, weights: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detections that are right with the chance that the weights give."""
    rng = np.random.default_rng(0)
    probability, quality = rng.uniform(0.02, 0.98, (2, count))
    chance = sigmoid(weights[0] * logit(probability) + weights[1] * logit(quality) + weights[2])
    return probability, quality, rng.random(count) < chance


def test_the_fit_finds_the_weights_that_made_the_data() -> None:
    found = fit_calibration(*drawn(40_000, (0.7, 1.2, -0.8)))
    np.testing.assert_allclose([found.probability, found.quality, found.bias], [0.7, 1.2, -0.8], atol=0.05)


def test_calibrated_scores_are_the_share_of_right_detections() -> None:
    probability, quality, right = drawn(40_000, (0.5, 1.0, -2.0))
    scores = fit_calibration(probability, quality, right).scores(probability[:, None], quality)[:, 0]
    assert expected_calibration_error(probability, right) > 0.2
    assert expected_calibration_error(scores, right) < 0.01
    assert scores.dtype == np.float32


@pytest.mark.parametrize("right", [[], [True], [False]])
def test_hardly_any_detections_leave_the_scores_nearly_as_they_are(right: list[bool]) -> None:
    numbers = np.full(len(right), 0.5)
    found = fit_calibration(numbers, numbers, np.array(right, bool))
    assert found.probability == pytest.approx(1, abs=0.1)
    assert abs(found.quality) < 0.1
    assert abs(found.bias) < 0.5


def test_detections_that_are_all_right_or_sure_do_not_overflow() -> None:
    ones = np.ones(500)
    found = fit_calibration(ones, ones, np.ones(500, bool))
    scores = found.scores(np.array([[1.0, 0.0]], np.float32), np.ones(1, np.float32))
    assert np.isfinite(scores).all()
    assert scores[0, 0] > 0.99


def test_identity_keeps_probabilities() -> None:
    probabilities = np.array([[0.2, 0.5], [0.01, 0.99]], np.float32)
    scores = ScoreCalibration(1.0, 0.0, 0.0).scores(probabilities, np.array([0.3, 0.9], np.float32))
    np.testing.assert_allclose(scores, probabilities, rtol=1e-5)


def test_the_error_is_the_mean_gap_over_bins() -> None:
    # Bin 0.2..0.3: two detections of 0.25, one right: gap 0.25. Bin 0.9..1: 0.95 and 1.0, both right: gap 0.025.
    scores, right = np.array([0.25, 0.25, 0.95, 1.0]), np.array([True, False, True, True])
    assert expected_calibration_error(scores, right) == pytest.approx((2 * 0.25 + 2 * 0.025) / 4)
    assert expected_calibration_error(np.zeros(0), np.zeros(0, bool)) == 0
