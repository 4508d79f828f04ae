"""MultiBox: a network that looks at a whole picture once and proposes class-agnostic boxes with confidences.

Erhan, Szegedy, Toshev, Anguelov, "Scalable object detection using deep neural networks" (CVPR 2014): priors clustered
from the training boxes, a bipartite matching of objects to them, confidence log-loss + alpha x location loss. Szegedy,
Reed, Erhan, Anguelov, Ioffe, "Scalable, high-quality object detection" (2014): priors at every place of convolutional
maps of several scales. Here the maps are the trunk's at strides 16 and 32, the coarser one added to the finer (Lin et
al., "Feature pyramid networks", CVPR 2017), and the smallest priors stand twice as close as the map's cells.

Boxes are in pixels of the network's input. A larger input shows smaller objects: nothing here depends on its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.ops import nms

from ..data.boxes import clip, iou
from .proposals import Proposals, Source

# Offsets are learnt in units of about their spread (SSD's "variances"; Liu et al., ECCV 2016).
_CENTRE_UNIT, _SIZE_UNIT = 0.1, 0.2
# A box is at most this many times as wide or high as its prior, or the reverse: no overflow, whatever the network says.
_LARGEST_RATIO = 16.0

# MultiBox's boxes kept of a picture: the paper's number.
COUNT = 200
# On 124 pictures of val, 200 boxes covered 0.808 of the objects at IoU 0.5 and 0.577 at 0.7 with this threshold; 0.814
# and 0.435 with 0.5, 0.798 and 0.625 with 0.7.
NMS_THRESHOLD = 0.6
# Boxes looked at by non-maximum suppression, for each that is kept: enough that it never runs out of them.
_CANDIDATES = 15

POSITIVE_IOU = 0.5
IGNORED_IOU = 0.4
BACKGROUND, IGNORED = -1, -2


class Trunk(Protocol):
    """What MultiBox needs of a network: `GoogLeNet` and `TorchvisionGoogLeNet` have it."""

    trunk: nn.Sequential

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float RGB in 0..255 [N, 3, H, W], as the trunk wants it."""
        ...


