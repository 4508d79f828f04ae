"""The rule that fits a screen's thresholds, on scores that are made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.data.images import ImageError
from inception_rcnn.detection.calibration import ScoreCalibration
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.detector import FileResult, ScoredPicture
from inception_rcnn.detection.pipeline import ScoredRegions
from inception_rcnn.detection.training import screen_thresholds
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.screen_thresholds import (
    FittedThresholds,
    _choose,
    _objects_found,
    _rows_of,
    fit_thresholds_once,
)
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.screen import MILD, ScreenThresholds

DOG = Category(1, "n1", "dog")
OBJECT = (10, 10, 50, 50)


class AllRegionsAreDogs:
    """Stands in for the detector: every region is a detection of its own, scored by its probability."""

    categories = (DOG,)

    def by_screen(self, proposals: Proposals) -> np.ndarray | None:
        """The screen's probability of a dog; None if the screen does not know dogs."""
        return None if proposals.classes is None else proposals.classes[:, 1:]

    def detections(self, picture: ScoredPicture) -> Detections:
        scores = picture.scores.probabilities[:, 1]
        order = np.argsort(-scores, kind="stable")
        return Detections(picture.proposals.boxes[order], scores[order], np.ones(len(order), np.int64), order)


def scored(boxes, screen_scores, probabilities, quality) -> ScoredPicture:
    boxes = np.array(boxes, np.float32)
    proposals = Proposals(boxes, np.array(screen_scores, np.float32), quality=np.array(quality, np.float32))
    chances = np.array(probabilities, np.float32)
    kept = np.arange(len(boxes))[1:]  # the first region has no features
    regions = ScoredRegions(np.stack([1 - chances, chances], axis=1), kept, boxes[kept])
    return ScoredPicture(FileResult("a.jpg", np.zeros((60, 60, 3), np.uint8), None, None), proposals, regions)


def sample(*boxes) -> Sample:
    count = len(boxes)
    return Sample(
        "a", 1, "a.jpg", np.array(boxes, np.float32).reshape(-1, 4), np.ones(count, np.int64), np.zeros(count, np.bool_)
    )


