"""How good a trained detector is, for its card."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...data.boxes import to_inclusive
from ...data.dataset import Dataset
from ...data.ground_truth import GroundTruth
from ...data.submission import Submission
from ..detector import Detector
from ..evaluation.bootstrap import bootstrap, interval
from ..evaluation.ilsvrc import Evaluation, evaluate
from ..evaluation.voc import evaluate_voc
from ..model_files import model_digest
from ..run_state import Result, RunState, RunStateError
from .errors import TrainingError

_RESAMPLES = 1000


def measure_detector(
    model: Path,
    dataset: Dataset,
    folder: Path,
    *,
    pictures: int,
    seed: int = 0,
    device: str = "auto",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The figures of a model folder on pictures that it was not trained on: mean AP, and AP of each class.

    By the rules of ILSVRC, or where any objects of `dataset` are marked difficult by those of VOC 2012. A
    measurement that was interrupted goes on where it was.

    Args:
        model: the model folder.
        dataset: annotated pictures.
        folder: keeps what was found, in evaluation.sqlite.
        pictures: at most so many of them, drawn at random.
        seed: of the draw.
        report: called with the number of pictures done and in all.

    Raises:
        TrainingError: a picture cannot be read, or none of them shows an object to find.
    """
    drawn = np.sort(np.random.default_rng([seed, 10]).permutation(len(dataset))[:pictures])
    samples = [dataset[int(number)] for number in drawn]
    marked = any(dataset[number].difficult.any() for number in range(len(dataset)))
    if not any(len(sample.labels[~sample.difficult] if marked else sample.labels) for sample in samples):
        raise TrainingError(f"{dataset.name}: none of {len(samples)} pictures shows an object to find")
    paths = [sample.path for sample in samples]
    file = folder / "evaluation.sqlite"
    about = {"the model's digest": model_digest(model)}
    try:
        state = RunState(file, about, paths, resume=file.exists())
    except RunStateError:  # of another model, or of other pictures
        file.unlink()
        state = RunState(file, about, paths, resume=False)
    with state:
        left = state.left()
        done = len(paths) - len(left)
        report(done, len(paths))
        found = Detector.load(model, device=device).detect_files([paths[number] for number in left]) if left else ()
        for number, one in zip(left, found, strict=True):
            if one.image is None:
                raise TrainingError(str(one.error))
            height, width = one.image.shape[:2]
            state.add(Result(number, width, height, one.detections, None))
            done += 1
            report(done, len(paths))
        results = [result.detections for result in state.results()]
    detections = [one for one in results if one is not None]
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
    return figures((evaluate_voc if marked else evaluate)(truth, submission))


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as it stands in a model's card: "interval" is the middle 95 % of pictures drawn again."""
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
