"""Fits a screen's thresholds on pictures that neither the screen nor MultiBox was trained on.

The networks score the `MOST_REGIONS` best regions of each picture. Each pair of a score threshold and an NMS threshold
then keeps some of these regions. The fit takes the pair that keeps the fewest regions and loses at most `LARGEST_LOSS`
of the objects that the whole detector finds with all of them. Last, the scores of the detections that are left are
calibrated.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ...data.boxes import iou
from ...data.dataset import Dataset, Sample
from ...proposals.screen import MILD, ScreenThresholds, best_regions
from ...runtime.atomic_write import atomic_write, temporary_folder
from ..calibration import ScoreCalibration, ScreenedCalibration
from ..detections import Detections
from ..detector import Detector, ScoredPicture
from ..model_files import Model, model_digest, save_model
from .calibration import expected_calibration_error, fit_calibration
from .errors import TrainingError
from .keys import pictures_key, result_key
from .measure_detector import evaluate_detections
from .progress import Report, no_report

_logger = logging.getLogger(__name__.split(".")[0])

# Largest share of the objects found in the best regions that the fitted thresholds may lose.
LARGEST_LOSS = 0.01
# Number of regions of a picture that the fit considers, those with the highest scores.
MOST_REGIONS = 300
# The values that the fit tries for each threshold. A screen that has seen few examples of a class gives it low scores.
SCORES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15)
OVERLAPS = (0.9, 0.8, 0.7, 0.6)
FOUND_IOU = 0.5


@dataclass(frozen=True)
class FittedThresholds:
    """Fitted thresholds and the figures of the fit.

    Attributes:
        thresholds: the fitted thresholds.
        calibration: of the scores of the detections under these thresholds.
        figures: for the model's card: "pictures", "objects" (found in the best regions), "regions" (kept in a picture,
            on average), "lost" (share of the objects), and the expected calibration error of the detections' scores
            "before" and "after" the calibration.
    """

    thresholds: ScreenThresholds
    calibration: ScoreCalibration
    figures: dict[str, float]

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "FittedThresholds":
        """The thresholds that `dataclasses.asdict` made this document of."""
        weights = dict(document["calibration"])
        screened = weights.pop("screened")
        if screened is not None:
            screened = ScreenedCalibration(**screened)
        return cls(
            ScreenThresholds(**document["thresholds"]),
            ScoreCalibration(**weights, screened=screened),
            document["figures"],
        )


def fit_thresholds(
    model: Model,
    samples: Sequence[Sample],
    dataset: Dataset,
    *,
    device: str = "auto",
    report: Report = no_report,
) -> FittedThresholds:
    """Fit the thresholds of a model's screen.

    Args:
        model: the complete detector; the thresholds of its screen and its calibration are ignored.
        samples: annotated pictures on which neither the screen nor MultiBox was trained.
        dataset: the data set of the samples.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with the stage "screen thresholds".

    Raises:
        TrainingError: a picture cannot be read.
    """
    assert model.screen is not None
    fitted = model.screen.thresholds
    model.screen.thresholds = MILD
    try:
        detector = Detector(model, device=device, max_regions=MOST_REGIONS)
        detector.calibration = None
        pictures = _scored(detector, samples, "screen thresholds", report)
        return _choose(detector, samples, pictures, dataset)
    finally:
        model.screen.thresholds = fitted


def fit_scores(
    model: Model,
    samples: Sequence[Sample],
    dataset: Dataset,
    *,
    device: str = "auto",
    report: Report = no_report,
) -> tuple[ScoreCalibration, dict[str, float]]:
    """Fit the calibration of a model whose screen keeps its thresholds.

    Args:
        model: the complete detector; its calibration is ignored.
        samples, dataset, device: as for `fit_thresholds`.
        report: called with the stage "calibration".

    Returns:
        The calibration, and figures for the model's card: "pictures", "regions" (kept in a picture, on average), and
        the expected calibration error "before" and "after", as in `FittedThresholds`.

    Raises:
        TrainingError: a picture cannot be read.
    """
    detector = Detector(model, device=device, cascade=False)
    pictures = _scored(detector, samples, "calibration", report)
    calibration, errors = _calibrated(detector, samples, pictures, dataset)
    regions = round(sum(len(picture.proposals) for picture in pictures) / max(1, len(pictures)), 1)
    return calibration, {"pictures": len(pictures), "regions": regions, **errors}


def _scored(detector: Detector, samples: Sequence[Sample], stage: str, report: Report) -> list[ScoredPicture]:
    """The pictures of the samples with the scores of their regions.

    Raises:
        TrainingError: a picture cannot be read.
    """
    pictures = []
    for picture in detector.score_files([sample.path for sample in samples]):
        if picture.result.error is not None:
            raise TrainingError(str(picture.result.error))
        pictures.append(picture)
        report(stage, len(pictures), len(samples), {})
    return pictures


def fit_thresholds_once(
    model: Model, dataset: Dataset, folder: Path, *, device: str = "auto", report: Report = no_report
) -> FittedThresholds:
    """Fit the thresholds of a model's screen on all pictures of a data set, see `fit_thresholds`.

    The result is stored in `folder`. If it is there for the same model, pictures and annotations, it is returned.
    A damaged file is replaced with a warning.
    """
    with temporary_folder(folder) as stored:
        save_model(model, stored)
        key = result_key(
            model=model_digest(stored),
            pictures=pictures_key(dataset, range(len(dataset))),
            objects=[_objects(sample) for sample in dataset],
            rule=[LARGEST_LOSS, MOST_REGIONS, SCORES, OVERLAPS],
        )
    file = folder / f"screen_thresholds_{key}.json"
    fitted = _stored_fit(file)
    if fitted is None:
        fitted = fit_thresholds(model, list(dataset), dataset, device=device, report=report)
        with atomic_write(file) as partial_file:
            partial_file.write_text(json.dumps(asdict(fitted)))
    return fitted


def _objects(sample: Sample) -> list[Any]:
    """What the annotation of a picture says, for a key."""
    annotated = None if sample.annotated is None else sorted(sample.annotated)
    return [sample.boxes.tolist(), sample.labels.tolist(), sample.difficult.tolist(), annotated]


def _stored_fit(file: Path) -> FittedThresholds | None:
    """The fit in a file; None if there is no file or it is damaged."""
    if not file.exists():
        return None
    try:
        fitted = FittedThresholds.from_json(json.loads(file.read_text(encoding="utf-8")))
        weights = asdict(fitted.calibration)
        weights |= weights.pop("screened") or {}
        numbers = (*asdict(fitted.thresholds).values(), *weights.values(), *fitted.figures.values())
        if all(isinstance(number, int | float) and isfinite(number) for number in numbers):
            return fitted
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    _logger.warning("%s: damaged; the thresholds are fitted again", file)
    return None


def _choose(
    detector: Detector, samples: Sequence[Sample], pictures: Sequence[ScoredPicture], dataset: Dataset
) -> FittedThresholds:
    known = [category.id for category in detector.categories]

    def found_with(rows_of: Callable[[ScoredPicture], np.ndarray]) -> tuple[int, float]:
        """The number of objects found with some of the regions, and the mean number of these regions."""
        found, regions = 0, 0
        for sample, picture in zip(samples, pictures, strict=True):
            rows = rows_of(picture)
            regions += len(rows)
            found += _objects_found(sample, detector.detections(_rows_of(picture, rows)), known)
        return found, regions / max(1, len(pictures))

    everything, most_regions = found_with(lambda picture: np.arange(len(picture.proposals)))
    best: tuple[float, int, ScreenThresholds] = (most_regions, everything, ScreenThresholds(0.0, MILD.nms))
    for overlap in OVERLAPS:
        for score in SCORES:
            tried = ScreenThresholds(score, overlap)
            found, regions = found_with(partial(_kept_rows, thresholds=tried))
            if found >= (1 - LARGEST_LOSS) * everything and regions < best[0]:
                best = (regions, found, tried)
    regions, found, thresholds = best
    kept = [_rows_of(picture, _kept_rows(picture, thresholds)) for picture in pictures]
    calibration, errors = _calibrated(detector, samples, kept, dataset)
    figures = {
        "pictures": len(pictures),
        "objects": everything,
        "regions": round(regions, 1),
        "lost": round(1 - found / max(1, everything), 4),
        **errors,
    }
    return FittedThresholds(thresholds, calibration, figures)


def _calibrated(
    detector: Detector, samples: Sequence[Sample], pictures: Sequence[ScoredPicture], dataset: Dataset
) -> tuple[ScoreCalibration, dict[str, float]]:
    """The calibration of the detector's scores, and the expected calibration errors before and after it.

    Calibrated scores choose other boxes of an object, so the second round is fitted to the detections of the first.
    """
    detector.calibration = None
    before = _Detections.of(detector, samples, pictures, dataset)
    detector.calibration = before.calibration()
    after = _Detections.of(detector, samples, pictures, dataset)
    calibration = after.calibration()
    scores = calibration.scores(after.probability[:, None], after.quality, after.by_screen[:, None])[:, 0]
    return calibration, {
        "calibration error before": round(expected_calibration_error(before.probability, before.right), 4),
        "calibration error after": round(expected_calibration_error(scores, after.right), 4),
    }


@dataclass(frozen=True, eq=False)
class _Detections:
    """What a calibration is fitted to: the detections of all pictures that are right or wrong.

    Attributes:
        probability, quality, by_screen, right: see `fit_calibration`.
    """

    probability: np.ndarray
    quality: np.ndarray
    by_screen: np.ndarray
    right: np.ndarray

    @classmethod
    def of(
        cls, detector: Detector, samples: Sequence[Sample], pictures: Sequence[ScoredPicture], dataset: Dataset
    ) -> "_Detections":
        """The detections of a detector in pictures with scored regions."""
        found = [detector.detections(picture) for picture in pictures]
        marks_difficult = any(sample.difficult.any() for sample in samples)
        evaluation = evaluate_detections(samples, found, dataset, marks_difficult)
        values = [_values(detector, *pair) for pair in zip(found, pictures, strict=True)]
        probability, quality, by_screen = (np.concatenate(column) for column in zip(*values, strict=True))
        counted = ~evaluation.ignored
        return cls(probability[counted], quality[counted], by_screen[counted], (evaluation.matched >= 0)[counted])

    def calibration(self) -> ScoreCalibration:
        return fit_calibration(self.probability, self.quality, self.by_screen, self.right)


def _values(detector: Detector, found: Detections, picture: ScoredPicture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each detection's region: the probability of its class, the quality, and the screen's probability, or NaN."""
    assert found.regions is not None
    assert picture.proposals.quality is not None
    columns = {category.id: column for column, category in enumerate(detector.categories)}
    of_classes = np.array([columns[label] for label in found.labels.tolist()], np.int64)
    by_screen = detector.by_screen(picture.proposals)
    return (
        picture.scores.probabilities[found.regions, 1 + of_classes],
        picture.proposals.quality[found.regions],
        np.full(len(found), np.nan) if by_screen is None else by_screen[found.regions, of_classes],
    )


