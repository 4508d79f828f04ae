"""Average precision by the rules of PASCAL VOC: 11 points (2007) or the area under the envelope (2010 on).

Against ILSVRC: one IoU threshold of 0.5 for all objects; a detection is held against the object it overlaps most,
even if that is taken; and objects marked difficult count neither way, nor do the detections that fall on them.

Source: ``VOCevaldet.m`` of the VOC 2012 development kit (rules, not code); Everingham et al., "The PASCAL Visual
Object Classes Challenge" (IJCV 2010), section 4.2.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...data.ground_truth import GroundTruth
from ...data.submission import Submission
from .average_precision import area_under_envelope, eleven_points
from .ilsvrc import Evaluation, check_detections, class_results, keys_of, notice_absent_classes, rank
from .matching import match_best, overlapping

_THRESHOLD = 0.5


def evaluate_voc(
    ground_truth: GroundTruth, detections: Submission, year: Literal[2007, 2012] = 2012, lenient: bool = False
) -> Evaluation:
    """Evaluates detections by the rules of VOC; results are of the classes that occur in the ground truth.

    Equal scores: the picture with the smaller number, then the earlier row counts first (the kit leaves this to the
    order of lines). Crowds in COCO data are difficult.

    Args, Raises: as ``evaluation.evaluate``.
    """
    detections, notices = check_detections(ground_truth, detections, lenient)
    object_keys, keys = keys_of(
        (ground_truth.images, ground_truth.labels), (detections.image_indices, detections.labels)
    )
    difficult = ground_truth.difficult | ground_truth.crowd
    close = overlapping(detections.inclusive, keys, ground_truth.inclusive, object_keys, _THRESHOLD)
    matched, ignored = match_best(close, rank(detections), difficult)
    notice_absent_classes(ground_truth, detections, notices)
    labels = np.unique(ground_truth.labels).tolist()
    average_precision = eleven_points if year == 2007 else area_under_envelope
    return Evaluation(
        "voc07" if year == 2007 else "voc12",
        class_results(ground_truth, detections, labels, ~difficult, matched, ignored, average_precision),
        ground_truth,
        detections,
        np.full(len(ground_truth), _THRESHOLD),
        ~difficult,
        matched,
        ignored,
        tuple(notices),
    )
