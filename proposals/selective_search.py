"""Selective search for object recognition (Uijlings, van de Sande, Gevers, Smeulders; IJCV 2013).

from inception_rcnn import selective_search
proposals = selective_search(image)          # image: uint8 RGB [H, W, 3]
proposals.boxes[:10]                         # the ten best, (x1, y1, x2, y2) in pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .proposals import Proposals
from .ranking import first_of_each, hierarchy_positions, pseudo_random_values
from .strategies import Strategy, strategies_of

WORKING_WIDTH: Final = 500  # R-CNN's (Girshick et al. 2014, section 2.2)
MAX_PIXELS: Final = 500 * 1500  # a tall picture is shrunk further: width 500 must not mean 500 x 50,000
# Superpixels end where the smoothed picture is steepest; people draw their boxes around what they see. Of the margins
# 0, 1, 1.5, 2 and 3 this one has the largest average recall on 300 pictures of ILSVRC DET train: 0.537 against 0.527
# without.
MARGIN: Final = 2


def working_size(width: int, height: int, working_width: int | None = WORKING_WIDTH) -> tuple[int, int]:
    """Width and height at which a picture is searched: `working_width` wide, at most `MAX_PIXELS` in all."""
    if working_width is None:
        return width, height
    scale = min(working_width / width, (MAX_PIXELS / (width * height)) ** 0.5)
    return max(1, round(width * scale)), max(1, round(height * scale))


def selective_search(
    image: NDArray[np.uint8],
    mode: str | Sequence[Strategy] = "fast",
    superpixel_scale: float = 2.0,
    min_side: float = 20,
    seed: int = 0,
    threads: int | None = None,
    connectivity: int = 4,
    width: int | None = WORKING_WIDTH,
    ranking: str = "pseudo-random",
) -> Proposals:
    """Boxes that are likely to hold an object of any kind, best first.

    The picture is cut into superpixels, and the most similar neighbours are merged until one region is left; every
    region on the way gives a box, drawn `MARGIN` pixels of the working picture around it. Several strategies (colour
    space, superpixel size, similarity) are run, and their boxes pooled without duplicates.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        mode: "fast" (8 strategies, the one of R-CNN), "quality" (80, some six times the boxes), "single" (1), or a
            list of `Strategy`.
        superpixel_scale: multiplies every strategy's k and minimum superpixel size. 1 is Uijlings' setting, 2 that
            of GoogLeNet's detector (Szegedy et al. 2015, section 8): half the boxes.
        min_side: regions with a side under this many pixels of the working picture are dropped (R-CNN: 20; 0 keeps
            all).
        seed: of the pseudo-random ranking.
        threads: how many to use at the most; None for all cores. The boxes are the same for any number.
        connectivity: neighbours of a pixel, 4 or 8 (Felzenszwalb's; a tenth fewer boxes that
            cover a little more, in 1.5 times the time).
        width: of the working picture: the picture is resized to it first. None searches at full resolution.
        ranking: "pseudo-random" (the paper's: position in the hierarchy times a random number) or "objectness" (no
            random numbers; finds more objects among the first few hundred boxes, see `proposals.objectness`).

    Returns:
        Proposals in coordinates of `image`. Empty when no box is large enough.

    Raises:
        TypeError: `image` is no uint8 array.
        ValueError: `image` is not ``[H, W, 3]`` or empty, or another argument is out of range.

    Example:
        >>> from skimage.data import chelsea
        >>> len(selective_search(chelsea())) > 100
        True
    """
    _check(image, superpixel_scale, min_side, threads, connectivity, width, ranking)
    strategies = strategies_of(mode)
    scaled = [replace(strategy, k=strategy.k * superpixel_scale) for strategy in strategies]

    height_given, width_given = image.shape[:2]
    wide, high = working_size(width_given, height_given, width)
    picture = _resize(image, wide, high)
    # numba is imported here and not with the package: it takes half a second.
    from .hierarchies import hierarchies

    found = hierarchies(picture, scaled, connectivity, threads)
    boxes = np.concatenate(found)
    positions = hierarchy_positions([len(part) for part in found])
    values = pseudo_random_values(positions, seed)
    large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= min_side)
    boxes, positions, values = _widened(boxes[large], wide, high), positions[large], values[large]
    if ranking == "objectness":
        from .objectness import objectness

        values = np.exp(-objectness(boxes, positions, wide, high))
    order = np.argsort(values, kind="stable")
    order = order[first_of_each(boxes[order], wide, high)]
    to_given = np.array([width_given / wide, height_given / high] * 2)
    return Proposals((boxes[order] * to_given).astype(np.float32), (1 / (1 + values[order])).astype(np.float32))


def _widened(boxes: NDArray[np.int32], width: int, height: int) -> NDArray[np.int32]:
    """Boxes with `MARGIN` more pixels on every side, as far as the picture goes."""
    return (boxes + np.array([-MARGIN, -MARGIN, MARGIN, MARGIN], np.int32)).clip(0, [width, height, width, height])


def _resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    # INTER_AREA averages where the picture shrinks, which keeps texture from aliasing; it is no use for enlarging.
    shrinks = width * height < image.shape[0] * image.shape[1]
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)


def _check(
    image: object,
    superpixel_scale: float,
    min_side: float,
    threads: int | None,
    connectivity: int,
    width: int | None,
    ranking: str,
) -> None:
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image is a {type(image).__name__}: pass a numpy array, uint8 RGB [H, W, 3]")
    if image.dtype != np.uint8:
        raise TypeError(
            f"image has type {image.dtype}: pass uint8 RGB [H, W, 3]; "
            "floats in 0..1 become it by (image * 255).round().astype(np.uint8)"
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise ValueError(
            f"image has shape {image.shape}, a grey picture: pass RGB [H, W, 3], "
            "for example np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)"
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image has shape {image.shape}: pass RGB [H, W, 3], without alpha or batch dimension")
    if image.size == 0:
        raise ValueError(f"image has shape {image.shape}: it holds no pixels")
    if not 0 < superpixel_scale < float("inf"):
        raise ValueError(f"superpixel_scale must be a positive number, got {superpixel_scale!r}")
    if not min_side >= 0:
        raise ValueError(f"min_side must be 0 or more pixels, got {min_side!r}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, or None for all cores, got {threads!r}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity!r}")
    if width is not None and width < 1:
        raise ValueError(f"width must be 1 or more pixels, or None for full resolution, got {width!r}")
    if ranking not in ("pseudo-random", "objectness"):
        raise ValueError(f"ranking must be 'pseudo-random' or 'objectness', got {ranking!r}")
