"""Average precision by the rules of PASCAL VOC: 11 points (2007) or the area under the envelope (since 2010).

VOC differs from ILSVRC in three rules. The IoU threshold is 0.5 for all objects. A detection can only find the object
that it overlaps most, even if a better detection has found that object already. Objects marked difficult, and the
detections that overlap them most, count neither way.

Source: ``VOCevaldet.m`` of the VOC 2012 development kit (rules, not code); Everingham et al., "The PASCAL Visual
Object Classes Challenge" (IJCV 2010), section 4.2.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...data.ground_truth import GroundTruth
from ...data.submission import Submission
from .average_precision import area_under_envelope, eleven_point_ap
from .checks import absent_class_notices, check_detections
from .detection_order import rank_detections
from .matching import match_closest_objects, overlapping_pairs, picture_class_keys
from .result import Evaluation, class_results

_MIN_IOU = 0.5


def evaluate_voc(
    ground_truth: GroundTruth, detections: Submission, year: Literal[2007, 2012] = 2012, lenient: bool = False
) -> Evaluation:
    """Evaluates detections by the rules of VOC.

    Args:
        ground_truth: the objects. Crowds of COCO data count as difficult.
        detections: in any order. Ties are broken as in ``ilsvrc.evaluate``; in the kit they depend on the sorting.
        year: 2007 takes AP at 11 recalls, 2012 the area under the envelope.
        lenient: as in ``ilsvrc.evaluate``.

    Returns:
        An evaluation with the classes that occur in the ground truth.

    Raises:
        EvaluationError: as in ``ilsvrc.evaluate``.
    """
    detections, notices = check_detections(ground_truth, detections, lenient)
    object_keys, keys = picture_class_keys(
        (ground_truth.images, ground_truth.labels), (detections.image_indices, detections.labels)
    )
    difficult = ground_truth.difficult | ground_truth.crowd
    pairs = overlapping_pairs(detections.inclusive, keys, ground_truth.inclusive, object_keys, _MIN_IOU)
    matched, ignored = match_closest_objects(pairs, rank_detections(detections), difficult)
    labels = np.unique(ground_truth.labels).tolist()
    average_precision = eleven_point_ap if year == 2007 else area_under_envelope
    return Evaluation(
        protocol="voc07" if year == 2007 else "voc12",
        classes=class_results(ground_truth, detections, labels, ~difficult, matched, ignored, average_precision),
        ground_truth=ground_truth,
        detections=detections,
        thresholds=np.full(len(ground_truth), _MIN_IOU),
        counted=~difficult,
        matched=matched,
        ignored=ignored,
        notices=(*notices, *absent_class_notices(ground_truth, detections)),
    )
