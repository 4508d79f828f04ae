"""Gaussian smoothing of a picture, the first step of segmentation and of texture."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..data.compilation import kernel

SIGMA: Final = 0.8  # Felzenszwalb & Huttenlocher 2004, section 6
RADIUS: Final = 3  # the next tap would weigh 2e-6: 0.001 grey levels at the most


def gaussian_taps(sigma: float = SIGMA) -> NDArray[np.float32]:
    """Weights of a sampled Gaussian at distances 0..RADIUS; the symmetric filter sums to 1.  # [4]"""
    taps = np.exp(-0.5 * (np.arange(RADIUS + 1) / sigma) ** 2)
    return (taps / (taps[0] + 2 * taps[1:].sum())).astype(np.float32)


@kernel
def smooth(image: Any, taps: Any, row: Any, out: Any) -> None:
    """Smooth every channel, the border pixel repeated outside.

    Args:
        image: uint8 ``[H, W * C]``, channels interleaved.
        taps: float32 ``[4]`` of `gaussian_taps`.
        row: float32 ``[(W + 6) * C]``, workspace.
        out: float32 ``[C, H, W]``, written.
    """
    channels, height, width = out.shape
    flat = width * channels
    pad = 3 * channels
    t0, t1, t2, t3 = taps[0], taps[1], taps[2], taps[3]
    for y in range(height):
        r0 = image[y]
        a1, b1 = image[max(y - 1, 0)], image[min(y + 1, height - 1)]
        a2, b2 = image[max(y - 2, 0)], image[min(y + 2, height - 1)]
        a3, b3 = image[max(y - 3, 0)], image[min(y + 3, height - 1)]
        for i in range(flat):
            row[pad + i] = (
                t0 * np.float32(r0[i])
                + t1 * (np.float32(a1[i]) + np.float32(b1[i]))
                + t2 * (np.float32(a2[i]) + np.float32(b2[i]))
                + t3 * (np.float32(a3[i]) + np.float32(b3[i]))
            )
        for i in range(pad):
            row[i] = row[pad + i % channels]
            row[pad + flat + i] = row[flat + i % channels + pad - channels]
        for c in range(channels):
            target = out[c, y]
            for x in range(width):
                i = pad + x * channels + c
                target[x] = (
                    t0 * row[i]
                    + t1 * (row[i - channels] + row[i + channels])
                    + t2 * (row[i - 2 * channels] + row[i + 2 * channels])
                    + t3 * (row[i - 3 * channels] + row[i + 3 * channels])
                )
