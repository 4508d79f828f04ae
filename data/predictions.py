"""Detections from a file of either kind, in the numbers of the ground truth that they are held against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from .categories import category_ids
from .coco import CocoDetections, inclusive_from_xywh, read_detections
from .ground_truth import GroundTruth
from .submission import Submission, read_submission


class PredictionsError(ValueError):
    """Detections that do not belong to the ground truth; the message says which and what to do."""


@dataclass(frozen=True, eq=False)
class CocoSubmission(Submission):
    """Detections that come from a COCO file.

    Attributes:
        xywh: float64 [N, 4], the boxes as the file has them; ``inclusive`` differs from these by rounding.
    """

    xywh: npt.NDArray[np.float64] = None  # type: ignore[assignment]  # no default is meant; ``skipped`` has one


def read_predictions(
    path: str | Path, ground_truth: GroundTruth, lenient: bool = False
) -> tuple[Submission, list[str]]:
    """Reads ``detections.json`` or a list of COCO results (``.json``), else a submission file.

    Pictures of ``detections.json`` are found by their file name without suffix, which ends with the ``image_id`` of
    the list; classes by WNID, else by name. A list of results has the ground truth's own numbers.

    Args:
        lenient: skip what is malformed or belongs to pictures that are not listed, and count it.

    Returns:
        The detections, and sentences on what a reader of the numbers should know.

    Raises:
        SubmissionError, CocoError: a file that is malformed.
        PredictionsError: two pictures of one name, or pictures that are not listed unless ``lenient``.
    """
    if Path(path).suffix.lower() != ".json":
        return read_submission(path, lenient), []
    found = read_detections(path, lenient)
    notices: list[str] = []
    if found.failures:
        notices.append(f"{found.failures} pictures could not be read by the detector; their objects are missed")
    images, labels = found.image_ids, found.category_ids
    keep = np.ones(len(images), dtype=np.bool_)
    if found.file_names is not None:
        images, listed = _picture_numbers(found, ground_truth, path, lenient, notices)
        labels, known = _labels(found, ground_truth, notices)
        keep = listed & known
    return CocoSubmission(
        images[keep],
        labels[keep],
        found.scores[keep],
        inclusive_from_xywh(found.xywh[keep]),
        found.skipped,
        found.xywh[keep],
    ), notices


def _picture_numbers(
    found: CocoDetections, ground_truth: GroundTruth, path: str | Path, lenient: bool, notices: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The number in the ground truth of each detection's picture, int64 [N], and whether it has one, bool [N]."""
    assert found.file_names is not None
    numbers = dict(zip(ground_truth.image_ids, ground_truth.image_indices.tolist(), strict=True))
    depths = sorted({image_id.count("/") + 1 for image_id in numbers}, reverse=True)
    matched: dict[int, int] = {}
    source: dict[int, str] = {}
    strange = []
    for image_id, file_name in found.file_names.items():
        parts = PurePosixPath(file_name.replace("\\", "/")).with_suffix("").parts
        candidates = ("/".join(parts[-depth:]) for depth in depths)
        number = next((numbers[one] for one in candidates if one in numbers), None)
        if number is None:
            strange.append(file_name)
        elif number in source:
            raise PredictionsError(
                f"{path}: {source[number]!r} and {file_name!r} both are picture {number} of {ground_truth.name}; "
                "expected every picture once"
            )
        else:
            matched[image_id], source[number] = number, file_name
    if strange:
        problem = f"{len(strange)} of {len(found.file_names)} pictures are not in {ground_truth.name}"
        if not lenient:
            example = ground_truth.image_ids[0] if ground_truth.image_ids else "nothing"
            hint = f"the list has names like {example!r}; --lenient leaves them out"
            raise PredictionsError(f"{path}: {problem}, the first is {strange[0]!r}; {hint}")
        notices.append(f"{problem}; they are left out")
    absent = len(numbers) - len(matched)
    if absent:
        notices.append(
            f"{absent} of {len(numbers)} pictures of the list are not in the predictions; they are evaluated"
        )
    images = np.array([matched.get(one, -1) for one in found.image_ids.tolist()], dtype=np.int64)
    return images, np.isin(found.image_ids, np.array(list(matched), dtype=np.int64))


def _labels(
    found: CocoDetections, ground_truth: GroundTruth, notices: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The class id in the ground truth of each detection, int64 [N], and whether it has one, bool [N]."""
    ids = category_ids(ground_truth.categories)
    ours = {one.id: ids.get(one.wnid, ids.get(one.name)) for one in found.categories or ()}
    labels = [ours.get(one) for one in found.category_ids.tolist()]
    known = np.array([one is not None for one in labels], dtype=np.bool_)
    if not known.all():
        names = {one.id: one.name for one in found.categories or ()}
        unknown = sorted({names.get(one, str(one)) for one in found.category_ids[~known].tolist()})
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        notices.append(
            f"{int((~known).sum())} detections are of classes that {ground_truth.name} does not have: {shown}"
        )
    return np.array([one or 0 for one in labels], dtype=np.int64), known