@dataclass(frozen=True)
class PriorGrid:
    """Priors of some shapes at every place of a map.

    Attributes:
        stride: of the map in input pixels, 16 or 32.
        division: each cell has this many by this many places.
        shapes: width and height of the priors at each place, in input pixels.
    """

    stride: int
    division: int
    shapes: tuple[tuple[float, float], ...]

    @property
    def channels(self) -> int:
        """What a head puts out for it in each cell: four offsets and a confidence for each prior."""
        return 5 * self.division**2 * len(self.shapes)

    def priors(self, size: int) -> NDArray[np.float32]:
        """The priors over a `size` x `size` input, by row, column and shape: (x1, y1, x2, y2), float32 [P, 4]."""
        step = self.stride / self.division
        places = (np.arange(-(-size // self.stride) * self.division) + 0.5) * step
        y, x = np.meshgrid(places, places, indexing="ij")
        centres = np.stack([x, y], axis=-1)[:, :, None]  # [rows, columns, 1, 2]
        half = np.array(self.shapes) / 2  # [shapes, 2]
        return np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4).astype(np.float32)


class MultiBox(nn.Module):
    """The network.

    Args:
        trunk: network whose rows are the features, at stride 16 up to the row `split` and at stride 32 after the last.
        grids: the priors, each on the map of its stride.
        split: name of the last row at stride 16.
        width: channels of the heads.
        sizes: sides of the inputs that a picture is shown at, in pixels, multiples of 32.
    """

    def __init__(
        self,
        trunk: nn.Module,
        grids: Sequence[PriorGrid],
        *,
        split: str = "inception_4e",
        width: int = 192,
        sizes: Sequence[int] = (448,),
    ):
        super().__init__()
        self.trunk = trunk
        self.grids = tuple(grids)
        self.split = split
        self.width = width
        self.sizes = tuple(sizes)
        self._split = [name for name, _ in self._rows.named_children()].index(split) + 1
        outputs: dict[int, int] = {}
        for grid in self.grids:
            outputs[grid.stride] = outputs.get(grid.stride, 0) + grid.channels
        with torch.no_grad():
            fine, coarse = self._maps(torch.zeros(1, 3, 64, 64), 0)
        self.lateral_fine = nn.Conv2d(fine.shape[1], width, 1)
        self.lateral_coarse = nn.Conv2d(coarse.shape[1], width, 1)
        self.heads = nn.ModuleDict({str(stride): _head(width, channels) for stride, channels in outputs.items()})

    @property
    def _rows(self) -> nn.Sequential:
        return cast(Trunk, self.trunk).trunk

    def _maps(self, x: Tensor, first_row: int) -> tuple[Tensor, Tensor]:
        fine = self._rows[first_row : self._split](x)
        return fine, self._rows[self._split :](fine)

    def from_row(self, x: Tensor, first_row: int) -> Tensor:
        """The predictions from the input of row `first_row` of the trunk, [N, c, h, w] -> [N, P, 5] as `forward`."""
        fine, coarse = self._maps(x, first_row)
        coarse = self.lateral_coarse(coarse)
        fine = self.lateral_fine(fine) + nn.functional.interpolate(coarse, fine.shape[2:], mode="nearest")
        maps = {"16": fine.relu(), "32": coarse.relu()}
        outputs = {stride: head(maps[stride]) for stride, head in self.heads.items()}
        predictions = []
        for grid in self.grids:
            stride = str(grid.stride)
            predictions.append(_by_place(outputs[stride][:, : grid.channels], grid))
            outputs[stride] = outputs[stride][:, grid.channels :]
        return torch.cat(predictions, dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels, float RGB in 0..255 [N, 3, S, S] -> [N, P, 5]: offsets (see `decode`) and the confidence's logit of
        each of the priors."""
        return self.from_row(cast(Trunk, self.trunk).normalise(pixels), 0)

    def priors(self, size: int) -> NDArray[np.float32]:
        """The priors over a `size` x `size` input, float32 [P, 4]."""
        return np.concatenate([grid.priors(size) for grid in self.grids])


def _head(width: int, outputs: int) -> nn.Sequential:
    hidden, last = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, outputs, 1)
    nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
    nn.init.normal_(last.weight, std=0.01)
    # confidences start near the share of priors that have an object, so that the loss starts low
    start = torch.tensor([0.0, 0.0, 0.0, 0.0, -5.0])
    with torch.no_grad():
        last.bias = nn.Parameter(start.repeat(outputs // 5))
    return nn.Sequential(hidden, nn.ReLU(inplace=True), last)


def _by_place(x: Tensor, grid: PriorGrid) -> Tensor:
    """[N, division^2 * shapes * 5, h, w] -> [N, P, 5] in the order of `PriorGrid.priors`."""
    n, _, h, w = x.shape
    x = x.view(n, grid.division, grid.division, len(grid.shapes) * 5, h, w)
    return x.permute(0, 4, 1, 5, 2, 3).reshape(n, -1, 5)


def encode(boxes: NDArray[np.float32], priors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Offsets of boxes [N, 4] from priors [N, 4], float32 [N, 4]: `decode` undoes it.

    (dx, dy) is the way between the centres in tenths of the prior's sides, (dw, dh) the logarithm of the ratio of the
    sides in fifths.
    """
    centres, sides = _centres_and_sides(boxes)
    prior_centres, prior_sides = _centres_and_sides(priors)
    way = (centres - prior_centres) / prior_sides / _CENTRE_UNIT
    return np.concatenate([way, np.log(sides / prior_sides) / _SIZE_UNIT], axis=1).astype(np.float32)


def decode(offsets: NDArray[np.float32], priors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes, float32 [N, 4], from offsets [N, 4] to priors [N, 4]; see `encode`."""
    prior_centres, prior_sides = _centres_and_sides(priors)
    centres = prior_centres + offsets[:, :2] * _CENTRE_UNIT * prior_sides
    limit = np.log(_LARGEST_RATIO)
    sides = prior_sides * np.exp(np.clip(offsets[:, 2:] * _SIZE_UNIT, -limit, limit))
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)


def multibox_proposals(
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


def _centres_and_sides(boxes: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    corners, opposite = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return (corners + opposite) / 2, opposite - corners


def match(priors: NDArray[np.float32], objects: NDArray[np.float32], ignored: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which object each prior shall predict.

    First every object gets a prior of its own, so that the sum of the IoUs is largest (the bipartite matching of Erhan
    et al., section 3.2); then each other prior takes the object that it overlaps most, if by 0.5 or more. Between 0.4
    and 0.5, and over an `ignored` box from 0.4 on, a prior is neither object nor background.

    Args:
        priors: [P, 4]. objects: [G, 4]. ignored: [M, 4].

    Returns:
        int64 [P]: index of the object, -1 (`BACKGROUND`) or -2 (`IGNORED`).
    """
    assignment = np.full(len(priors), BACKGROUND, np.int64)
    if len(ignored):
        assignment[iou(priors, ignored).max(axis=1) >= IGNORED_IOU] = IGNORED
    if len(objects):
        overlaps = iou(priors, objects)
        best = overlaps.max(axis=1)
        assignment[best >= IGNORED_IOU] = IGNORED
        positive = best >= POSITIVE_IOU
        assignment[positive] = overlaps[positive].argmax(axis=1)
        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        assignment[rows] = columns
    return assignment


def multibox_loss(
    predictions: Tensor, assignment: Tensor, offsets: Tensor, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Confidence log-loss + alpha x location loss (Erhan et al., section 3.2), per prior that has an object.

        confidence = - sum over object priors of log(c) - sum over background priors of log(1 - c)
        location   = sum over object priors and the four offsets of smooth L1(predicted - wanted)
        loss       = (confidence + alpha * location) / max(1, number of object priors)

    Smooth L1 (Girshick, "Fast R-CNN", 2015, eq. 3) in place of the paper's squared distance bounds what a far-off
    prior can do.

    Args:
        predictions: [N, P, 5], from the network.
        assignment: int64 [N, P], from `match`.
        offsets: [N, P, 4], what object priors shall predict; of other priors it does not matter.

    Returns:
        The loss, and its two terms [2] without alpha, detached, for reports.
    """
    positive = assignment >= 0
    number = positive.sum().clamp(min=1)
    logits = predictions[..., 4]
    known = assignment != IGNORED
    confidence = nn.functional.binary_cross_entropy_with_logits(
        logits[known], positive[known].to(logits.dtype), reduction="sum"
    )
    location = nn.functional.smooth_l1_loss(predictions[..., :4][positive], offsets[positive], reduction="sum")
    terms = torch.stack([confidence, location]) / number
    return terms[0] + alpha * terms[1], terms.detach()


def cluster_shapes(sides: NDArray[np.float32], count: int, seed: int = 0, rounds: int = 30) -> NDArray[np.float32]:
    """Widths and heights that stand for those of many boxes: k-means with 1 - IoU of centred boxes as the distance.

    (Redmon & Farhadi, "YOLO9000", CVPR 2017, section 2: Euclidean distance would spend most shapes on large boxes.)

    Args:
        sides: [N, 2], widths and heights; at least `count` different ones.

    Returns:
        float32 [count, 2], by rising area.
    """
    rng = np.random.default_rng(seed)
    logs = np.log(sides.astype(np.float64))
    centres = rng.permutation(np.unique(logs, axis=0))[:count]
    for _ in range(rounds):
        nearest = _centred_iou(logs, centres).argmax(axis=1)
        centres = np.stack(
            [logs[nearest == k].mean(axis=0) if (nearest == k).any() else centres[k] for k in range(len(centres))]
        )
    shapes = np.exp(centres)
    return shapes[shapes.prod(axis=1).argsort()].astype(np.float32)


def _centred_iou(logs: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b = np.exp(logs)[:, None], np.exp(centres)
    shared = np.minimum(a, b).prod(axis=2)
    return shared / (a.prod(axis=2) + b.prod(axis=1) - shared)
