"""Fixtures for the tests of proposals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from inception_rcnn.proposals.pixel_edges import sorted_edges
from inception_rcnn.proposals.segmentation import components, smooth_planes, split_channels
from inception_rcnn.proposals.workspace import Workspace


@pytest.fixture(scope="session")
def segment() -> Callable[..., np.ndarray]:
    """A function that segments an image, uint8 [H, W, C], into superpixels, by the steps of `hierarchies`."""

    def segment(
        image: np.ndarray, k: float, min_size: int, connectivity: int = 4, tile: int | None = None
    ) -> np.ndarray:
        height, width, _ = image.shape
        workspace = Workspace()
        smoothed = smooth_planes(split_channels(image, workspace), workspace)
        edges = sorted_edges(smoothed, connectivity, k, workspace, tile)
        labels, count = components(edges, height, width, k, min_size, workspace)
        assert labels.max() + 1 == count
        return labels.reshape(height, width)

    return segment
