"""Measuring a trained detector on annotated pictures, for its card."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...data.boxes import to_inclusive
from ...data.dataset import Dataset, Sample
from ...data.ground_truth import GroundTruth
from ...data.submission import Submission
from ..detections import Detections
from ..detector import Detector
from ..evaluation.bootstrap import bootstrap, interval
from ..evaluation.ilsvrc import Evaluation, evaluate
from ..evaluation.voc import evaluate_voc
from ..model_files import model_digest
from ..model_json import read_description
from ..run_state import OtherRunError, Result, RunState, RunStateError
from .errors import TrainingError
from .progress import Report, no_report

_RESAMPLES = 1000


def measure_detector(
    model: Path,
    dataset: Dataset,
    folder: Path,
    *,
    pictures: int,
    seed: int = 0,
    device: str = "auto",
    report: Report = no_report,
) -> dict[str, Any]:
    """Measure mean AP, and AP of each class, of a model folder on pictures that it was not trained on.

    The protocol is VOC 2012 if the data set marks any object as difficult, else ILSVRC. An interrupted measurement
    resumes.

    Args:
        model: the model folder.
        dataset: annotated pictures.
        folder: for the detections, in evaluation.sqlite.
        pictures: number of pictures to measure on, drawn at random; all pictures if there are fewer.
        seed: of the draw.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with the stage "evaluation" and the number of pictures done.

    Returns:
        The figures for the card, see `figures`.

    Raises:
        TrainingError: a picture cannot be read, no picture has an object that counts, or evaluation.sqlite cannot be
            written or belongs to another process.
    """
    drawn = np.sort(np.random.default_rng([seed, 10]).permutation(len(dataset))[:pictures])
    samples = [dataset[int(number)] for number in drawn]
    marks_difficult = any(dataset[number].difficult.any() for number in range(len(dataset)))
    if not any(len(sample.labels[~sample.difficult] if marks_difficult else sample.labels) for sample in samples):
        raise TrainingError(f"{dataset.name}: none of {len(samples)} pictures shows an object to find")
    paths = [sample.path for sample in samples]
    file = folder / "evaluation.sqlite"
    identity = {"the model's digest": model_digest(model)}
    described = read_description(model / "model.json")
    open_state = partial(RunState, file, identity, paths, categories=described.categories, finest=described.subclasses)
    try:
        try:
            state = open_state(existing="resume")
        except OtherRunError:  # A run over another model or other pictures, or a damaged file.
            file.unlink()
            state = open_state(existing="refuse")
        with state:
            left = state.left()
            done = len(paths) - len(left)
            report("evaluation", done, len(paths), {})
            todo = [paths[number] for number in left]
            results = Detector.load(model, device=device).detect_files(todo) if left else ()
            for number, result in zip(left, results, strict=True):
                if result.image is None:
                    raise TrainingError(str(result.error))
                height, width = result.image.shape[:2]
                state.add(Result(number, width, height, result.detections, None))
                done += 1
                report("evaluation", done, len(paths), {})
            detections = [result.detections for result in state.results() if result.detections is not None]
    except RunStateError as error:
        raise TrainingError(str(error)) from error
    return figures(evaluate_detections(samples, detections, dataset, marks_difficult))


def evaluate_detections(
    samples: Sequence[Sample], detections: Sequence[Detections], dataset: Dataset, marks_difficult: bool
) -> Evaluation:
    """Compare the detections in each picture with its objects.

    Detections of classes that are not annotated in a picture are ignored there; VOC's protocol has no such rule.

    Args:
        samples: the pictures, not empty.
        detections: the detections in each picture.
        dataset: the data set of the samples; its classes and its name go into the evaluation.
        marks_difficult: whether the data set marks objects as difficult. The protocol is then VOC 2012, else ILSVRC.
    """
    boxes = [sample.boxes for sample in samples]
    truth = GroundTruth.from_arrays(
        range(len(samples)),
        np.repeat(np.arange(len(samples)), [len(one) for one in boxes]),
        np.concatenate([sample.labels for sample in samples]),
        to_inclusive(np.concatenate(boxes)),
        difficult=np.concatenate([sample.difficult for sample in samples]),
        categories=dataset.categories,
        name=dataset.name,
    )
    submission = Submission.from_boxes(
        np.repeat(np.arange(len(samples)), [len(one) for one in detections]),
        np.concatenate([one.labels for one in detections]),
        np.concatenate([one.scores for one in detections]),
        np.concatenate([one.boxes for one in detections]),
    )
    if marks_difficult:
        return evaluate_voc(truth, submission)
    unknown = [
        (number, category.id)
        for number, sample in enumerate(samples)
        if sample.annotated is not None
        for category in dataset.categories
        if category.id not in sample.annotated
    ]
    return evaluate(truth, submission, blacklist=unknown)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation in the form of a model's card.

    Returns:
        "data", "pictures", "protocol", "mAP", "interval" (of the mean AP: the middle 95 % of the bootstrap) and
        "classes": "AP", "interval" and "objects" of each class that has objects, by name. AP is in 0..1.
    """
    drawn = bootstrap(evaluation, _RESAMPLES)
    return {
        "data": evaluation.ground_truth.name,
        "pictures": len(evaluation.ground_truth.image_indices),
        "protocol": evaluation.protocol,
        "mAP": round(evaluation.mean_ap(), 4),
        "interval": _rounded(interval(drawn.mean)),
        "classes": {
            one.category.name: {
                "AP": round(one.ap, 4),
                "interval": _rounded(interval(drawn.of(one.category.id))),
                "objects": one.positives,
            }
            for one in evaluation.classes
            if one.positives
        },
    }


def _rounded(ends: tuple[float, float]) -> list[float]:
    return [round(end, 4) for end in ends]
