"""Reads detections for evaluation and converts their picture and class ids to the ids of the ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from .categories import category_ids
from .coco import CocoDetections, inclusive_from_xywh, read_detections
from .ground_truth import GroundTruth
from .images import without_suffix
from .submission import Submission, read_submission


class PredictionsError(ValueError):
    """Detections do not belong to the ground truth; the message names them and the remedy."""


@dataclass(frozen=True, eq=False)
class CocoSubmission(Submission):
    """Detections from a COCO file.

    Attributes:
        xywh: float64 [N, 4], the boxes as in the file. `inclusive` holds the same boxes, converted with rounding.
        pictures: int64, the numbers of all pictures that the detector has read; None for a list of results, which only
            names pictures with detections.
    """

    xywh: npt.NDArray[np.float64] = None  # type: ignore[assignment]  # required; but `skipped` has a default
    pictures: npt.NDArray[np.int64] | None = None


def read_predictions(
    path: str | Path, ground_truth: GroundTruth, lenient: bool = False
) -> tuple[Submission, list[str]]:
    """Reads `detections.json` or a list of COCO results (suffix `.json`), or a submission file (other suffixes).

    The file names in `detections.json` are matched with the pictures of the ground truth: first with the names of their
    files, then, without picture suffix, with their image ids. A file name may have further folders before it. Classes
    are matched by WNID, then by name. Lists of results and submission files already use the ids of the ground truth.

    Args:
        lenient: skip and count malformed detections, and detections in pictures that are not in the ground truth.

    Returns:
        The detections, and notices to print with the results: for example, how many pictures could not be read.

    Raises:
        SubmissionError, CocoError: the file is malformed.
        PredictionsError: two file names match the same picture, a file name matches two pictures, or, unless `lenient`,
            a file name matches no picture.
    """
    if Path(path).suffix.lower() != ".json":
        return read_submission(path, lenient), []
    found = read_detections(path, lenient)
    notices: list[str] = []
    if found.failures:
        notices.append(f"the detector could not read {found.failures} pictures")
    images, labels = found.image_ids, found.category_ids
    keep = np.ones(len(images), dtype=np.bool_)
    pictures = None
    if found.file_names is not None:
        numbers = _match_pictures(found, ground_truth, path, lenient, notices)
        pictures = np.array(sorted(numbers.values()), dtype=np.int64)
        listed = np.isin(images, np.array(list(numbers), dtype=np.int64))
        images = np.array([numbers.get(image_id, -1) for image_id in images.tolist()], dtype=np.int64)
        labels, known = _match_classes(found, ground_truth, notices)
        keep = listed & known
    return CocoSubmission(
        images[keep],
        labels[keep],
        found.scores[keep],
        inclusive_from_xywh(found.xywh[keep]),
        found.skipped,
        found.xywh[keep],
        pictures,
    ), notices


def predicted_pictures(detections: Submission) -> npt.NDArray[np.int64]:
    """Returns the numbers of the pictures that the detector has looked at, rising.

    `detections.json` names them. Of other files only those with detections are known.
    """
    if isinstance(detections, CocoSubmission) and detections.pictures is not None:
        return detections.pictures
    return np.unique(detections.image_indices)


def missing_pictures(detections: Submission, ground_truth: GroundTruth) -> tuple[str, bool] | None:
    """Returns a sentence about the pictures that were not looked at, and whether they are most; None if there are none.

    A file that names only pictures with detections says little about the others: they are reported only if they are
    most.
    """
    count = len(ground_truth.image_indices)
    looked_at = int(np.isin(ground_truth.image_indices, predicted_pictures(detections)).sum())
    are_most = 2 * looked_at < count
    is_known = isinstance(detections, CocoSubmission) and detections.pictures is not None
    if looked_at == count or not (is_known or are_most):
        return None
    sentence = (
        f"{count - looked_at} of {count} pictures of the list are not in the predictions; their objects count as missed"
    )
    return sentence + (f". --only-predicted measures the other {looked_at}" if are_most else ""), are_most


def _match_pictures(
    found: CocoDetections, ground_truth: GroundTruth, path: str | Path, lenient: bool, notices: list[str]
) -> dict[int, int]:
    """Returns the number in the ground truth of each picture of the file that is there, by its id in the file."""
    assert found.file_names is not None
    names = {image_id: name.replace("\\", "/") for image_id, name in found.file_names.items()}
    by_file, by_id = _NumbersByName(_file_names(ground_truth)), _NumbersByName(_image_ids(ground_truth))
    matched: dict[int, int] = {}
    source: dict[int, int] = {}  # the inverse of `matched`
    exact = {image_id: numbers for image_id, name in names.items() if (numbers := by_file.find(name))}
    taken = {number for numbers in exact.values() for number in numbers}
    unlisted = []
    for image_id, name in names.items():
        numbers = exact.get(image_id) or [one for one in by_id.find(without_suffix(name)) if one not in taken]
        if not numbers:
            unlisted.append(name)
            continue
        if len(numbers) > 1:
            raise PredictionsError(
                f"{path}: {name!r} matches the pictures {numbers[0]} and {numbers[1]} of {ground_truth.name}; expected "
                "file names that tell pictures apart, with suffix and folders"
            )
        (number,) = numbers
        if number in source:
            raise PredictionsError(
                f"{path}: {names[source[number]]!r} and {name!r} both match picture {number} of {ground_truth.name}; "
                "expected each picture once"
            )
        matched[image_id], source[number] = number, image_id
    count = len(ground_truth.image_ids)
    if unlisted:
        problem = f"{len(unlisted)} of {len(found.file_names)} pictures are not in {ground_truth.name}"
        if not lenient:
            example = f"the list contains {ground_truth.image_ids[0]!r}" if count else "the list is empty"
            hint = f"{example}; --lenient ignores these pictures, --split chooses another list"
            raise PredictionsError(f"{path}: {problem}, the first is {unlisted[0]!r}; {hint}")
        notices.append(f"{problem}; they are ignored")
    return matched


def _match_classes(
    found: CocoDetections, ground_truth: GroundTruth, notices: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Returns the class id in the ground truth for each detection, int64 [N], and whether it exists, bool [N]."""
    ids = category_ids(ground_truth.categories)
    categories = found.categories or ()
    matched = {category.id: ids.get(category.wnid, ids.get(category.name)) for category in categories}
    labels = [matched.get(category_id) for category_id in found.category_ids.tolist()]
    known = np.array([label is not None for label in labels], dtype=np.bool_)
    if not known.all():
        names = {category.id: category.name for category in categories}
        unknown = sorted({names.get(number, str(number)) for number in found.category_ids[~known].tolist()})
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        count = int((~known).sum())
        notices.append(f"{count} detections of classes that are not in {ground_truth.name} are ignored: {shown}")
    return np.array([0 if label is None else label for label in labels], dtype=np.int64), known


