"""COCO's AP@[.5:.95], AP50, AP75 and AP by size, as pycocotools computes them.

pycocotools gives the numbers. Curves, operating points and the error analysis need one IoU threshold: they are at 0.5,
with COCO's matching (the best free object, at most 100 detections of a class in a picture, crowds left out).
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
from .ilsvrc import Evaluation, check_detections, class_results, keys_of, notice_absent_classes, rank
from .matching import match_free, overlapping

_THRESHOLD = 0.5
_MOST = 100  # detections of a class in a picture that count: the last of COCO's maxDets
_SIZES: Final = ("AP_small", "AP_medium", "AP_large")
_SUMMARY: Final = ("AP", "AP50", "AP75", *_SIZES, "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")


def evaluate_coco(ground_truth: GroundTruth, detections: Submission, lenient: bool = False) -> Evaluation:
    """Evaluates detections with pycocotools; results are of the classes that occur in the ground truth.

    ``Evaluation.measures`` has the twelve numbers of COCO's summary, each ``ClassResult`` its AP@[.5:.95] and in
    ``measures`` AP50, AP75, AP_small, AP_medium and AP_large. ``difficult`` means nothing here; crowds do.

    Args, Raises: as ``evaluation.evaluate``.
    """
    detections, notices = check_detections(ground_truth, detections, lenient)
    notice_absent_classes(ground_truth, detections, notices)
    computed = _run(ground_truth, detections)
    measures = {name: _defined(value) for name, value in zip(_SUMMARY, computed.stats.tolist(), strict=True)}

    matched, ignored = _match(ground_truth, detections)
    labels = np.unique(ground_truth.labels).tolist()
    counted = ~ground_truth.crowd
    results = class_results(ground_truth, detections, labels, counted, matched, ignored, area_under_envelope)
    precision = computed.eval["precision"]  # [10 thresholds, 101 recalls, classes, 4 sizes, 3 maxDets]
    classes = []
    for result in results:
        of_class = precision[:, :, computed.params.catIds.index(result.category.id), :, -1]
        by_size = {name: _mean(of_class[:, :, 1 + i]) for i, name in enumerate(_SIZES)}
        further = {"AP50": _mean(of_class[0, :, 0]), "AP75": _mean(of_class[5, :, 0]), **by_size}
        classes.append(replace(result, ap=_mean(of_class[:, :, 0]), measures=further))
    thresholds = np.full(len(ground_truth), _THRESHOLD)
    return Evaluation(
        "coco",
        tuple(classes),
        ground_truth,
        detections,
        thresholds,
        counted,
        matched,
        ignored,
        tuple(notices),
        measures,
    )


def _run(ground_truth: GroundTruth, detections: Submission) -> Any:
    """A ``COCOeval`` that has accumulated and summarised."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": number} for number in ground_truth.image_indices.tolist()]
    categories = [{"id": one.id, "name": one.name} for one in ground_truth.categories]
    objects = _entries(ground_truth.images, ground_truth.labels, _xywh(ground_truth))
    for entry, area, crowd in zip(objects, ground_truth.areas.tolist(), ground_truth.crowd.tolist(), strict=True):
        entry.update(area=area, iscrowd=int(crowd))
    found = _entries(detections.image_indices, detections.labels, _xywh(detections))
    for entry, score in zip(found, detections.scores.tolist(), strict=True):
        entry.update(area=entry["bbox"][2] * entry["bbox"][3], iscrowd=0, score=score)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        sides = []
        for entries in (objects, found):
            side = COCO()
            side.dataset = {"images": images, "categories": categories, "annotations": entries}
            side.createIndex()
            sides.append(side)
        computed = COCOeval(*sides, "bbox")
        computed.evaluate()
        computed.accumulate()
        computed.summarize()
    return computed


def _entries(images: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], xywh: npt.NDArray[np.float64]) -> list[Any]:
    columns = zip(images.tolist(), labels.tolist(), xywh.tolist(), strict=True)
    return [
        {"id": number, "image_id": image, "category_id": label, "bbox": box}
        for number, (image, label, box) in enumerate(columns, start=1)
    ]


def _xywh(boxes: GroundTruth | Submission) -> npt.NDArray[np.float64]:
    if isinstance(boxes, GroundTruth | CocoSubmission) and boxes.xywh is not None:
        return boxes.xywh
    corner = boxes.inclusive[:, :2] - 1
    return np.concatenate([corner, boxes.inclusive[:, 2:] - corner], axis=1)


def _match(ground_truth: GroundTruth, detections: Submission) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """At IoU 0.5: the object that each detection finds [D], and the detections that do not count [D]."""
    object_keys, keys = keys_of(
        (ground_truth.images, ground_truth.labels), (detections.image_indices, detections.labels)
    )
    ranks = rank(detections)
    order = np.lexsort((ranks, keys))
    within = np.arange(len(keys)) - np.searchsorted(keys[order], keys[order], "left")
    ignored = np.zeros(len(keys), np.bool_)
    ignored[order[within >= _MOST]] = True

    close = overlapping(detections.inclusive, keys, ground_truth.inclusive, object_keys)
    found = close[(close.overlaps >= _THRESHOLD) & ~ground_truth.crowd[close.objects] & ~ignored[close.detections]]
    matched = match_free(found, ranks, len(ground_truth))

    in_crowd = close[ground_truth.crowd[close.objects]]
    width, height = (detections.inclusive[:, 2:] - detections.inclusive[:, :2] + 1)[in_crowd.detections].T
    # IoU = shared / (a + b - shared), so shared = IoU (a + b) / (1 + IoU); COCO compares it with the detection alone.
    iou, own = in_crowd.overlaps, width * height
    crowd_sides = (ground_truth.inclusive[:, 2:] - ground_truth.inclusive[:, :2] + 1)[in_crowd.objects]
    shared = iou * (own + crowd_sides.prod(axis=1)) / (1 + iou)
    ignored[in_crowd.detections[shared / own >= _THRESHOLD]] = True
    return matched, ignored & (matched < 0)


def _mean(precision: npt.NDArray[np.float64]) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if len(defined) else float("nan")


def _defined(value: float) -> float:
    return float("nan") if value == -1 else value
