"""MultiBox: a network that proposes class-agnostic boxes with confidences in one pass over the whole image.

Erhan, Szegedy, Toshev, Anguelov, "Scalable object detection using deep neural networks" (CVPR 2014), introduced priors
clustered from the training boxes, the bipartite matching of objects to priors, and the loss: confidence log-loss +
alpha x location loss. Szegedy, Reed, Erhan, Anguelov, Ioffe, "Scalable, high-quality object detection" (2014), placed
the priors on convolutional feature maps of several scales. Here the feature maps are those of the trunk at strides 16
and 32, with the coarser map added to the finer (Lin et al., "Feature pyramid networks", CVPR 2017). Each cell of
a feature map has one place with priors; for the smallest priors it has 2 x 2 places.

Boxes are in pixels of the network's input, which may have any size that is a multiple of 32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.boxes import clip, iou
from ..runtime.torchvision_ops import nms
from .proposals import Proposals, Source

# Units of the offsets, about their standard deviations (SSD's "variances"; Liu et al., ECCV 2016).
_CENTRE_UNIT, _SIZE_UNIT = 0.1, 0.2
# The largest ratio between the side of a box and of its prior, in either direction. It keeps `decode` from overflowing.
_LARGEST_RATIO = 16.0

# Boxes kept per image, as in "Going Deeper with Convolutions".
COUNT = 200
# IoU threshold of non-maximum suppression. On 124 images of val, the recall of 200 boxes at IoU 0.5 and 0.7 was 0.808
# and 0.577 with this threshold, 0.814 and 0.435 with a threshold of 0.5, and 0.798 and 0.625 with 0.7.
NMS_THRESHOLD = 0.6
# Candidate boxes of non-maximum suppression, per box that is kept: enough that the candidates never run out.
_CANDIDATES = 15

# A prior is trained to predict an object if their IoU is at least POSITIVE_IOU. Below IGNORED_IOU it is background.
POSITIVE_IOU = 0.5
IGNORED_IOU = 0.4
BACKGROUND, IGNORED = -1, -2


class Trunk(Protocol):
    """The interface of MultiBox's backbone network. `GoogLeNet` and `TorchvisionGoogLeNet` implement it."""

    trunk: nn.Sequential

    def normalise(self, pixels: Tensor) -> Tensor:
        """Converts float RGB in 0..255 [N, 3, H, W] into the input of the trunk."""
        ...


