"""COCO's AP@[.5:.95], AP50, AP75 and AP by size, computed by pycocotools.

Curves, operating points and the error analysis need a single IoU threshold, which is 0.5. They use COCO's matching: a
detection takes the free object that it overlaps most. At most 100 detections of a class count in each picture. Crowds
are left out.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...data.ground_truth import GroundTruth
from ...data.predictions import CocoSubmission
from ...data.submission import Submission
from .average_precision import area_under_envelope
from .checks import EvaluationError, absent_class_notices, check_detections
from .detection_order import rank_detections
from .matching import match_free_objects, overlapping_pairs, picture_class_keys
from .result import Evaluation, class_results

_MIN_IOU = 0.5
_MAX_DETECTIONS = 100  # for each class in each picture: the largest of COCO's maxDets
_MOST_PAIRS = 10_000_000  # pictures x classes; COCO train 2017 has 9.4 million, which take some 2 GB
_SIZES: Final = ("AP_small", "AP_medium", "AP_large")
_SUMMARY: Final = ("AP", "AP50", "AP75", *_SIZES, "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


def evaluate_coco(ground_truth: GroundTruth, detections: Submission, lenient: bool = False) -> Evaluation:
    """Evaluates detections with pycocotools.

    Args:
        ground_truth: the objects. The flag ``difficult`` is ignored.
        detections: in any order.
        lenient: as in ``ilsvrc.evaluate``.

    Returns:
        An evaluation with the classes that occur in the ground truth. ``Evaluation.measures`` has the twelve numbers of
        COCO's summary. ``ClassResult.ap`` is AP@[.5:.95]. ``ClassResult.measures`` has AP50, AP75, AP_small, AP_medium
        and AP_large.

    Raises:
        EvaluationError: as in ``ilsvrc.evaluate``; or the ground truth has too many pictures and classes for
            pycocotools.
    """
    detections, notices = check_detections(ground_truth, detections, lenient)
    pairs = len(ground_truth.image_indices) * len(np.unique(ground_truth.labels))
    if pairs > _MOST_PAIRS:
        raise EvaluationError(
            f"{ground_truth.name}: {pairs:,} pairs of a picture and a class, expected at most {_MOST_PAIRS:,}, because "
            "pycocotools keeps each in memory; use another protocol, or evaluate parts of the pictures"
        )
    computed = _run_pycocotools(ground_truth, detections)
    summary = zip(_SUMMARY, computed.stats.tolist(), strict=True)

    matched, ignored = _match(ground_truth, detections)
    labels = np.unique(ground_truth.labels).tolist()
    counted = ~ground_truth.crowd
    results = class_results(ground_truth, detections, labels, counted, matched, ignored, area_under_envelope)
    precision = computed.eval["precision"]  # [10 thresholds, 101 recalls, classes, 4 sizes, 3 maxDets]
    classes = []
    for result in results:
        of_class = precision[:, :, computed.params.catIds.index(result.category.id), :, -1]
        by_size = {name: _mean(of_class[:, :, 1 + i]) for i, name in enumerate(_SIZES)}
        measures = {"AP50": _mean(of_class[0, :, 0]), "AP75": _mean(of_class[5, :, 0]), **by_size}
        classes.append(replace(result, ap=_mean(of_class[:, :, 0]), measures=measures))
    return Evaluation(
        protocol="coco",
        classes=tuple(classes),
        ground_truth=ground_truth,
        detections=detections,
        thresholds=np.full(len(ground_truth), _MIN_IOU),
        counted=counted,
        matched=matched,
        ignored=ignored,
        notices=(*notices, *absent_class_notices(ground_truth, detections)),
        measures={name: float("nan") if value == -1 else value for name, value in summary},
    )


def _run_pycocotools(ground_truth: GroundTruth, detections: Submission) -> Any:
    """Returns a ``COCOeval`` with all results, after ``accumulate()`` and ``summarize()``."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": number} for number in ground_truth.image_indices.tolist()]
    categories = [{"id": category.id, "name": category.name} for category in ground_truth.categories]
    objects = _annotations(ground_truth.images, ground_truth.labels, _xywh(ground_truth))
    for entry, area, crowd in zip(objects, ground_truth.areas.tolist(), ground_truth.crowd.tolist(), strict=True):
        entry.update(area=area, iscrowd=int(crowd))
    found = _annotations(detections.image_indices, detections.labels, _xywh(detections))
    for entry, score in zip(found, detections.scores.tolist(), strict=True):
        entry.update(area=entry["bbox"][2] * entry["bbox"][3], iscrowd=0, score=score)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        data_sets = []
        for entries in (objects, found):
            data_set = COCO()
            data_set.dataset = {"images": images, "categories": categories, "annotations": entries}
            data_set.createIndex()
            data_sets.append(data_set)
        computed = COCOeval(*data_sets, "bbox")
        # Classes without objects count in none of COCO's numbers, and a file may define any number of them.
        computed.params.catIds = np.unique(ground_truth.labels).tolist()
        computed.evaluate()
        computed.accumulate()
        computed.summarize()
    return computed


