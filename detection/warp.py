"""Warp regions of a picture to the network's input size (R-CNN, Girshick et al. 2014, Section 2.3 and Appendix A).

Each box becomes a *window* of the picture that is resampled to ``size`` x ``size`` pixels. With (w, h) the box's width
and height and (cx, cy) its centre, ``inner = size - 2 * padding`` output pixels are the box's own, the rest is context:

=========================  ==============================  ======================================================
mode                       source pixels per output pixel  what is shown
=========================  ==============================  ======================================================
``warp``                   (w, h) / inner                  the picture
``square_with_context``    max(w, h) / inner on both axes  the picture
``square_without_context``  max(w, h) / inner on both axes  the box and its border of ``padding`` output pixels;
                                                           output pixels centred further out are ``fill``
=========================  ==============================  ======================================================

The value of output pixel (i, j), in words: extend the picture infinitely by ``fill``, filter it with a triangle as wide
as the shrink asks for, and read it at the pixel's centre. As a formula, for each colour, with (sx, sy) the second column:

    y = cy + (i + 1/2 - size/2) * sy            x = cx + (j + 1/2 - size/2) * sx
    out[i, j] = sum_k sum_l  u_k(y; sy) * u_l(x; sx) * I[k, l]        over all integers k, l, rounded to nearest
    u_k(c; s) = t_k / sum_m t_m                 t_k = max(0, 1 - |k + 1/2 - c| / max(1, s))

where I[k, l] is the picture's pixel in row k and column l, and ``fill`` outside it. This is bilinear interpolation when
enlarging and Pillow's and torch's antialiased bilinear filter when shrinking, but for what lies outside the picture.

Large pictures: where both axes shrink by 6 or more, the sum runs over a picture halved by 2x2 means (repeatedly, so
that the smaller of the remaining shrinks is in [3, 6)); see ``EXACT_SHRINK``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

WarpMode = Literal["warp", "square_with_context", "square_without_context"]

MEAN_RGB = (123, 117, 104)
"""The BVLC network's mean pixel in RGB: what is filled with it is zero after the mean is subtracted."""

EXACT_SHRINK = 6.0
"""Regions that shrink by less than this on either axis are filtered at full resolution.

At the standard 192 inner pixels that is every box with a side under 1,152 px. Larger ones would cost up to hundreds of
taps per output pixel; from the halved picture they cost no more than a 1,152 px box.
"""


