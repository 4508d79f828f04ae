"""The compiled MultiBox network, and the screen that reads the same feature maps."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...proposals.multibox import MultiBox, multibox_proposals
from ...proposals.proposals import Proposals
from ...proposals.screen import STRIDE, Screen
from ..warping.warp import warp_regions
from .engine import CompiledForward


@dataclass(frozen=True, eq=False)
class WholeImageView:
    """What one look at a whole image gives.

    Attributes:
        proposals: MultiBox's best boxes in pixels of the image, with confidences in 0..1 as scores.
        feature_map: float32 [C, h, w], the screen's feature map; None without a screen.
    """

    proposals: Proposals
    feature_map: np.ndarray | None


class MultiBoxEngine:
    """One look at a whole image: warping, the compiled forward pass, and selection of the best boxes.

    With a screen, the same pass of the trunk computes the screen's feature map. Several threads may call an engine at
    the same time.

        engine = MultiBoxEngine(model.multibox)
        proposals = engine(image)  # uint8 RGB [H, W, 3] -> at most 200 boxes

    Args:
        network: the MultiBox network, which is copied. It is compiled once for each of `network.sizes`.
        screen: the screen, which is copied; it reads the maps of the first size. None for no screen.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads of OpenVINO; None for all.
    """

    def __init__(
        self, network: MultiBox, screen: Screen | None = None, *, device: str = "auto", threads: int | None = None
    ):
        self._sizes = network.sizes
        self._priors = [network.priors(size) for size in network.sizes]
        networks: list[nn.Module] = [network for _ in network.sizes]
        self._map_shape: tuple[int, ...] | None = None
        if screen is not None:
            networks[0] = _PredictionsAndMap(network, screen)
            side = network.sizes[0] // STRIDE
            self._map_shape = (screen.width, side, side)
        self._forwards = [
            CompiledForward(one, device=device, batch_size=1, threads=threads, size=size)
            for one, size in zip(networks, network.sizes, strict=True)
        ]

    def __call__(self, image: np.ndarray) -> Proposals:
        """Return the best boxes of an image, uint8 RGB [H, W, 3], in pixels, with confidences in 0..1 as scores."""
        return self.look(image).proposals

    def look(self, image: np.ndarray) -> WholeImageView:
        """Look at an image, uint8 RGB [H, W, 3]: the best boxes and the screen's feature map."""
        height, width = image.shape[:2]
        whole = np.array([[0, 0, width, height]], np.float32)
        crops = [warp_regions(image, whole, size=size, padding=0) for size in self._sizes]
        outputs = [forward(crop)[0] for forward, crop in zip(self._forwards, crops, strict=True)]
        feature_map = None
        if self._map_shape is not None:
            values = outputs[0]
            count = 5 * len(self._priors[0])
            outputs[0] = values[:count].reshape(-1, 5)
            feature_map = values[count:].reshape(self._map_shape)
        return WholeImageView(multibox_proposals(outputs, self._priors, self._sizes, width, height), feature_map)


class _PredictionsAndMap(nn.Module):
    """Float RGB in 0..255 [N, 3, S, S] -> MultiBox's predictions and the screen's feature map, flattened, [N, D]."""

    def __init__(self, multibox: MultiBox, screen: Screen):
        super().__init__()
        self.multibox = multibox
        self.screen = screen

    def forward(self, pixels: Tensor) -> Tensor:
        fine, coarse = self.multibox.trunk_maps(pixels)
        predictions = self.multibox.from_maps(fine, coarse)
        return torch.cat([predictions.flatten(1), self.screen.feature_map(fine, coarse).flatten(1)], dim=1)
