"""MultiBox's boxes from what its network says, and one list of them and selective search's.

"Going Deeper with Convolutions" (Szegedy et al., CVPR 2015), section 6: selective search with doubled superpixels, to
which "200 region proposals coming from multi-box" are added.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from ..data.boxes import clip
from .multibox import decode
from .proposals import Proposals, Source

# MultiBox's boxes kept of a picture: the paper's number.
COUNT = 200
# On 124 pictures of val, 200 boxes covered 0.808 of the objects at IoU 0.5 and 0.577 at 0.7 with this threshold; 0.814
# and 0.435 with 0.5, 0.798 and 0.625 with 0.7.
NMS_THRESHOLD = 0.6
# Of two boxes that overlap by more than this, one is enough. On the same pictures the union had 1,258 + 200 boxes; this
# left 1,131 of them with a recall of 0.934 at 0.5, as with 0.9 (1,232 boxes).
DUPLICATE_IOU = 0.85
# Boxes looked at by non-maximum suppression, for each that is kept: enough that it never runs out of them.
_CANDIDATES = 15


def multibox_boxes(
    predictions: Sequence[NDArray[np.float32]],
    priors: Sequence[NDArray[np.float32]],
    sizes: Sequence[int],
    width: int,
    height: int,
    *,
    count: int = COUNT,
    nms_threshold: float = NMS_THRESHOLD,
) -> Proposals:
    """The best boxes of a picture that the network saw whole, at one size or several.

    Args:
        predictions: float32 [P, 5] for each size, from `MultiBox`.
        priors: [P, 4] for each size.
        sizes: side of the network's input, to which the picture was stretched.
        width, height: of the picture.
        count: boxes kept.
        nms_threshold: a box is dropped if it overlaps a better one by more than this IoU.

    Returns:
        At most `count` boxes inside the picture; scores are confidences in 0..1.
    """
    boxes, logits = [], []
    for predicted, prior, size in zip(predictions, priors, sizes, strict=True):
        best = np.argsort(-predicted[:, 4], kind="stable")[: _CANDIDATES * count]
        scale = np.array([width, height, width, height], np.float32) / size
        boxes.append(clip(decode(predicted[best, :4], prior[best]) * scale, width, height))
        logits.append(predicted[best, 4])
    all_boxes, all_logits = np.concatenate(boxes), np.concatenate(logits)
    real = ((all_boxes[:, 2:] - all_boxes[:, :2]) >= 1).all(axis=1)  # less than a pixel of the picture shows nothing
    all_boxes, all_logits = all_boxes[real], all_logits[real]
    keep = nms(torch.from_numpy(all_boxes), torch.from_numpy(all_logits), nms_threshold)[:count].numpy()
    scores = 1 / (1 + np.exp(-all_logits[keep].astype(np.float64)))
    return Proposals(all_boxes[keep], scores.astype(np.float32), np.full(len(keep), Source.MULTIBOX, np.uint8))


def combine(selective: Proposals, multibox: Proposals, *, duplicate_iou: float = DUPLICATE_IOU) -> Proposals:
    """One list of selective search's boxes and MultiBox's, near-duplicates dropped.

    A box stands where the probability that it covers an object (IoU 0.5 or more) places it: for MultiBox its
    confidence, for selective search what its rank is worth (see `rank_probability`). Of two boxes that overlap by
    more than `duplicate_iou` the later is dropped, whatever their sources.

    Returns:
        Proposals, best first; scores are these probabilities.
    """
    boxes = np.concatenate([selective.boxes, multibox.boxes])
    scores = np.concatenate([rank_probability(len(selective)), multibox.scores])
    source = np.concatenate([selective.source, multibox.source])
    keep = nms(torch.from_numpy(boxes), torch.from_numpy(scores), duplicate_iou).numpy()
    return Proposals(boxes[keep], scores[keep], source[keep])


def rank_probability(count: int) -> NDArray[np.float32]:
    """The share of selective search's boxes that cover an object, by rank, float32 [count].

    A fit to 92 pictures of the training set, scale 2: measured 0.17 in the first ten, 0.067 from rank 100 to 200,
    0.0073 beyond 1,000.
    """
    return (0.17 / (1 + np.arange(count) / 90)).astype(np.float32)
