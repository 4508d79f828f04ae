"""Gaussian smoothing of an image, the first step of segmentation and of texture features."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runtime.compilation import kernel

SIGMA: Final = 0.8  # Felzenszwalb & Huttenlocher 2004, section 6
RADIUS: Final = 3  # the next tap would have weight 2e-6, which changes a value by at most 0.001 grey levels


def gaussian_taps(sigma: float = SIGMA) -> NDArray[np.float32]:
    """Returns the weights of a sampled Gaussian at distances 0..RADIUS, float32 ``[4]``. The whole filter sums to 1."""
    taps = np.exp(-0.5 * (np.arange(RADIUS + 1) / sigma) ** 2)
    return (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)


@kernel
def smooth(image: Any, taps: Any, row: Any, out: Any) -> None:
    """Smooths every channel with a separable filter. Pixels outside the image repeat the border pixel.

    Args:
        image: uint8 ``[C, H, W]``.
        taps: float32 ``[4]`` from `gaussian_taps`.
        row: float32 ``[W + 6]``, workspace.
        out: float32 ``[C, H, W]``, output.
    """
    channels, height, width = out.shape
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    for c in range(channels):
        plane = image[c]
        for y in range(height):
            r0 = plane[y]
            a1, b1 = plane[max(y - 1, 0)], plane[min(y + 1, height - 1)]
            a2, b2 = plane[max(y - 2, 0)], plane[min(y + 2, height - 1)]
            a3, b3 = plane[max(y - 3, 0)], plane[min(y + 3, height - 1)]
            for x in range(width):
                row[3 + x] = (
                    t0 * np.float32(r0[x])
                    + t1 * (np.float32(a1[x]) + np.float32(b1[x]))
                    + t2 * (np.float32(a2[x]) + np.float32(b2[x]))
                    + t3 * (np.float32(a3[x]) + np.float32(b3[x]))
                )
            row[:3] = row[3]
            row[3 + width :] = row[2 + width]
            target = out[c, y]
            for x in range(width):
                target[x] = (
                    t0 * row[x + 3]
                    + t1 * (row[x + 2] + row[x + 4])
                    + t2 * (row[x + 1] + row[x + 5])
                    + t3 * (row[x] + row[x + 6])
                )