class _NumbersByName:
    """Finds the numbers of pictures by the end of a path."""

    def __init__(self, names: Iterable[tuple[str, int]]) -> None:
        self._numbers: dict[str, list[int]] = {}
        for name, number in names:
            self._numbers.setdefault(name, []).append(number)
        self._depths = sorted({name.count("/") + 1 for name in self._numbers}, reverse=True)

    def find(self, path: str) -> list[int]:
        """Returns the numbers of the longest name at the end of a path; an empty list if there is none."""
        parts = PurePosixPath(path).parts
        ends = ("/".join(parts[-depth:]) for depth in self._depths)
        return next((self._numbers[end] for end in ends if end in self._numbers), [])


def _image_ids(ground_truth: GroundTruth) -> Iterator[tuple[str, int]]:
    return zip(ground_truth.image_ids, ground_truth.image_indices.tolist(), strict=True)


def _file_names(ground_truth: GroundTruth) -> Iterator[tuple[str, int]]:
    """Yields the name of each picture file that is known, with the number of the picture."""
    if ground_truth.file_names is not None:
        yield from zip(ground_truth.file_names, ground_truth.image_indices.tolist(), strict=True)
        return
    for image_id, number in _image_ids(ground_truth):
        if number in ground_truth.paths:
            yield PurePosixPath(image_id).with_name(ground_truth.paths[number].name).as_posix(), number
