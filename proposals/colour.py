"""The colour spaces in which selective search segments and compares regions (Uijlings et al. 2013, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def _hsv(image: Bytes) -> Bytes:
    # OpenCV's 8-bit hue has steps of two degrees, 0..179. Hue stretched to 0..255 amplifies the noise of areas with
    # little colour: on ILSVRC val, the same recall then needed more boxes.
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.uint8, copy=False)


def _lab(image: Bytes) -> Bytes:
    return cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.uint8, copy=False)


def _intensity(image: Bytes) -> Bytes:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)[:, :, None]


def _hue(image: Bytes) -> Bytes:
    return np.ascontiguousarray(_hsv(image)[:, :, :1])


def _rgi(image: Bytes) -> Bytes:
    wide = image.astype(np.int32)  # NumPy 1 multiplies uint8 with a small int32 in uint8
    total = wide.sum(axis=2)
    red, green = (wide[:, :, channel] * 255 // np.maximum(total, 1) for channel in (0, 1))
    return np.stack([red, green, total // 3], axis=2).astype(np.uint8)


def _rgb(image: Bytes) -> Bytes:
    return image


COLOUR_SPACES: Final[dict[str, Callable[[Bytes], Bytes]]] = {
    "hsv": _hsv,
    "lab": _lab,
    "rgi": _rgi,
    "hue": _hue,
    "intensity": _intensity,
    "rgb": _rgb,
}


# Number of values of each channel, for colour spaces with a channel that does not have 256 values.
_LEVELS: Final[dict[str, tuple[int, ...]]] = {"hsv": (180, 256, 256), "hue": (180,)}


def levels(colour_space: str) -> tuple[int, ...]:
    """Returns the number of values that each channel can take, ``[C]``. Histograms cover exactly these values."""
    channels = 1 if colour_space in ("hue", "intensity") else 3
    return _LEVELS.get(colour_space, (256,) * channels)


def convert(image: Bytes, colour_space: str) -> Bytes:
    """Converts an RGB image into another colour space. `levels` gives the range of each channel.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        colour_space: "hsv", "lab", "rgi" (normalised red and green, intensity), "hue", "intensity" or "rgb".

    Returns:
        uint8 ``[H, W, 3]``, or ``[H, W, 1]`` for "hue" and "intensity"; C-contiguous.
    """
    return np.ascontiguousarray(COLOUR_SPACES[colour_space](image))
