"""Mean average precision by the rules of ILSVRC DET, equal to the official kit's to the last digit.

    truth = read_ground_truth("val/", "val.txt")
    evaluation = evaluate(truth, read_submission("predictions.txt"), blacklist=read_blacklist("blacklist.txt"))
    evaluation.mean_ap(), evaluation.classes[0].ap

Arrays in place of files: ``evaluate(GroundTruth.from_arrays(...), Submission(...))``. ``docs/evaluation.md`` has the
rules, and the cases in which they differ from the kit.

Source: ``eval_detection.m`` of the ILSVRC 2014 development kit (rules, not code).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...data.ground_truth import GroundTruth
from ...data.submission import Submission
from .average_precision import area_under_envelope
from .checks import check_detections
from .detection_order import rank_detections
from .matching import match_free_objects, object_thresholds, overlapping_pairs, picture_class_keys
from .result import Evaluation, class_results


def evaluate(
    ground_truth: GroundTruth,
    detections: Submission,
    blacklist: Iterable[tuple[int, int]] = (),
    lenient: bool = False,
) -> Evaluation:
    """Evaluates detections by the rules of ILSVRC DET.

    Args:
        ground_truth: the objects. The flags ``difficult`` and ``crowd`` are ignored.
        detections: in any order. Of equal scores, the detection in the picture with the smaller number counts first,
            then the detection in the earlier row.
        blacklist: pairs (image index, class id). Detections and objects of the class in this image count neither way.
        lenient: leave out detections in pictures that are not listed and detections whose score or box is not a
            number. ``Evaluation.notices`` says how many.

    Raises:
        EvaluationError: the ground truth has no objects, or, unless ``lenient``, a detection is in a picture that is
            not listed (the official code crashes) or has a score or box that is not a number.
    """
    detections, notices = check_detections(ground_truth, detections, lenient)
    blacklisted = np.array(sorted(set(blacklist)), dtype=np.int64).reshape(-1, 2)
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
            ground_truth, detections, range(1, largest + 1), counted, matched, ignored, area_under_envelope
        ),
        ground_truth=ground_truth,
        detections=detections,
        thresholds=thresholds,
        counted=counted,
        matched=matched,
        ignored=ignored,
        notices=tuple(notices),
    )