def warp_regions(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    size: int = 224,
    padding: int = 16,
    mode: WarpMode = "warp",
    fill: Sequence[int] = MEAN_RGB,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Crop and resample every box to the network's input; the module's docstring has the formula.

    Runs on the calling thread with the GIL released; calls from several threads do not disturb each other. The first call
    on a machine compiles the kernel (some seconds), which numba then keeps on disk for later processes.

    Args:
        image: uint8 RGB [H, W, 3], H and W at least 1.
        boxes: [N, 4] as (x1, y1, x2, y2), 0-based continuous, x1 < x2 and y1 < y2. They may reach beyond the picture,
            but each must overlap it. N may be 0.
        size: side of the result in pixels.
        padding: border of context around the box, in output pixels; 0 <= 2 * padding < size.
        mode: "warp", "square_with_context" or "square_without_context".
        fill: the colour outside the picture, RGB 0..255.
        out: where to write the result: C-contiguous uint8 [N, size, size, 3]. A new array when None.

    Returns:
        uint8 RGB [N, size, size, 3], which is ``out`` when that was given.

    Raises:
        TypeError: ``image`` or ``out`` is not a uint8 array, or ``boxes`` is not an array of real numbers.
        ValueError: a shape, a box (not finite, without area, wholly outside the picture) or a setting is not as above.
    """
    _check_image(image)
    windows_of = np.asarray(boxes)
    _check_boxes(windows_of, width=image.shape[1], height=image.shape[0])
    colour = _check_settings(size, padding, mode, fill)
    shape = (len(windows_of), size, size, 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    else:
        _check_out(out, shape)
    if len(windows_of) == 0:
        return out

    steps, origins, shown = _windows(windows_of.astype(np.float64), size, padding, mode)
    levels = _levels(steps)
    pixels = np.ascontiguousarray(image)
    halve, warp = _kernels()
    for level in range(int(levels.max()) + 1):
        if level:
            pixels = halve(pixels, colour)
        chosen = np.flatnonzero(levels == level)
        if len(chosen):
            warp(pixels, chosen, origins / 2**level, steps / 2**level, shown, colour, out)
    return out


def _windows(
    boxes: NDArray[np.float64], size: int, padding: int, mode: WarpMode
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes [N, 4] -> source pixels per output pixel [N, 2], source position of the output's corner [N, 2], both (x, y),
    and the shown output pixels [N, 4] as half-open (left, top, right, bottom)."""
    sides = boxes[:, 2:] - boxes[:, :2]  # [N, 2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inner = size - 2 * padding
    steps = sides / inner
    if mode != "warp":
        steps = np.repeat(steps.max(axis=1, keepdims=True), 2, axis=1)
    origins = centres - steps * (size / 2)
    shown = np.tile(np.array([0, 0, size, size], np.int64), (len(boxes), 1))
    if mode == "square_without_context":
        reach = (
            sides / steps / 2 + padding
        )  # [N, 2] output pixels from the centre to the end of what is shown
        shown[:, :2] = np.ceil(size / 2 - reach - 0.5)
        shown[:, 2:] = np.ceil(size / 2 + reach - 0.5)
        shown = shown.clip(0, size)
    return steps, origins, shown


def _levels(steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """How often to halve the picture for each region [N]: until the smaller shrink is below EXACT_SHRINK."""
    smaller = steps.min(axis=1)
    levels = np.floor(np.log2(np.maximum(smaller / EXACT_SHRINK, 0.5))) + 1
    return levels.astype(np.int64)


def _check_image(image: NDArray[np.uint8]) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"image must be a uint8 array [H, W, 3], got {got}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be [H, W, 3] with at least one pixel, got {list(image.shape)}")


def _check_boxes(boxes: NDArray[Any], width: int, height: int) -> None:
    if boxes.dtype.kind not in "fiu":
        raise TypeError(f"boxes must be numbers, float32 [N, 4], got {boxes.dtype}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be [N, 4] as (x1, y1, x2, y2), got {list(boxes.shape)}")
    x1, y1, x2, y2 = boxes.T
    complaints = (
        (~np.isfinite(boxes).all(axis=1), "is not finite"),
        ((x2 <= x1) | (y2 <= y1), "has no area: expected x1 < x2 and y1 < y2"),
        (
            (x1 >= width) | (y1 >= height) | (x2 <= 0) | (y2 <= 0),
            f"lies wholly outside the {width}x{height} picture: are its coordinates those of this picture?",
        ),
    )
    for wrong, complaint in complaints:
        if wrong.any():
            n = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"box {n} {tuple(boxes[n].tolist())} {complaint}")


def _check_settings(size: int, padding: int, mode: WarpMode, fill: Sequence[int]) -> NDArray[np.uint8]:
    if mode not in get_args(WarpMode):
        raise ValueError(f"mode must be one of {', '.join(get_args(WarpMode))}, got {mode!r}")
    if size < 1 or padding < 0 or 2 * padding >= size:
        raise ValueError(f"expected 0 <= 2 * padding < size, got padding {padding} and size {size}")
    colour = np.asarray(fill)
    if colour.shape != (3,) or colour.dtype.kind not in "iu" or colour.min() < 0 or colour.max() > 255:
        raise ValueError(f"fill must be three whole numbers 0..255 (RGB), got {fill!r}")
    return colour.astype(np.uint8)


def _check_out(out: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8:
        got = out.dtype if isinstance(out, np.ndarray) else type(out).__name__
        raise TypeError(f"out must be a uint8 array {list(shape)}, got {got}")
    if out.shape != shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"out must be a writeable C-contiguous array {list(shape)}, got {list(out.shape)}")


def _halve(image: Any, fill: Any) -> Any:
    """Means of 2x2 pixels: [H, W, 3] -> [ceil(H / 2), ceil(W / 2), 3], ``fill`` beyond an odd edge."""
    height, width = image.shape[:2]
    result = np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.uint8)
    for y in range(result.shape[0]):
        for x in range(result.shape[1]):
            # Exact halves are rounded up and down in turn, so that repeated halving does not brighten the picture.
            rounding = 1 + ((x + y) & 1)
            for c in range(3):
                total = rounding + int(image[2 * y, 2 * x, c])
                right = 2 * x + 1 < width
                below = 2 * y + 1 < height
                total += image[2 * y, 2 * x + 1, c] if right else fill[c]
                total += image[2 * y + 1, 2 * x, c] if below else fill[c]
                total += image[2 * y + 1, 2 * x + 1, c] if right and below else fill[c]
                result[y, x, c] = total >> 2
    return result


