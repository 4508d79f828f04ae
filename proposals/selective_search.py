"""Selective search for object recognition (Uijlings, van de Sande, Gevers, Smeulders; IJCV 2013).

from inception_rcnn import selective_search
proposals = selective_search(image)          # image: uint8 RGB [H, W, 3]
proposals.boxes[:10]                         # the ten best boxes, (x1, y1, x2, y2) in pixels
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

WORKING_WIDTH: Final = 500  # as in R-CNN (Girshick et al. 2014, section 2.2)
MAX_WORKING_PIXELS: Final = 500 * 1500  # limits tall images: at width 500 an image could have 500 x 50,000 pixels
# A larger k gives the same superpixels: one for the whole image, because its minimum size is more than all pixels.
LARGEST_K: Final = 1e9
# Pixels by which a box extends beyond its region. Superpixels end where the gradient of the smoothed image is largest,
# but people draw boxes around the whole visible object. Of the margins 0, 1, 1.5, 2 and 3, this margin has the largest
# average recall on 300 images of ILSVRC DET train: 0.537, against 0.527 without a margin.
MARGIN: Final = 2


def working_size(width: int, height: int, working_width: int | None = WORKING_WIDTH) -> tuple[int, int]:
    """Returns the width and height of the working image, in which regions are searched.

    The working image is `working_width` pixels wide. If it would have more than `MAX_WORKING_PIXELS` pixels, it is made
    smaller. With `working_width=None` it has the size of the image.
    """
    if working_width is None:
        return width, height
    scale = min(working_width / width, (MAX_WORKING_PIXELS / (width * height)) ** 0.5)
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
    """Proposes boxes that are likely to contain an object of any class, best first.

    The image is segmented into superpixels, and the most similar neighbours are merged until one region is left. Every
    superpixel and every merged region gives a box, which extends `MARGIN` pixels of the working image beyond the
    region. The boxes of several strategies (colour space, superpixel size, similarity) are pooled without duplicates.

    Args:
        image: uint8 RGB ``[H, W, 3]``.
        mode: "fast" (8 strategies, as in R-CNN), "quality" (80 strategies, some six times the boxes), "single" (one
            strategy), or a list of `Strategy`.
        superpixel_scale: factor on the k and the minimum superpixel size of every strategy: 1 as in Uijlings et al.
            (2013), or 2 as in GoogLeNet's detector (Szegedy et al. 2015, section 8), with half the boxes. Where a small
            scale would give more than some 16,000 superpixels, the minimum size is doubled until it does not.
        min_side: minimum side of a region, in pixels of the working image. R-CNN uses 20; 0 keeps all regions.
        seed: seed of the pseudo-random ranking.
        threads: maximum number of threads; None for all cores. The result does not depend on it.
        connectivity: neighbours of a pixel, 4 or 8. 8 (Felzenszwalb and Huttenlocher's choice) gives a tenth fewer
            boxes with slightly higher recall, in 1.5 times the time.
        width: width of the working image, to which the image is resized first; None searches at full resolution.
        ranking: "pseudo-random" (the paper's ranking: position in the hierarchy times a random number) or "objectness"
            (no random numbers; finds more objects among the first few hundred boxes, see `objectness.py`).

    Returns:
        Proposals in coordinates of `image`; empty if no region is large enough.

    Raises:
        TypeError: `image` is not a uint8 array.
        ValueError: `image` does not have the shape ``[H, W, 3]`` or is empty, or another argument is out of range.

    Example:
        >>> from skimage.data import chelsea
        >>> len(selective_search(chelsea())) > 100
        True
    """
    _check(image, superpixel_scale, min_side, threads, connectivity, width, ranking)
    strategies = strategies_of(mode)
    scaled = [replace(strategy, k=min(strategy.k * superpixel_scale, LARGEST_K)) for strategy in strategies]

    image_height, image_width = image.shape[:2]
    working_width, working_height = working_size(image_width, image_height, width)
    working_image = _resize(image, working_width, working_height)
    # Imported here because importing numba takes half a second.
    from .hierarchies import hierarchies

    boxes_by_strategy = hierarchies(working_image, scaled, connectivity, threads)
    boxes = np.concatenate(boxes_by_strategy)
    positions = hierarchy_positions([len(part) for part in boxes_by_strategy])
    values = pseudo_random_values(positions, seed)
    large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= min_side)
    boxes, positions, values = (
        _add_margin(boxes[large], working_width, working_height),
        positions[large],
        values[large],
    )
    if ranking == "objectness":
        from .objectness import objectness

        values = np.exp(-objectness(boxes, positions, working_width, working_height))
    order = np.argsort(values, kind="stable")
    order = order[first_of_each(boxes[order], working_width, working_height)]
    to_image = np.array([image_width / working_width, image_height / working_height] * 2)
    return Proposals((boxes[order] * to_image).astype(np.float32), (1 / (1 + values[order])).astype(np.float32))


def _add_margin(boxes: NDArray[np.int32], width: int, height: int) -> NDArray[np.int32]:
    """Extends boxes by `MARGIN` pixels on every side, within an image of `width` x `height` pixels."""
    return (boxes + np.array([-MARGIN, -MARGIN, MARGIN, MARGIN], np.int32)).clip(0, [width, height, width, height])


def _resize(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    # When an image shrinks, INTER_AREA averages pixels and so avoids aliasing. It is not suited to enlarging.
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
            "convert floats in 0..1 with (image * 255).round().astype(np.uint8)"
        )
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise ValueError(
            f"image has shape {image.shape}, a grey image: pass RGB [H, W, 3], "
            "for example np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)"
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image has shape {image.shape}: pass RGB [H, W, 3], without alpha or batch dimension")
    if image.size == 0:
        raise ValueError(f"image has shape {image.shape}: it contains no pixels")
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