@dataclass(frozen=True)
class PriorGrid:
    """Priors of several shapes, centred on a regular grid of places over a feature map.

    Attributes:
        stride: stride of the feature map in input pixels, 16 or 32.
        division: each cell of the feature map has division x division places.
        shapes: width and height of the priors at each place, in input pixels.
    """

    stride: int
    division: int
    shapes: tuple[tuple[float, float], ...]

    @property
    def channels(self) -> int:
        """Number of head output channels for this grid: four offsets and a confidence for each prior of a cell."""
        return 5 * self.division**2 * len(self.shapes)

    def priors(self, size: int) -> NDArray[np.float32]:
        """Returns the priors (x1, y1, x2, y2) of a `size` x `size` input, float32 [P, 4], by row, column and shape."""
        step = self.stride / self.division
        places = (np.arange(-(-size // self.stride) * self.division) + 0.5) * step
        y, x = np.meshgrid(places, places, indexing="ij")
        centres = np.stack([x, y], axis=-1)[:, :, None]  # [rows, columns, 1, 2]
        half = np.array(self.shapes) / 2  # [shapes, 2]
        return np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4).astype(np.float32)


class MultiBox(nn.Module):
    """The MultiBox network: a trunk, lateral convolutions that combine its two feature maps, and a head per stride.

    Args:
        trunk: a `Trunk`. Its feature map has stride 16 after the block `split` and stride 32 after the last block.
        grids: the priors, each on the feature map of its stride.
        split: name of the last block of the trunk at stride 16.
        width: number of hidden channels of the heads.
        sizes: sides of the square inputs to which an image is resized, in pixels, multiples of 32.
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
            fine, coarse = self._maps_from_row(torch.zeros(1, 3, 64, 64), 0)
        self.lateral_fine = nn.Conv2d(fine.shape[1], width, 1)
        self.lateral_coarse = nn.Conv2d(coarse.shape[1], width, 1)
        self.heads = nn.ModuleDict({str(stride): _head(width, channels) for stride, channels in outputs.items()})

    @property
    def _rows(self) -> nn.Sequential:
        return cast(Trunk, self.trunk).trunk

    def _maps_from_row(self, x: Tensor, first_row: int) -> tuple[Tensor, Tensor]:
        fine = self._rows[first_row : self._split](x)
        return fine, self._rows[self._split :](fine)

    def trunk_maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the trunk's feature maps from float RGB in 0..255 [N, 3, S, S].

        Returns:
            The map at stride 16, [N, c, S / 16, S / 16], and the map at stride 32, [N, C, S / 32, S / 32].
        """
        return self._maps_from_row(cast(Trunk, self.trunk).normalise(pixels), 0)

    def from_row(self, x: Tensor, first_row: int) -> Tensor:
        """Computes the predictions from the input of a block of the trunk: [N, c, h, w] -> [N, P, 5].

        `first_row` is the index of the block, from 0. `forward` gives the same predictions from pixels.
        """
        return self.from_maps(*self._maps_from_row(x, first_row))

    def from_maps(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Computes the predictions from the two maps of `trunk_maps`. The result is that of `forward`."""
        coarse = self.lateral_coarse(coarse)
        fine = self.lateral_fine(fine) + nn.functional.interpolate(coarse, fine.shape[2:], mode="nearest")
        maps = {"16": fine.relu(), "32": coarse.relu()}
        outputs = {stride: head(maps[stride]) for stride, head in self.heads.items()}
        predictions = []
        for grid in self.grids:
            stride = str(grid.stride)
            predictions.append(_by_prior(outputs[stride][:, : grid.channels], grid))
            outputs[stride] = outputs[stride][:, grid.channels :]
        return torch.cat(predictions, dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Predicts four offsets (see `decode`) and the logit of the confidence for each prior.

        Args:
            pixels: float RGB in 0..255 [N, 3, S, S].

        Returns:
            float [N, P, 5].
        """
        return self.from_row(cast(Trunk, self.trunk).normalise(pixels), 0)

    def priors(self, size: int) -> NDArray[np.float32]:
        """Returns the priors of a `size` x `size` input, float32 [P, 4]."""
        return np.concatenate([grid.priors(size) for grid in self.grids])


def _head(width: int, outputs: int) -> nn.Sequential:
    hidden, last = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, outputs, 1)
    nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
    nn.init.normal_(last.weight, std=0.01)
    # The initial confidences are close to the share of priors that have an object, so that the first losses are low.
    start = torch.tensor([0.0, 0.0, 0.0, 0.0, -5.0])
    with torch.no_grad():
        last.bias = nn.Parameter(start.repeat(outputs // 5))
    return nn.Sequential(hidden, nn.ReLU(inplace=True), last)


def _by_prior(x: Tensor, grid: PriorGrid) -> Tensor:
    """Reorders head outputs, [N, division^2 * shapes * 5, h, w] -> [N, P, 5], in the order of `PriorGrid.priors`."""
    n, _, h, w = x.shape
    x = x.view(n, grid.division, grid.division, len(grid.shapes) * 5, h, w)
    return x.permute(0, 4, 1, 5, 2, 3).reshape(n, -1, 5)


def encode(boxes: NDArray[np.float32], priors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Computes the offsets (dx, dy, dw, dh) of boxes from priors. The inverse of `decode`.

    (dx, dy) is the distance of the centres, in tenths of the prior's sides. (dw, dh) is the logarithm of the ratio of
    the sides, in units of 0.2.

    Args:
        boxes: float32 [N, 4].
        priors: float32 [N, 4].

    Returns:
        float32 [N, 4].
    """
    centres, sides = _centres_and_sides(boxes)
    prior_centres, prior_sides = _centres_and_sides(priors)
    distance = (centres - prior_centres) / prior_sides / _CENTRE_UNIT
    return np.concatenate([distance, np.log(sides / prior_sides) / _SIZE_UNIT], axis=1).astype(np.float32)


def decode(offsets: NDArray[np.float32], priors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Computes boxes, float32 [N, 4], from their offsets [N, 4] and priors [N, 4]. The inverse of `encode`."""
    prior_centres, prior_sides = _centres_and_sides(priors)
    centres = prior_centres + offsets[:, :2] * _CENTRE_UNIT * prior_sides
    limit = np.log(_LARGEST_RATIO)
    sides = prior_sides * np.exp(np.clip(offsets[:, 2:] * _SIZE_UNIT, -limit, limit))
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)


class DecodedMultiBox(nn.Module):
    """MultiBox for one size of input, with `decode` in the network: for programs that know no priors.

    Args:
        network: the MultiBox network, which is not copied.
        size: side of the square input in pixels, a multiple of 32.
    """

    priors: Tensor

    def __init__(self, network: MultiBox, size: int):
        super().__init__()
        self.network = network
        priors = np.concatenate(_centres_and_sides(network.priors(size)), axis=1) / size
        self.register_buffer("priors", torch.from_numpy(priors).float())

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Predicts the box and the confidence of each prior, in the order of `MultiBox.priors`.

        Args:
            pixels: float RGB in 0..255 [N, 3, size, size].

        Returns:
            Boxes (x1, y1, x2, y2), clipped to the image, in parts of its width and height: float in 0..1 [N, P, 4].
            Confidences in 0..1, float [N, P].
        """
        predictions = self.network(pixels)  # [N, P, 5]
        centres, sides = self.priors[:, :2], self.priors[:, 2:]
        limit = math.log(_LARGEST_RATIO)
        centres = centres + predictions[..., :2] * _CENTRE_UNIT * sides
        sides = sides * torch.exp((predictions[..., 2:4] * _SIZE_UNIT).clamp(-limit, limit))
        boxes = torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)
        return boxes.clamp(0, 1), predictions[..., 4].sigmoid()


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
    """Decodes the predictions for one image and keeps the best boxes after non-maximum suppression.

    Args:
        predictions: float32 [P, 5] for each input size, from `MultiBox`.
        priors: float32 [P, 4] for each input size.
        sizes: sides of the square inputs to which the image was resized, in pixels.
        width, height: size of the image in pixels.
        count: maximum number of boxes.
        nms_threshold: IoU with a better box above which a box is dropped.

    Returns:
        At most `count` boxes inside the image. Their scores are confidences in 0..1.
    """
    boxes, logits = [], []
    for predicted, prior, size in zip(predictions, priors, sizes, strict=True):
        best = np.argsort(-predicted[:, 4], kind="stable")[: _CANDIDATES * count]
        scale = np.array([width, height, width, height], np.float32) / size
        boxes.append(clip(decode(predicted[best, :4], prior[best]) * scale, width, height))
        logits.append(predicted[best, 4])
    all_boxes, all_logits = np.concatenate(boxes), np.concatenate(logits)
    large_enough = ((all_boxes[:, 2:] - all_boxes[:, :2]) >= 1).all(axis=1)  # sides of one pixel or more
    all_boxes, all_logits = all_boxes[large_enough], all_logits[large_enough]
    keep = nms(torch.from_numpy(all_boxes), torch.from_numpy(all_logits), nms_threshold)[:count].numpy()
    scores = 1 / (1 + np.exp(-all_logits[keep].astype(np.float64)))
    return Proposals(all_boxes[keep], scores.astype(np.float32), np.full(len(keep), Source.MULTIBOX, np.uint8))


def _centres_and_sides(boxes: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    top_left, bottom_right = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return (top_left + bottom_right) / 2, bottom_right - top_left


def match(priors: NDArray[np.float32], objects: NDArray[np.float32], ignored: NDArray[np.float32]) -> NDArray[np.int64]:
    """Assigns to each prior the object that it is trained to predict.

    Every object is matched to one prior such that the sum of the IoUs is largest (the bipartite matching of Erhan et
    al., section 3.2). Each other prior is assigned the object with the largest IoU, if this IoU is at least 0.5. A
    prior is ignored in training if its largest IoU with an object is in [0.4, 0.5), or if it has no object and an IoU
    of at least 0.4 with an `ignored` box. All other priors are background.

    Args:
        priors: float32 [P, 4].
        objects: float32 [G, 4].
        ignored: float32 [M, 4], boxes that count neither as objects nor as background.

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
        from scipy.optimize import linear_sum_assignment  # takes half a second, and detection does not need it

        rows, columns = linear_sum_assignment(overlaps, maximize=True)
        assignment[rows] = columns
    return assignment


def multibox_loss(
    predictions: Tensor, assignment: Tensor, offsets: Tensor, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Computes (confidence log-loss + alpha x location loss) / number of object priors (Erhan et al., section 3.2).

        confidence = - sum over object priors of log(c) - sum over background priors of log(1 - c)
        location   = sum over object priors and the four offsets of smooth L1(predicted - target)
        loss       = (confidence + alpha * location) / max(1, number of object priors)

    Smooth L1 (Girshick, "Fast R-CNN", 2015, eq. 3) replaces the paper's squared distance. It bounds the gradient of a
    prior that is far from its object.

    Args:
        predictions: float [N, P, 5], from the network.
        assignment: int64 [N, P], from `match`.
        offsets: float [N, P, 4], the targets of the object priors; the values of other priors are not used.
        alpha: weight of the location loss.

    Returns:
        The loss, and its two terms (confidence, location) [2] without alpha, detached, for reports.
    """
    positive = assignment >= 0
    number = positive.sum().clamp(min=1)
    logits = predictions[..., 4]
    counted = assignment != IGNORED
    confidence = nn.functional.binary_cross_entropy_with_logits(
        logits[counted], positive[counted].to(logits.dtype), reduction="sum"
    )
    location = nn.functional.smooth_l1_loss(predictions[..., :4][positive], offsets[positive], reduction="sum")
    terms = torch.stack([confidence, location]) / number
    return terms[0] + alpha * terms[1], terms.detach()


def cluster_shapes(sides: NDArray[np.float32], count: int, seed: int = 0, rounds: int = 30) -> NDArray[np.float32]:
    """Clusters the shapes of boxes by k-means with the distance 1 - IoU of centred boxes.

    With the Euclidean distance, most clusters would go to large boxes (Redmon & Farhadi, "YOLO9000", CVPR 2017,
    section 2).

    Args:
        sides: float32 [N, 2], widths and heights; at least `count` distinct rows.
        count: number of clusters.
        seed: seed of the random initial centres.
        rounds: number of iterations.

    Returns:
        float32 [count, 2], widths and heights of the cluster centres, by rising area.
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
    intersection = np.minimum(a, b).prod(axis=2)
    return intersection / (a.prod(axis=2) + b.prod(axis=1) - intersection)
