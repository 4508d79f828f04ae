"""Mean average precision by the rules of ILSVRC DET, equal to the official kit's to the last digit.

    truth = read_ground_truth("val/", "val.txt")
    evaluation = evaluate(truth, read_submission("predictions.txt"), blacklist=read_blacklist("blacklist.txt"))
    evaluation.mean_ap(), evaluation.classes[0].ap

To evaluate arrays in place of files, call ``evaluate(GroundTruth.from_arrays(...), Submission(...))``.
``docs/evaluation.md`` lists the rules, and the cases in which the results differ from the kit's.

Source: ``eval_detection.m`` of the ILSVRC 2014 development kit. The rules are the same; no code is copied.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...data.ground_truth import GroundTruth
from ...data.submission import Submission
from .average_precision import area_under_envelope
from .checks import EvaluationError, check_detections
from .detection_order import rank_detections
from .matching import match_free_objects, object_thresholds, overlapping_pairs, picture_class_keys
from .result import Evaluation, class_results

# Data sets have at most some thousand classes. With larger ids, the classes that do not occur are not listed.
_LARGEST_LISTED_ID = 10_000


def evaluate(
    ground_truth: GroundTruth,
    detections: Submission,
    blacklist: Iterable[tuple[int, int]] = (),
    lenient: bool = False,
) -> Evaluation:
    """Evaluates detections by the rules of ILSVRC DET.

    Args:
        ground_truth: the objects. The flags ``difficult`` and ``crowd`` are ignored.
        detections: in any order. Ties between equal scores are broken by smaller picture number, then by earlier row.
        blacklist: pairs (image index, class id). Detections and objects of the class in this image are ignored, as are
            those of `GroundTruth.unannotated`.
        lenient: leave out detections in pictures that are not listed, detections whose score is NaN, and detections
            whose box is not finite. ``Evaluation.notices`` says how many detections were left out.

    Raises:
        EvaluationError: the ground truth has no objects, or, unless ``lenient``, a detection is in a picture that is
            not listed (the official code crashes), has the score NaN, or has a box that is not finite; or a number of
            the blacklist has more than 64 bits.
    """
    detections, notices = check_detections(ground_truth, detections, lenient)
    try:
        blacklisted = np.array(sorted({*blacklist, *ground_truth.unannotated}), dtype=np.int64).reshape(-1, 2)
    except OverflowError as error:
        raise EvaluationError("a number of the blacklist has more than 64 bits; expected image indices") from error
    not_listed = int((~np.isin(blacklisted[:, 0], ground_truth.image_indices)).sum())
    if not_listed:
        notices.append(f"{not_listed} of {len(blacklisted)} blacklisted pairs are in pictures that are not listed")
    object_keys, keys, blacklisted_keys = picture_class_keys(
        (ground_truth.images, ground_truth.labels),
        (detections.image_indices, detections.labels),
        (blacklisted[:, 0], blacklisted[:, 1]),
    )
    ignored = np.isin(keys, blacklisted_keys)
    thresholds = object_thresholds(ground_truth.inclusive)
    keys_to_match = np.where(ignored, -1, keys)
    pairs = overlapping_pairs(detections.inclusive, keys_to_match, ground_truth.inclusive, object_keys, thresholds)
    matched = match_free_objects(pairs, rank_detections(detections), len(ground_truth))
    counted = ~np.isin(object_keys, blacklisted_keys)
    largest = int(ground_truth.labels.max())
    beyond = int((detections.labels > largest).sum())
    if beyond:
        notices.append(f"{beyond} detections of classes above {largest}, the largest in the ground truth, are left out")
    return Evaluation(
        protocol="ilsvrc",
        classes=class_results(
            ground_truth, detections, _classes(ground_truth, detections), counted, matched, ignored, area_under_envelope
        ),
        ground_truth=ground_truth,
        detections=detections,
        thresholds=thresholds,
        counted=counted,
        matched=matched,
        ignored=ignored,
        notices=tuple(notices),
    )


def _classes(ground_truth: GroundTruth, detections: Submission) -> list[int]:
    """The ids of the classes 1 to the largest in the ground truth, and 0 if it occurs there (in COCO files).

    If the largest is above `_LARGEST_LISTED_ID`, the ids that occur in ground truth or detections.
    """
    first, largest = min(1, int(ground_truth.labels.min())), int(ground_truth.labels.max())
    if largest <= _LARGEST_LISTED_ID:
        return list(range(first, largest + 1))
    occurring = np.union1d(ground_truth.labels, detections.labels)
    return occurring[(occurring >= first) & (occurring <= largest)].tolist()