def _warp(image: Any, chosen: Any, origins: Any, steps: Any, shown: Any, fill: Any, out: Any) -> None:
    """The module's formula for the chosen regions; the vertical sum first, one output row at a time.

    Only taps inside the picture are stored; what is missing from a weight of 1 is the share of ``fill``.
    """
    size = out.shape[1]
    height, width = image.shape[:2]
    pixels = image.reshape(height, 3 * width)
    column = np.empty(3 * width, np.float32)  # one row of source pixels, vertically filtered
    filled = np.empty(3 * width, np.float32)
    for x in range(3 * width):
        filled[x] = fill[x % 3]
    line = np.empty(3 * size, np.float32)  # one row of output
    first = np.empty((2, size), np.int64)  # [axis, output pixel]: its first tap
    beyond = np.empty((2, size), np.float32)  # [axis, output pixel]: the weight outside the picture
    count = np.empty(2, np.int64)
    most = 1
    for n in chosen:
        for axis in range(2):
            limit = width if axis == 0 else height
            most = max(most, int(min(math.ceil(2 * max(steps[n, axis], 1.0)), float(limit))))
    weights = np.empty((2, size * most), np.float32)

    for n in chosen:
        for axis in range(2):
            limit = width if axis == 0 else height
            step = steps[n, axis]
            support = max(step, 1.0)
            taps = int(min(math.ceil(2 * support), float(limit)))
            count[axis] = taps
            for j in range(size):
                centre = origins[n, axis] + (j + 0.5) * step
                start = int(min(max(math.floor(centre - support - 0.5) + 1.0, 0.0), float(limit - taps)))
                # The sum of all weights, also those outside: two arithmetic series, from the centre outwards.
                near = math.ceil(centre - 0.5) + 0.5 - centre
                right = math.ceil(support - near)
                left = math.ceil(support - (1.0 - near))
                total = right - (right * near + right * (right - 1.0) / 2) / support
                total += left - (left * (1.0 - near) + left * (left - 1.0) / 2) / support
                inside = 0.0
                for t in range(taps):
                    weight = max(0.0, 1.0 - abs(start + t + 0.5 - centre) / support) / total
                    weights[axis, j * taps + t] = weight
                    inside += weight
                first[axis, j] = start
                beyond[axis, j] = max(0.0, 1.0 - inside)

        left_shown, top_shown, right_shown, bottom_shown = shown[n]
        # ``first`` never falls, so that these source columns are all that the shown output pixels need.
        begin = 3 * first[0, left_shown]
        end = 3 * (first[0, right_shown - 1] + count[0])
        across = column[begin:end]
        for i in range(size):
            target = out[n, i].reshape(3 * size)
            if i < top_shown or i >= bottom_shown:
                for x in range(3 * size):
                    target[x] = fill[x % 3]
                continue
            share = beyond[1, i]
            for x in range(len(across)):
                across[x] = share * filled[x]
            taps = count[1]
            for t in range(taps):
                weight = weights[1, i * taps + t]
                source = pixels[first[1, i] + t, begin:end]
                for x in range(len(across)):
                    across[x] += weight * np.float32(source[x])
            taps = count[0]
            for j in range(left_shown, right_shown):
                share = beyond[0, j]
                red = share * np.float32(fill[0])
                green = share * np.float32(fill[1])
                blue = share * np.float32(fill[2])
                x = 3 * first[0, j]
                for t in range(taps):
                    weight = weights[0, j * taps + t]
                    red += weight * column[x]
                    green += weight * column[x + 1]
                    blue += weight * column[x + 2]
                    x += 3
                line[3 * j] = red
                line[3 * j + 1] = green
                line[3 * j + 2] = blue
            for x in range(3 * left_shown):
                line[x] = filled[x % 3]
            for x in range(3 * right_shown, 3 * size):
                line[x] = filled[x % 3]
            for x in range(3 * size):
                target[x] = np.uint8(line[x] + np.float32(0.5))


_compiled: tuple[Callable[..., Any], Callable[..., Any]] | None = None
_compiling = threading.Lock()


def _kernels() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``_halve`` and ``_warp`` compiled; numba takes a while to import, and only those who warp need to wait for it."""
    global _compiled
    with _compiling:
        if _compiled is None:
            from numba import njit

            options = {"cache": True, "nogil": True, "fastmath": True, "error_model": "numpy"}
            _compiled = cast(
                tuple[Callable[..., Any], Callable[..., Any]],
                (njit(**options)(_halve), njit(**options)(_warp)),
            )
    return _compiled
