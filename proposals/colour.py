"""The colour spaces in which selective search segments and compares regions (Uijlings et al. 2013, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def _hsv(image: Bytes) -> Bytes:
    # Hue in steps of two degrees, 0..179. Spread over 0..255 its noise in dull places weighs more: on val the same
    # recall took more boxes.
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.uint8, copy=False)


def _lab(image: Bytes) -> Bytes:
    return cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.uint8, copy=False)


def _intensity(image: Bytes) -> Bytes:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)[:, :, None]


def _hue(image: Bytes) -> Bytes:
    return np.ascontiguousarray(_hsv(image)[:, :, :1])


def _rgi(image: Bytes) -> Bytes:
    total = image.sum(axis=2, dtype=np.int32)
    divisor = np.maximum(total, 1)
    red = image[:, :, 0] * np.int32(255) // divisor
    green = image[:, :, 1] * np.int32(255) // divisor
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


# Values that a channel can take, over which its histogram is spread; 256 where nothing is said.
LEVELS: Final[dict[str, tuple[int, ...]]] = {"hsv": (180, 256, 256), "hue": (180,)}


def levels(colour_space: str) -> tuple[int, ...]:
    """How many values each channel of a colour space can take: its histogram covers just these."""
    channels = 1 if colour_space in ("hue", "intensity") else 3
    return LEVELS.get(colour_space, (256,) * channels)


def convert(image: Bytes, colour_space: str) -> Bytes:
    """An RGB picture in another colour space; `levels` says how far each channel reaches.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        colour_space: "hsv", "lab", "rgi" (normalised red and green, intensity), "hue", "intensity" or "rgb".

    Returns:
        uint8 ``[H, W, 3]``, or ``[H, W, 1]`` for "hue" and "intensity"; C-contiguous.
    """
    return np.ascontiguousarray(COLOUR_SPACES[colour_space](image))