def test_rows_of_a_picture_keep_their_scores_and_features_together():
    picture = scored([[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]], [3, 2, 1], [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    part = _rows_of(picture, np.array([2, 0]))
    np.testing.assert_array_equal(part.proposals.boxes[:, 0], [2, 0])
    np.testing.assert_allclose(part.scores.probabilities[:, 1], [0.3, 0.1])
    np.testing.assert_allclose(part.proposals.quality, [0.7, 0.5])
    assert part.scores.kept.tolist() == [0]  # region 2, now in row 0; region 0 has no features
    np.testing.assert_array_equal(part.scores.features, [[2, 2, 3, 3]])


def test_an_object_is_found_by_a_detection_of_its_class_with_half_the_overlap():
    truth = sample(OBJECT)
    boxes = np.array([[10, 10, 50, 50], [10, 10, 50, 30], [10, 10, 50, 29]], np.float32)  # IoU 1, 0.5 and 0.475

    def found(row: int, label: int) -> int:
        return _objects_found(truth, Detections(boxes[[row]], np.ones(1, np.float32), np.array([label])), [1])

    assert [found(0, 1), found(1, 1), found(2, 1), found(0, 2)] == [1, 1, 0, 0]


def fitted(pictures: list[ScoredPicture]):
    samples = [sample(OBJECT)] * len(pictures)
    return _choose(AllRegionsAreDogs(), samples, pictures, Dataset("drawn", (DOG,), samples, lambda record: record))


def picture_with_object_at(score: float) -> ScoredPicture:
    """The object's region has this score; four far regions have 0.2, 0.025, 0.006 and 0.0015."""
    far = [[0, 0, 5, 5], [52, 0, 58, 6], [0, 52, 6, 58], [52, 52, 58, 58]]
    boxes, scores = [OBJECT, *far], np.array([score, 0.2, 0.025, 0.006, 0.0015])
    order = np.argsort(-scores)
    probabilities, quality = np.array([0.9, 0.95, 0.1, 0.1, 0.1]), np.array([0.9, 0.2, 0.2, 0.2, 0.2])
    return scored(np.array(boxes)[order], scores[order], probabilities[order], quality[order])


def test_the_highest_threshold_that_loses_at_most_a_hundredth_is_taken():
    # 99 objects score 0.04 and one scores 0.011: a threshold of 0.03 loses 1 of 100, 0.05 loses all.
    # The far region of 0.025 makes 0.03 cheaper than 0.02.
    pictures = [picture_with_object_at(0.04) for _ in range(99)] + [picture_with_object_at(0.011)]
    found = fitted(pictures)
    assert found.thresholds.score == 0.03
    assert found.figures["lost"] == pytest.approx(0.01)
    assert found.figures["regions"] == pytest.approx((99 * 2 + 1) / 100, abs=0.05)


def test_two_lost_objects_of_a_hundred_are_too_many():
    pictures = [picture_with_object_at(0.04) for _ in range(98)] + [picture_with_object_at(0.011)] * 2
    assert fitted(pictures).thresholds.score == 0.01


def test_the_calibration_learns_that_regions_of_low_quality_are_wrong():
    # The object's region has probability 0.9 and quality 0.9, a far region has 0.95 and 0.2.
    found = fitted([picture_with_object_at(0.04)] * 60)
    right, wrong = found.calibration.scores(np.array([[0.9], [0.95]]), np.array([0.9, 0.2]))[:, 0].tolist()
    assert right > 0.9
    assert wrong < 0.1
    assert found.figures["calibration error after"] < 0.1 < found.figures["calibration error before"]


def test_the_calibration_learns_what_the_screen_knows_of_a_class():
    """The networks and the quality are equally sure of both regions; only the screen tells them apart."""
    both = scored([OBJECT, [0, 0, 5, 5]], [0.5, 0.5], [0.9, 0.9], [0.5, 0.5])
    classes = np.array([[0.1, 0.9], [0.9, 0.1]], np.float32)
    seen = replace(both, proposals=replace(both.proposals, classes=classes))
    found = fitted([seen] * 60)
    scores = found.calibration.scores(np.full((2, 1), 0.9), np.full(2, 0.5), classes[:, 1:])[:, 0]
    assert scores[0] > 0.9
    assert scores[1] < 0.1
    assert fitted([both] * 60).calibration.screened is None


class TheBestDog(AllRegionsAreDogs):
    """Stands in for a detector with suppression: the region with the highest calibrated score is the detection."""

    calibration: ScoreCalibration | None = None

    def detections(self, picture: ScoredPicture) -> Detections:
        found = super().detections(picture)
        scores = found.scores
        if self.calibration is not None:
            scores = self.calibration.scores(scores[:, None], picture.proposals.quality[found.regions])[:, 0]
        return found[np.array([scores.argmax()])]


def test_the_calibration_is_fitted_to_the_detections_of_a_calibrated_detector():
    """Calibrated scores choose other regions: here the object, in place of a region of higher probability."""
    detector, pictures = TheBestDog(), []
    for number in range(200):  # the uncalibrated detector takes the object in every fifth picture only
        far = 0.95 if number % 5 else 0.85
        pictures.append(scored([OBJECT, [0, 0, 5, 5]], [0.5, 0.4], [0.9, far], [0.8, 0.2]))
    samples = [sample(OBJECT)] * len(pictures)
    found = _choose(detector, samples, pictures, Dataset("drawn", (DOG,), samples, lambda record: record))
    assert detector.calibration.quality > 0  # of the first round, in which four fifths of the detections are wrong
    assert found.calibration.scores(np.array([[0.9]]), np.array([0.8]))[0, 0] > 0.99  # 0.97 after one round


def test_low_scores_lower_the_threshold():
    """A screen that has seen few examples of a class gives it low scores."""
    found = fitted([picture_with_object_at(0.0021)] * 60)
    assert found.thresholds.score == 0.002
    assert found.figures["lost"] == 0


def test_if_every_threshold_loses_objects_all_regions_are_kept():
    found = fitted([picture_with_object_at(0.0001)] * 60)
    assert found.thresholds == ScreenThresholds(0.0, 0.9)
    assert found.figures["lost"] == 0


@pytest.fixture
def model_and_pictures(monkeypatch):
    """Stand-ins for a model and a data set, and a fit that takes no time."""
    monkeypatch.setattr(screen_thresholds, "save_model", lambda model, folder: None)
    monkeypatch.setattr(screen_thresholds, "model_digest", lambda folder: "digest")
    fit = FittedThresholds(ScreenThresholds(0.1, 0.7), ScoreCalibration(0.7, 1.6, -1.6), {"pictures": 65, "lost": 0.0})
    monkeypatch.setattr(screen_thresholds, "fit_thresholds", lambda *arguments, **keywords: fit)
    return object(), Dataset("none", (DOG,), [], lambda record: record)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("boxes", np.array([[1, 2, 30, 40]], np.float32)),
        ("labels", np.array([2])),
        ("difficult", np.array([True])),
        ("annotated", frozenset({1})),
    ],
)
def test_the_fit_is_repeated_when_an_annotation_changes(field, value, model_and_pictures, tmp_path):
    model, _ = model_and_pictures
    picture = tmp_path / "a.png"
    picture.write_bytes(b"pixels")
    before = replace(sample(OBJECT), path=picture)
    for one in (before, before, replace(before, **{field: value})):
        fit_thresholds_once(model, Dataset("one", (DOG,), [one], lambda record: record), tmp_path)
    assert len(list(tmp_path.glob("screen_thresholds_*.json"))) == 2