def _annotations(
    images: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], xywh: npt.NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Returns the boxes as the entries of a COCO file."""
    columns = zip(images.tolist(), labels.tolist(), xywh.tolist(), strict=True)
    return [
        {"id": number, "image_id": image, "category_id": label, "bbox": box}
        for number, (image, label, box) in enumerate(columns, start=1)
    ]


def _xywh(boxes: GroundTruth | Submission) -> npt.NDArray[np.float64]:
    """Returns (x, y, width, height), 0-based, float64 [N, 4]. Boxes from a COCO file are returned as in the file."""
    if isinstance(boxes, GroundTruth | CocoSubmission) and boxes.xywh is not None:
        return boxes.xywh
    corner = boxes.inclusive[:, :2] - 1
    return np.concatenate([corner, boxes.inclusive[:, 2:] - corner], axis=1)


def _match(ground_truth: GroundTruth, detections: Submission) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Matches detections to objects at IoU 0.5.

    Returns:
        matched: int64 [D], the object that each detection finds, or -1.
        ignored: bool [D], unmatched detections beyond the 100 best of their class and picture, or on crowds.
    """
    object_keys, keys = picture_class_keys(
        (ground_truth.images, ground_truth.labels), (detections.image_indices, detections.labels)
    )
    ranks = rank_detections(detections)
    order = np.lexsort((ranks, keys))
    rank_within_key = np.arange(len(keys)) - np.searchsorted(keys[order], keys[order], "left")
    ignored = np.zeros(len(keys), np.bool_)
    ignored[order[rank_within_key >= _MAX_DETECTIONS]] = True

    pairs = overlapping_pairs(detections.inclusive, keys, ground_truth.inclusive, object_keys)
    eligible = (pairs.ious >= _MIN_IOU) & ~ground_truth.crowd[pairs.objects] & ~ignored[pairs.detections]
    matched = match_free_objects(pairs[eligible], ranks, len(ground_truth))

    crowd_pairs = pairs[ground_truth.crowd[pairs.objects]]
    sides = (detections.inclusive[:, 2:] - detections.inclusive[:, :2] + 1)[crowd_pairs.detections]
    crowd_sides = (ground_truth.inclusive[:, 2:] - ground_truth.inclusive[:, :2] + 1)[crowd_pairs.objects]
    area, crowd_area = sides[:, 0] * sides[:, 1], crowd_sides.prod(axis=1)
    # COCO divides the intersection with a crowd by the detection's area, not by the union. As
    # IoU = intersection / (a + b - intersection), the intersection is IoU (a + b) / (1 + IoU).
    intersection = crowd_pairs.ious * (area + crowd_area) / (1 + crowd_pairs.ious)
    ignored[crowd_pairs.detections[intersection / area >= _MIN_IOU]] = True
    return matched, ignored & (matched < 0)


def _mean(precision: npt.NDArray[np.float64]) -> float:
    """Returns the mean of the precisions that are defined, or NaN if none is. pycocotools writes -1 if undefined."""
    defined = precision[precision > -1]
    return float(defined.mean()) if len(defined) else float("nan")