def _kept_rows(picture: ScoredPicture, thresholds: ScreenThresholds) -> np.ndarray:
    """The regions that a screen with these thresholds keeps."""
    return best_regions(picture.proposals.boxes, picture.proposals.scores, thresholds)


def _rows_of(picture: ScoredPicture, rows: np.ndarray) -> ScoredPicture:
    """The picture with some of its regions only."""
    places = np.full(len(picture.proposals), -1)
    places[rows] = np.arange(len(rows))
    kept = places[picture.scores.kept] >= 0
    scores = replace(
        picture.scores,
        probabilities=picture.scores.probabilities[rows],
        kept=places[picture.scores.kept[kept]],
        features=picture.scores.features[kept],
    )
    return replace(picture, proposals=picture.proposals[rows], scores=scores)


def _objects_found(sample: Sample, detections: Detections, known: Sequence[int]) -> int:
    """The number of objects that a detection of their class overlaps by `FOUND_IOU` or more."""
    wanted = ~sample.difficult & np.isin(sample.labels, known)
    if not wanted.any() or not len(detections):
        return 0
    overlaps = iou(sample.boxes[wanted], detections.boxes)
    same = sample.labels[wanted][:, None] == detections.labels[None]
    return int((np.where(same, overlaps, 0).max(axis=1) >= FOUND_IOU).sum())