@pytest.mark.parametrize("damage", ["", "{", "null", "[]", '{"thresholds": 1}', "NaN score", "text score"])
def test_a_damaged_file_of_the_fit_is_replaced(damage, model_and_pictures, tmp_path, caplog):
    model, pictures = model_and_pictures
    first = fit_thresholds_once(model, pictures, tmp_path)
    (file,) = tmp_path.glob("screen_thresholds_*.json")
    whole = file.read_text()
    if damage.endswith("score"):
        damaged = json.loads(whole)
        damaged["thresholds"]["score"] = float("nan") if damage == "NaN score" else "0.1"
        damage = json.dumps(damaged)
    file.write_text(damage)
    assert fit_thresholds_once(model, pictures, tmp_path) == first
    assert file.read_text() == whole
    assert "damaged; the thresholds are fitted again" in caplog.text


def test_networks_score_the_best_regions_only(monkeypatch):
    seen = []

    def choose(detector, samples, pictures, dataset):
        seen.extend(pictures)

    class OneDetector:
        def __init__(self, model, device, max_regions):
            assert model.screen.thresholds == MILD
            assert max_regions == screen_thresholds.MOST_REGIONS

        def score_files(self, paths):
            yield picture_with_object_at(0.04)

    monkeypatch.setattr(screen_thresholds, "Detector", OneDetector)
    monkeypatch.setattr(screen_thresholds, "_choose", choose)
    model = SimpleNamespace(screen=SimpleNamespace(thresholds="before"))
    screen_thresholds.fit_thresholds(model, [sample(OBJECT)], None)
    np.testing.assert_allclose(seen[0].proposals.scores[:2], [0.2, 0.04])
    assert model.screen.thresholds == "before"


def test_the_scores_of_a_screen_with_fixed_thresholds_are_fitted(monkeypatch):
    class OneDetector(AllRegionsAreDogs):
        calibration = None

        def __init__(self, model, device, cascade):
            assert not cascade

        def score_files(self, paths):
            return (picture_with_object_at(0.04) for _ in paths)

    monkeypatch.setattr(screen_thresholds, "Detector", OneDetector)
    model = SimpleNamespace(screen=SimpleNamespace(thresholds=ScreenThresholds(0.07, 0.7)))
    samples = [sample(OBJECT)] * 60
    dataset = Dataset("drawn", (DOG,), samples, lambda record: record)
    calibration, figures = screen_thresholds.fit_scores(model, samples, dataset)
    assert figures["pictures"] == 60
    assert figures["calibration error after"] < 0.1 < figures["calibration error before"]
    right, wrong = calibration.scores(np.array([[0.9], [0.95]]), np.array([0.9, 0.2]))[:, 0].tolist()
    assert right > 0.9
    assert wrong < 0.1


def test_a_picture_that_cannot_be_read_stops_the_fit(monkeypatch):
    class FailingDetector:
        def __init__(self, model, device, max_regions):
            pass

        def score_files(self, paths):
            error = ImageError("b.jpg", "truncated")
            yield replace(picture_with_object_at(0.04), result=FileResult("b.jpg", None, None, error))

    monkeypatch.setattr(screen_thresholds, "Detector", FailingDetector)
    model = SimpleNamespace(screen=SimpleNamespace(thresholds="before"))
    with pytest.raises(TrainingError, match=r"b\.jpg: truncated"):
        screen_thresholds.fit_thresholds(model, [sample(OBJECT)], None)
