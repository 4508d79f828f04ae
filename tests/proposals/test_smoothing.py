"""Gaussian smoothing."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from inception_rcnn.proposals.smoothing import gaussian_taps, smooth


@pytest.mark.parametrize(("height", "width"), [(20, 30), (1, 9), (9, 1), (2, 2)])
def test_smoothing_equals_scipys_gaussian_filter(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    out = np.empty(image.shape, np.float32)
    smooth(image, gaussian_taps(0.8), np.empty(width + 6, np.float32), out)
    for channel, smoothed in zip(image, out, strict=True):
        expected = gaussian_filter(channel.astype(float), 0.8, mode="nearest", radius=3)
        np.testing.assert_allclose(smoothed, expected, atol=1e-3)
