"""The screen: a small network that rejects most regions before the large networks score them.

R-CNN runs its network on every region, although nearly all regions are background. MultiBox's trunk computes feature
maps of the whole picture anyway. The screen pools each region from these maps and predicts the probability of each
class, and the quality, which is the expected IoU with the object. Both choose the regions, and both are part of the
score of a detection (`detection/calibration.py`): the screen's maps were computed from the whole picture, so it judges
a region by other evidence than the large networks. The paper has no screen.

Sources: regions pooled from shared maps, He et al., "Spatial pyramid pooling" (ECCV 2014) and Girshick, "Fast R-CNN"
(ICCV 2015); the expected IoU as a score, Jiang et al., "IoU-Net" (ECCV 2018); a cascade of region filters, Yang et al.,
"CRAFT objects from images" (CVPR 2016).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..runtime.torchvision_ops import nms, roi_align
from .proposals import Proposals

# Share of a region's width and height that is added on each side before pooling. The margin shows where an object ends.
MARGIN = 0.1
# Stride of the map that regions are pooled from, in pixels of the trunk's input.
STRIDE = 16


@dataclass(frozen=True)
class ScreenThresholds:
    """The thresholds of a screen, which are fitted for each model.

    Attributes:
        score: smallest score of a region that is kept, in 0..1. The score is the object probability times the quality.
        nms: a region is dropped if its IoU with a region of higher score is above this, in 0..1.
    """

    score: float
    nms: float


# Thresholds of a screen before they are fitted: only regions that are almost certainly background are dropped.
MILD = ScreenThresholds(score=0.005, nms=0.9)


class Screen(nn.Module):
    """Predicts the object probability and the quality of regions from the feature maps of MultiBox's trunk.

    The map at stride 32 is added to the map at stride 16, as in a feature pyramid. RoIAlign pools each region from the
    sum. Two hidden layers and two output layers follow.

    Args:
        num_classes: number of classes, without the background.
        fine_channels, coarse_channels: channels of the trunk's maps at stride 16 and at stride 32.
        width: channels of the map that regions are pooled from.
        grid: a region is pooled to `grid` x `grid` cells.
        hidden: units of each hidden layer.

    Attributes:
        class_names: the name of the class of each output from 1 on; None for a class that the screen does not know,
            because its training pictures have no box of the class.
        thresholds: the thresholds of `keep`; `MILD` until they are fitted.
    """

    class_names: tuple[str | None, ...]

    def __init__(
        self,
        num_classes: int,
        fine_channels: int = 832,
        coarse_channels: int = 1024,
        *,
        width: int = 192,
        grid: int = 5,
        hidden: int = 256,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.width = width
        self.grid = grid
        self.hidden = hidden
        self.class_names = (None,) * num_classes
        self.thresholds = MILD
        self.lateral_fine = nn.Conv2d(fine_channels, width, 1)
        self.lateral_coarse = nn.Conv2d(coarse_channels, width, 1)
        self.layers = nn.Sequential(
            nn.Linear(width * grid * grid, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
        )
        self.classifier = nn.Linear(hidden, num_classes + 1)
        self.quality = nn.Linear(hidden, 1)

    def feature_map(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Computes the map that regions are pooled from.

        Args:
            fine, coarse: float [N, 832, h, w] and [N, 1024, h / 2, w / 2], from `MultiBox.trunk_maps`.

        Returns:
            float [N, width, h, w].
        """
        above = nn.functional.interpolate(self.lateral_coarse(coarse), fine.shape[2:], mode="nearest")
        return (self.lateral_fine(fine) + above).relu()

    def forward(self, feature_map: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Computes the outputs for R regions of N pictures.

        Args:
            feature_map: float [N, width, h, w], from `feature_map`.
            boxes: the regions of each picture, N tensors [R_n, 4] in pixels of the trunk's input.

        Returns:
            Class logits [R, 1 + num_classes], column 0 the background, and logits of the quality [R].
        """
        pooled = roi_align(
            feature_map,
            [_enlarged(box) for box in boxes],
            self.grid,
            spatial_scale=1 / STRIDE,
            sampling_ratio=2,
        )  # [R, width, grid, grid]
        seen = self.layers(pooled.flatten(1))
        return self.classifier(seen), self.quality(seen)[:, 0]

    @torch.inference_mode()
    def score(
        self, feature_map: NDArray[np.float32], boxes: NDArray[np.float32], width: int, height: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Computes the class probabilities and the quality of the regions of one picture.

        Args:
            feature_map: float32 [width, h, w], the map of the picture, which was stretched to the trunk's input.
            boxes: float32 [N, 4] in pixels of the picture.
            width, height: size of the picture in pixels.

        Returns:
            Class probabilities, float32 [N, 1 + num_classes], column 0 the background, and quality, float32 [N], in
            0..1.
        """
        rows, columns = feature_map.shape[1:]
        scale = STRIDE * np.array([columns, rows, columns, rows], np.float32) / [width, height, width, height]
        logits, quality = self(
            torch.from_numpy(feature_map)[None], [torch.from_numpy((boxes * scale).astype(np.float32))]
        )
        return logits.softmax(1).numpy(), quality.sigmoid().numpy()

    def keep(
        self,
        proposals: Proposals,
        feature_map: NDArray[np.float32],
        width: int,
        height: int,
        count: int | None = None,
    ) -> Proposals:
        """Keeps the regions that are likely to show an object.

        Args:
            proposals: N regions of a picture.
            feature_map, width, height: as for `score`.
            count: number of regions to keep, those with the highest scores; None keeps the regions whose score reaches
                the threshold.

        Returns:
            At most N proposals, best first. Their score is the object probability times the quality.
        """
        if not len(proposals):
            classes = np.zeros((0, 1 + self.num_classes), np.float32)
            return replace(proposals, quality=np.zeros(0, np.float32), classes=classes)
        classes, quality = self.score(feature_map, proposals.boxes, width, height)
        scores = (1 - classes[:, 0]) * quality
        best = best_regions(proposals.boxes, scores, self.thresholds, count)
        return Proposals(proposals.boxes[best], scores[best], proposals.source[best], quality[best], classes[best])


def _enlarged(boxes: Tensor) -> Tensor:
    margin = MARGIN * (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def best_regions(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], thresholds: ScreenThresholds, count: int | None = None
) -> NDArray[np.int64]:
    """Selects the regions that a screen keeps.

    Args:
        boxes, scores: the regions, float32 [N, 4], and their scores, float32 [N].
        thresholds: thresholds of the score and of non-maximum suppression.
        count: number of regions to keep; None keeps the regions whose score reaches the threshold.

    Returns:
        The rows of the kept regions, int64, by falling score.
    """
    rows = nms(torch.from_numpy(boxes), torch.from_numpy(scores), thresholds.nms).numpy()
    return rows[scores[rows] >= thresholds.score] if count is None else rows[:count]
