"""Turns the scores of regions into detections: non-maximum suppression and box voting."""

from dataclasses import replace

import numpy as np
import torch

from ..data.boxes import iou
from ..runtime.torchvision_ops import nms
from .detections import Detections

# A region is suppressed if its IoU with a higher-scoring region of the same class is larger than this (as in R-CNN).
NMS_THRESHOLD = 0.3
# Regions with at least this IoU with a detection vote on its box. A region with a larger IoU has a larger weight:
# exp(-(1 - IoU)^2 / VOTE_WIDTH). The section "Box voting" of docs/results.md compares other values.
VOTE_IOU = 0.4
VOTE_WIDTH = 0.1


def select_detections(
    boxes: np.ndarray,
    probabilities: np.ndarray,
    ids: np.ndarray,
    *,
    score_threshold: float,
    max_detections: int,
    nms_threshold: float = NMS_THRESHOLD,
) -> Detections:
    """Selects detections by greedy non-maximum suppression within each class (R-CNN, section 2.2).

    A region is rejected if its IoU with a selected region of the same class and a higher score is above
    `nms_threshold`. One region can be detected as several classes.

    Args:
        boxes: float32 [N, 4], or [N, classes, 4] if each class has its own boxes (`BoxRegressor.regress`).
        probabilities: float32 [N, 1 + classes]; column 0 is the background.
        ids: int64 [classes], the label of each class.
        score_threshold: smallest score of a detection.
        max_detections: largest number of detections. Those with the highest scores over all classes are kept.
        nms_threshold: IoU above which a region is suppressed.

    Returns:
        Detections sorted by falling score. Equal scores keep the order of `boxes`, and that of classes in a region.
    """
    regions, classes = np.nonzero(probabilities[:, 1:] >= score_threshold)
    scores = probabilities[regions, classes + 1]
    candidates = boxes[regions] if boxes.ndim == 2 else boxes[regions, classes]
    kept = []
    for number in np.unique(classes):
        rows = np.flatnonzero(classes == number)
        best = nms(torch.from_numpy(candidates[rows]), torch.from_numpy(scores[rows]), nms_threshold)
        kept.append(rows[best.numpy()])
    keep = np.sort(np.concatenate([*kept, np.zeros(0, np.int64)]))
    keep = keep[np.argsort(-scores[keep], kind="stable")][:max_detections]
    return Detections(candidates[keep], scores[keep], ids[classes[keep]], regions[keep])


def vote_boxes(found: Detections, boxes: np.ndarray, probabilities: np.ndarray, ids: np.ndarray) -> Detections:
    """Replaces the box of each detection by a weighted mean of the regions around it.

    The regions with an IoU of at least `VOTE_IOU` with the detection are averaged, the detection's own region included.
    The weight of a region is its probability of the detection's class ("box voting", Gidaris & Komodakis, ICCV 2015,
    section 4) times exp(-(1 - IoU)^2 / `VOTE_WIDTH`), so that near regions count more ("variance voting", He et al.,
    CVPR 2019, section 3.3). The GoogLeNet paper has no box voting. The mean of several regions is usually closer to the
    object than the region with the highest score.

    Args:
        found: detections from `select_detections`.
        boxes, probabilities, ids: the arguments that `select_detections` had when it returned `found`.

    Returns:
        Detections with the new boxes, and with the scores and labels of `found`.
    """
    voted = found.boxes.copy()
    for label in np.unique(found.labels):
        chosen = np.flatnonzero(found.labels == label)
        column = np.flatnonzero(ids == label)[0]
        weights = probabilities[:, 1 + column].astype(np.float64)  # a float32 mean could lie beyond the picture
        voters = boxes if boxes.ndim == 2 else boxes[:, column]
        overlap = iou(found.boxes[chosen], voters)
        votes = (overlap >= VOTE_IOU) * np.exp(-((1 - overlap) ** 2) / VOTE_WIDTH) * weights
        total = votes.sum(axis=1)
        voting = total > 0  # false if all weights are 0, which is possible for a detection with score 0
        voted[chosen[voting]] = (votes @ voters)[voting] / total[voting, None]
    return replace(found, boxes=voted)
