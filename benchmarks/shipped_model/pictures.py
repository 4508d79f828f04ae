"""All training pictures on a GPU, and windows of them: what `warp_regions` computes, for a batch of many pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch
from torch import Tensor

from inception_rcnn.data.dataset import Dataset
from inception_rcnn.data.images import read_image
from inception_rcnn.detection.warping.warp import MEAN_RGB, placement

SIDE = 512
"""Each picture lies in the corner of a canvas of this many pixels. Larger pictures are reduced."""


class Pictures:
    """The pictures of a data set on a device.

    Args:
        dataset: the pictures, N of them. They take 0.8 MB each.
        device: "cpu" or "cuda".

    Attributes:
        sizes: int64 [N, 2], width and height of each picture in its own pixels.
    """

    def __init__(self, dataset: Dataset, device: str):
        self._device = torch.device(device)
        self._precision = torch.float32 if device == "cpu" else torch.float16
        self._fill = torch.tensor(MEAN_RGB, device=device, dtype=self._precision)[:, None, None]
        self._scales = np.ones(len(dataset))
        self.sizes = np.zeros((len(dataset), 2), np.int64)
        canvases = np.empty((len(dataset), SIDE, SIDE, 3), np.uint8)
        canvases[:] = MEAN_RGB

        def read(number: int) -> None:
            image = read_image(dataset[number].path)
            height, width = image.shape[:2]
            self.sizes[number] = width, height
            scale = SIDE / max(height, width)
            if scale < 1:
                self._scales[number] = scale
                image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            canvases[number, : len(image), : image.shape[1]] = image[:SIDE, :SIDE]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(read, range(len(dataset))))
        self._canvases = torch.from_numpy(canvases).to(device).permute(0, 3, 1, 2).contiguous()

    def windows(
        self, rows: np.ndarray, boxes: np.ndarray, mirrored: np.ndarray, *, size: int = 224, padding: int = 16
    ) -> Tensor:
        """Warp a window of each of B pictures.

        Args:
            rows: int [B], the pictures.
            boxes: float [B, 4], the windows, in pixels of their pictures. They may reach beyond the pictures.
            mirrored: bool [B], whether a window is mirrored left to right.
            size: side of the result in pixels.
            padding: border of context around a box in pixels of the result.

        Returns:
            float32 RGB in 0..255 [B, 3, size, size].
        """
        steps, origins, _ = placement(boxes * self._scales[rows, None], size, padding, "warp")
        across, down = (self._weights(origins[:, axis], steps[:, axis], size) for axis in (0, 1))
        pixels = self._canvases[torch.from_numpy(rows).to(self._device)].to(self._precision) - self._fill
        crops = down[:, None] @ (pixels @ across[:, None].mT)
        crops = (crops + self._fill).float()
        flags = torch.from_numpy(mirrored).to(self._device)[:, None, None, None]
        return torch.where(flags, crops.flip(3), crops)

    def _weights(self, origins: np.ndarray, steps: np.ndarray, size: int) -> Tensor:
        """The weights of the canvas' rows or columns in each pixel of the windows: [B, size, SIDE].

        A pixel outside of the canvas counts as background, so the weights of a window's pixel there do not sum to 1.
        """
        origin, step = (torch.from_numpy(x).to(self._device, torch.float32)[:, None] for x in (origins, steps))
        centres = origin + (torch.arange(size, device=self._device) + 0.5) * step
        support = step.clamp(min=1)

        def triangle(places: Tensor) -> Tensor:
            return (1 - (places - centres[:, :, None]).abs() / support[:, :, None]).clamp(min=0)

        taps = torch.arange(int(2 * np.ceil(max(1.0, steps.max()))) + 3, device=self._device)
        total = triangle((centres - support).floor()[:, :, None] + taps + 0.5).sum(2, keepdim=True)
        return (triangle(torch.arange(SIDE, device=self._device) + 0.5) / total).to(self._precision)


def distort_colours(pixels: Tensor, rng: np.random.Generator, strength: float = 0.2) -> Tensor:
    """Change brightness, contrast and saturation of each picture, as `data.augment.distort_colours` does.

    Args:
        pixels: float RGB in 0..255 [B, 3, h, w].
        rng: of the three factors of each picture.
        strength: each factor is drawn uniformly from [1 - strength, 1 + strength].
    """
    factors = rng.uniform(1 - strength, 1 + strength, (3, len(pixels), 1, 1, 1)).astype(np.float32)
    brightness, contrast, saturation = torch.from_numpy(factors).to(pixels.device)
    luma: Sequence[float] = (0.299, 0.587, 0.114)
    pixels = pixels * brightness
    grey = (pixels * torch.tensor(luma, device=pixels.device)[:, None, None]).sum(1, keepdim=True)
    pixels = (pixels - grey) * saturation + grey
    mean = grey.mean((2, 3), keepdim=True)
    return ((pixels - mean) * contrast + mean).clamp(0, 255)
