"""Crops and colours: random augmentation of training pictures, and the crops on which classifiers are tested."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np

# "Random interpolation methods (bilinear, area, nearest neighbor and cubic, with equal probability)", section 6.
_INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC)
_TRIES = 10

Patch = Literal["top left", "top right", "bottom left", "bottom right", "centre", "whole"]

CROP_COUNTS = (1, 10, 144)
"""The numbers of crops of Table 3 of "Going Deeper with Convolutions"."""

# "4 scales where the shorter dimension (height or width) is 256, 288, 320 and 352", section 7.
_SCALES = (256, 288, 320, 352)
# The corner of each patch in its square: x and y in halves of the room that the square leaves.
_CORNERS: dict[Patch, tuple[int, int]] = {
    "top left": (0, 0),
    "top right": (2, 0),
    "bottom left": (0, 2),
    "bottom right": (2, 2),
    "centre": (1, 1),
}
# `CropPlace.square` of crops from the whole picture, stretched to a square.
STRETCHED = 3
# A picture whose longer side is more times the shorter side is cut before it is resized: 1x50,000 pixels would become
# 352x17,600,000 pixels.
_LONGEST = 16


def random_area_crop(image: np.ndarray, rng: np.random.Generator, size: int = 224) -> np.ndarray:
    """Returns a random patch of an image, resized to a square; flipped horizontally with probability 0.5.

    This is the training crop of "Going Deeper with Convolutions", section 6: "various sized patches of the image whose
    size is distributed evenly between 8% and 100% of the image area with aspect ratio constrained to the interval
    [3/4, 4/3]". The interpolation method is random.

    Args:
        image: uint8 RGB [H, W, 3].
        rng: source of the area, the aspect ratio (uniform on a logarithmic scale), the position, the flip and the
            interpolation method.
        size: side of the result in pixels.

    Returns:
        uint8 RGB [size, size, 3].
    """
    height, width = image.shape[:2]
    for _ in range(_TRIES):
        area = rng.uniform(0.08, 1) * height * width
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= w <= width and 1 <= h <= height:
            break
    else:  # The image is so elongated that few such patches fit: take the largest square.
        w = h = min(width, height)
    x, y = rng.integers(width - w + 1), rng.integers(height - h + 1)
    patch = image[y : y + h, x : x + w]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    method = _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))]
    return cv2.resize(np.ascontiguousarray(patch), (size, size), interpolation=method)


def centre_crop(image: np.ndarray, size: int = 224, shorter: int = 256) -> np.ndarray:
    """Resizes the shorter side of an image to `shorter` pixels and returns its central square, for testing classifiers.

    Args:
        image: uint8 RGB [H, W, 3].
        size: side of the result in pixels.
        shorter: length of the shorter side before the crop in pixels, at least `size`.

    Returns:
        uint8 RGB [size, size, 3].
    """
    return np.ascontiguousarray(_patch(_squares(image, shorter)[1], "centre", size))


class CropPlace(NamedTuple):
    """Where a crop lies in a picture.

    Attributes:
        shorter: the length in pixels to which the shorter side of the picture is resized. A square of this side is cut.
        square: 0 for the left square of a lying picture or the top square of an upright picture, 1 for the square in
            the centre, 2 for the right or bottom square; `STRETCHED` for the whole picture, stretched to a square.
        patch: the corner or the centre of the square from which the crop is cut; "whole" resizes the square.
        mirrored: whether the crop is exchanged with its mirror image.
    """

    shorter: int
    square: int
    patch: Patch
    mirrored: bool


@lru_cache
def crop_places(count: int, upright: bool) -> tuple[CropPlace, ...]:
    """Returns the places of the crops of "Going Deeper with Convolutions", section 7, as Table 3 counts them.

    - 144: at each of four scales the three squares; of each square the four corners, the centre and the whole square;
      of each of these the crop and its mirror image. 4 * 3 * 6 * 2 = 144.
    - 10: the four corners and the centre of the picture, stretched to 256 x 256 pixels, and their mirror images. The
      public networks were trained and measured on stretched pictures.
    - 1: the centre of the stretched picture.

    The 10 places contain the single place.

    Args:
        count: 1, 10 or 144.
        upright: whether the picture is higher than wide. Its squares are then below each other.

    Raises:
        ValueError: `count` is another number.
    """
    if count == 144:
        return tuple(
            CropPlace(shorter, square, patch, mirrored)
            for shorter in _SCALES
            for square in range(3)
            for patch in get_args(Patch)
            for mirrored in (False, True)
        )
    if count == 10:
        return tuple(
            CropPlace(_SCALES[0], STRETCHED, patch, mirrored) for patch in _CORNERS for mirrored in (False, True)
        )
    if count == 1:
        return (CropPlace(_SCALES[0], STRETCHED, "centre", False),)
    raise ValueError(f"the number of crops is {count}, expected one of {', '.join(map(str, CROP_COUNTS))}")


def crops_at(image: np.ndarray, places: Sequence[CropPlace], size: int = 224) -> np.ndarray:
    """Returns the crops of an image at these places. The image is resized once for each scale, and stretched once.

    If its longer side is more than 16 times its shorter side, the three squares are cut before they are resized.

    Args:
        image: uint8 RGB [H, W, 3] of any size.
        places: from `crop_places`, N of them.
        size: side of the crops in pixels.

    Returns:
        uint8 RGB [N, size, size, 3].
    """
    squares = {shorter: _squares(image, shorter) for shorter in {p.shorter for p in places if p.square != STRETCHED}}
    for shorter in {place.shorter for place in places if place.square == STRETCHED}:
        method = cv2.INTER_AREA if min(image.shape[:2]) > shorter else cv2.INTER_LINEAR
        stretched = cv2.resize(image, (shorter, shorter), interpolation=method)
        squares.setdefault(shorter, [stretched] * STRETCHED).append(stretched)
    patches: dict[tuple[int, int, Patch], np.ndarray] = {}
    crops = np.empty((len(places), size, size, 3), np.uint8)
    for crop, (shorter, square, patch, mirrored) in zip(crops, places, strict=True):
        place = shorter, square, patch
        if place not in patches:
            patches[place] = _patch(squares[shorter][square], patch, size)
        crop[:] = patches[place][:, ::-1] if mirrored else patches[place]
    return crops


def _squares(image: np.ndarray, shorter: int) -> list[np.ndarray]:
    """The left, centre and right squares (top, centre and bottom) of an image: 3 times uint8 [shorter, shorter, 3]."""
    least = min(image.shape[:2])
    if max(image.shape[:2]) > _LONGEST * least:
        return [_resized(square, shorter) for square in _three_squares(image, least)]
    return _three_squares(_resized(image, shorter), shorter)


def _three_squares(image: np.ndarray, side: int) -> list[np.ndarray]:
    """The first, middle and last squares along the longer side of an image, whose shorter side has `side` pixels."""
    height, width = image.shape[:2]
    return [image[(height - side) * k // 2 :, (width - side) * k // 2 :][:side, :side] for k in range(3)]


def _resized(image: np.ndarray, shorter: int) -> np.ndarray:
    """The image, resized so that its shorter side has `shorter` pixels."""
    height, width = image.shape[:2]
    scale = shorter / min(height, width)
    w, h = max(shorter, round(width * scale)), max(shorter, round(height * scale))
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _patch(square: np.ndarray, patch: Patch, size: int) -> np.ndarray:
    """A patch of a square, uint8 [size, size, 3]."""
    if patch == "whole":
        return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    x, y = ((len(square) - size) * part // 2 for part in _CORNERS[patch])
    return square[y : y + size, x : x + size]


def distort_colours(image: np.ndarray, rng: np.random.Generator, strength: float = 0.2) -> np.ndarray:
    """Changes brightness, saturation and contrast randomly ("photometric distortions", Howard 2013, section 2).

    Args:
        image: uint8 RGB [H, W, 3].
        rng: source of the three factors.
        strength: each factor is drawn uniformly from [1 - strength, 1 + strength].

    Returns:
        A new uint8 RGB image [H, W, 3].
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    pixels = image.astype(np.float32) * brightness
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)  # [H, W], ITU-R BT.601 luma
    pixels = (pixels - grey[..., None]) * saturation + grey[..., None]
    mean = grey.mean()
    pixels = (pixels - mean) * contrast + mean
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
