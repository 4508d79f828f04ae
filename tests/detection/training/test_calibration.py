"""The calibration of scores, on detections whose chances are known."""

from dataclasses import replace

import numpy as np
import pytest

from inception_rcnn.detection.calibration import ScoreCalibration, ScreenedCalibration, logit
from inception_rcnn.detection.training.calibration import expected_calibration_error, fit_calibration


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def drawn(count: int, weights: tuple[float, float, float, float]) -> tuple[np.ndarray, ...]:
    """Detections that are right with the chance that the weights give. The screen knows the class of all of them."""
    rng = np.random.default_rng(0)
    probability, quality, by_screen = rng.uniform(0.02, 0.98, (3, count))
    terms = (logit(probability), logit(quality), logit(by_screen), 1)
    chance = sigmoid(sum(weight * term for weight, term in zip(weights, terms, strict=True)))
    return probability, quality, by_screen, rng.random(count) < chance


def test_the_fit_finds_the_weights_that_made_the_data() -> None:
    probability, quality, by_screen, right = drawn(40_000, (0.7, 1.2, 0.4, -0.8))
    found = fit_calibration(probability, quality, by_screen, right).screened
    assert found is not None
    weights = [found.probability, found.quality, found.screen, found.bias]
    np.testing.assert_allclose(weights, [0.7, 1.2, 0.4, -0.8], atol=0.05)


def test_classes_that_the_screen_does_not_know_have_weights_of_their_own() -> None:
    known = drawn(40_000, (0.3, 0.9, 0.8, 0.5))
    probability, quality, _, right = drawn(40_000, (0.7, 1.2, 0.0, -0.8))
    unknown = np.full(len(right), np.nan)
    found = fit_calibration(probability, quality, unknown, right)
    np.testing.assert_allclose([found.probability, found.quality, found.bias], [0.7, 1.2, -0.8], atol=0.05)
    assert found.screened is None
    together = [np.concatenate(pair) for pair in zip(known, (probability, quality, unknown, right), strict=True)]
    assert fit_calibration(*together).screened == fit_calibration(*known).screened


def test_a_score_follows_the_formula_of_its_class() -> None:
    calibration = ScoreCalibration(0.5, 1.5, 0.25, ScreenedCalibration(0.4, 1.0, 0.6, -0.5))
    probabilities, quality = np.array([[0.2, 0.7]], np.float32), np.array([0.6], np.float32)
    by_screen = np.array([[0.9, np.nan]], np.float32)
    known = 0.4 * np.log(0.2 / 0.8) + np.log(0.6 / 0.4) + 0.6 * np.log(0.9 / 0.1) - 0.5
    unknown = 0.5 * np.log(0.7 / 0.3) + 1.5 * np.log(0.6 / 0.4) + 0.25
    scores = calibration.scores(probabilities, quality, by_screen)
    np.testing.assert_allclose(scores, sigmoid(np.array([[known, unknown]])), rtol=1e-5)
    assert scores.dtype == np.float32
    without = replace(calibration, screened=None)
    np.testing.assert_array_equal(
        calibration.scores(probabilities, quality), without.scores(probabilities, quality, by_screen)
    )


def test_calibrated_scores_are_the_share_of_right_detections() -> None:
    probability, quality, by_screen, right = drawn(40_000, (0.5, 1.0, 0.5, -2.0))
    calibration = fit_calibration(probability, quality, by_screen, right)
    scores = calibration.scores(probability[:, None], quality, by_screen[:, None])[:, 0]
    assert expected_calibration_error(probability, right) > 0.2
    assert expected_calibration_error(scores, right) < 0.01
    assert scores.dtype == np.float32


@pytest.mark.parametrize("right", [[], [True], [False]])
def test_hardly_any_detections_leave_the_scores_nearly_as_they_are(right: list[bool]) -> None:
    numbers = np.full(len(right), 0.5)
    found = fit_calibration(numbers, numbers, np.full(len(right), np.nan), np.array(right, bool))
    assert found.probability == pytest.approx(1, abs=0.1)
    assert abs(found.quality) < 0.1
    assert abs(found.bias) < 0.5


def test_detections_that_are_all_right_or_sure_do_not_overflow() -> None:
    ones = np.ones(500)
    found = fit_calibration(ones, ones, ones, np.ones(500, bool))
    for by_screen in (None, np.array([[1.0, 0.0]], np.float32)):
        scores = found.scores(np.array([[1.0, 0.0]], np.float32), np.ones(1, np.float32), by_screen)
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
