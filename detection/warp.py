"""Warp regions of a picture to the network's input (R-CNN, Girshick et al. 2014, Section 2.3 and Appendix A).

Each box is placed so that it fills the ``inner = size - 2 * padding`` pixels in the middle of a ``size`` x ``size``
result. With (w, h) the box's width and height and (cx, cy) its centre, each output pixel covers sx x sy source pixels:

- ``warp``: sx = w / inner, sy = h / inner. The border shows what the picture has around the box.
- ``square_with_context``: sx = sy = max(w, h) / inner, the tightest square; the picture shows everywhere.
- ``square_without_context``: the same square, but only the box and a border of ``padding`` output pixels around it
  are shown; output pixels whose centre lies further out are ``fill``.

The value of output pixel (i, j), in words: extend the picture infinitely by ``fill``, filter it with a triangle as
wide as the shrink asks for, and read it at the pixel's centre. As a formula, for each colour:

    y = cy + (i + 1/2 - size/2) * sy            x = cx + (j + 1/2 - size/2) * sx
    out[i, j] = sum_k sum_l  u_k(y; sy) * u_l(x; sx) * I[k, l]    over all integers k, l, rounded to nearest
    u_k(c; s) = t_k / sum_m t_m                 t_k = max(0, 1 - |k + 1/2 - c| / max(1, s))

where I[k, l] is the picture's pixel in row k and column l, and ``fill`` outside the picture. This is bilinear
interpolation when enlarging, and the antialiased bilinear filter of Pillow and torch when shrinking, except that
those renormalise at the picture's edge.

Along an axis that shrinks by 6 or more (``EXACT_SHRINK``; at 192 inner pixels a side of the box of 1,152 px or more)
the sum runs over the means of 2, 4, 8, ... pixels, as many as leave a shrink in [3, 6). Largest deviations from the
formula at full resolution, in grey levels of 255: on photographs 4 (0.5 root mean square, of which rounding is 0.3), on
a pattern of black and white blocks 12.

Time for regions of a 500x375 picture, one core of an AMD EPYC (Zen 4): 0.06 ms for small regions, 0.11 ms on average,
0.29 ms for the whole picture; Pillow takes 0.50 ms on average.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

WarpMode = Literal["warp", "square_with_context", "square_without_context"]

MEAN_RGB = (123, 117, 104)
"""The BVLC network's mean pixel in RGB: what is filled with it is zero once the mean is subtracted."""

EXACT_SHRINK = 6.0
"""An axis that shrinks by less than this is filtered at full resolution, exactly; see the module's docstring.

At the standard size and padding that is so for every box of a picture under 1,152 px. Beyond, the number of taps
would grow with the picture; from halved pictures no box costs more than 0.9 ms (12 megapixels, 1,000 boxes: 0.55 ms).
"""

_ROUND = np.float32(0.5)


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

    Runs on the calling thread with the GIL released; calls from several threads do not disturb each other. The first
    call ever compiles the kernels, saying so in one line on stderr; numba keeps them on disk for later processes.

    A picture from which halved copies are needed (see above) is halved at each call: give all its boxes at once.

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
    regions = np.asarray(boxes)
    _check_boxes(regions, width=image.shape[1], height=image.shape[0])
    colour = _check_settings(size, padding, mode, fill)
    shape = (len(regions), size, size, 3)
    if out is None:
        out = np.empty(shape, np.uint8)
    else:
        _check_out(out, shape)
    if len(regions) == 0:
        return out

    steps, origins, shown = _placement(regions.astype(np.float64), size, padding, mode)
    levels = _levels(steps)
    _compile_kernels()
    short = np.ascontiguousarray(image)
    for level_y in range(int(levels[:, 1].max()) + 1):
        if level_y:
            short = _halve_height(short, colour)
        here = levels[:, 1] == level_y
        narrow = short
        for level_x in range(int(levels[here, 0].max(initial=-1)) + 1):
            if level_x:
                narrow = _halve_width(narrow, colour)
            chosen = np.flatnonzero(here & (levels[:, 0] == level_x))
            if len(chosen):
                scale = 0.5 ** np.array([level_x, level_y])
                _warp(narrow, chosen, origins * scale, steps * scale, shown, colour, out)
    return out


def _placement(
    boxes: NDArray[np.float64], size: int, padding: int, mode: WarpMode
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes [N, 4] -> source pixels per output pixel (sx, sy) [N, 2], source position (x, y) of the output's corner
    [N, 2], and the shown output pixels [N, 4] as half-open (left, top, right, bottom)."""
    sides = boxes[:, 2:] - boxes[:, :2]  # [N, 2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inner = size - 2 * padding
    steps = sides / inner
    if mode != "warp":
        steps = np.repeat(steps.max(axis=1, keepdims=True), 2, axis=1)
    origins = centres - steps * (size / 2)
    shown = np.tile(np.array([0, 0, size, size], np.int64), (len(boxes), 1))
    if mode == "square_without_context":
        reach = sides / steps / 2 + padding  # [N, 2] shown output pixels on either side of the centre
        shown[:, :2] = np.ceil(size / 2 - reach - 0.5)
        shown[:, 2:] = np.ceil(size / 2 + reach - 0.5)
        shown = shown.clip(0, size)
    return steps, origins, shown


def _levels(steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """How often to halve the picture along (x, y) for each region [N, 2]: until both shrinks are below EXACT_SHRINK."""
    return np.floor(np.log2(np.maximum(steps / EXACT_SHRINK, 0.5))).astype(np.int64) + 1


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


# The kernels. They are plain functions until _compile_kernels puts their compiled selves in their places, because
# numba takes half a second to import and only those who warp should wait for it.


def _halve_height(image: Any, fill: Any) -> Any:
    """Means of two rows: [H, W, 3] -> [ceil(H / 2), W, 3]; a last row without a partner is averaged with ``fill``.

    Exact halves go up and down in turn, here and in _halve_width, so that halving does not brighten the picture.
    """
    height, width = image.shape[:2]
    rows = image.reshape(height, 3 * width)
    beyond = np.empty(3 * width, np.uint8)
    for x in range(3 * width):
        beyond[x] = fill[x % 3]
    result = np.empty(((height + 1) // 2, 3 * width), np.uint8)
    for y in range(len(result)):
        a = rows[2 * y]
        b = rows[2 * y + 1] if 2 * y + 1 < height else beyond
        target = result[y]
        for x in range(3 * width):
            target[x] = (np.uint16(a[x]) + np.uint16(b[x]) + np.uint16((x + y) & 1)) >> 1
    return result.reshape(len(result), width, 3)


def _halve_width(image: Any, fill: Any) -> Any:
    """Means of two columns: [H, W, 3] -> [H, ceil(W / 2), 3]; a last column without a partner as in _halve_height."""
    height, width = image.shape[:2]
    result = np.empty((height, (width + 1) // 2, 3), np.uint8)
    for y in range(height):
        source, target = image[y].reshape(3 * width), result[y].reshape(3 * result.shape[1])
        for x in range(width // 2):
            up = np.int32((x + y) & 1)
            for c in range(3):
                target[3 * x + c] = (np.int32(source[6 * x + c]) + np.int32(source[6 * x + 3 + c]) + up) >> 1
        if width % 2:
            for c in range(3):
                up = np.int32(y & 1)
                target[len(target) - 3 + c] = (np.int32(source[len(source) - 3 + c]) + np.int32(fill[c]) + up) >> 1
    return result


def _triangle_taps(origin: Any, step: Any, size: Any, limit: Any, weights: Any, first: Any, beyond: Any) -> Any:
    """u_k of the module's formula along one axis of ``limit`` source pixels, for all output pixels j.

    weights[j * taps + t] is that of source pixel first[j] + t; taps outside the picture are left out, and beyond[j],
    what is missing from a sum of 1, is the weight of ``fill``. Returns ``taps``, the same for all j.
    """
    support = max(step, 1.0)
    taps = int(min(math.ceil(2 * support), float(limit)))
    for j in range(size):
        centre = origin + (j + 0.5) * step
        start = int(min(max(math.floor(centre - support - 0.5) + 1.0, 0.0), float(limit - taps)))
        # The sum of all weights, outside taps included: two arithmetic series, outwards from the centre.
        near = math.ceil(centre - 0.5) + 0.5 - centre
        far = 1.0 - near
        right = math.ceil(support - near)
        left = math.ceil(support - far)
        total = right - (right * near + right * (right - 1.0) / 2) / support
        total += left - (left * far + left * (left - 1.0) / 2) / support
        inside = 0.0
        for t in range(taps):
            weight = max(0.0, 1.0 - abs(start + t + 0.5 - centre) / support) / total
            weights[j * taps + t] = weight
            inside += weight
        first[j] = start
        beyond[j] = max(0.0, 1.0 - inside)
    return taps


def _blend_rows(
    rows: Any, y: Any, begin: Any, end: Any, weights: Any, taps: Any, share: Any, filled: Any, result: Any
) -> None:
    """result[x - begin] = share * filled + sum_t weights[t] * rows[y + t, x]: the sum over rows k.

    Two or three rows a sweep: the sweeps are bound by the loads and stores of ``result``.
    """
    n = end - begin
    target = result[:n]
    t = 0
    if share > 0 or taps < 2:
        for x in range(n):
            target[x] = share * filled[x]
    elif taps % 2 == 0:
        u, v = weights[0], weights[1]
        a, b = rows[y, begin:end], rows[y + 1, begin:end]
        for x in range(n):
            target[x] = u * np.float32(a[x]) + v * np.float32(b[x])
        t = 2
    else:
        u, v, w = weights[0], weights[1], weights[2]
        a, b, c = rows[y, begin:end], rows[y + 1, begin:end], rows[y + 2, begin:end]
        for x in range(n):
            target[x] = u * np.float32(a[x]) + v * np.float32(b[x]) + w * np.float32(c[x])
        t = 3
    while t + 1 < taps:
        u, v = weights[t], weights[t + 1]
        a, b = rows[y + t, begin:end], rows[y + t + 1, begin:end]
        for x in range(n):
            target[x] += u * np.float32(a[x]) + v * np.float32(b[x])
        t += 2
    if t < taps:
        u = weights[t]
        a = rows[y + t, begin:end]
        for x in range(n):
            target[x] += u * np.float32(a[x])


def _blend_columns(
    row: Any,
    left: Any,
    first: Any,
    weights: Any,
    taps: Any,
    beyond: Any,
    fill: Any,
    begin: Any,
    end: Any,
    line: Any,
) -> None:
    """line[j] = beyond[j] * fill + sum_t weights[j, t] * row[first[j] - left + t], for begin <= j < end: the sum over
    columns l. ``row`` and ``line`` are interleaved RGB; unsigned indices spare numba's test for negative ones."""
    red, green, blue = fill[0], fill[1], fill[2]
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    if taps == 2:
        for j in range(begin, end):
            share, u, v = beyond[j], weights[2 * j], weights[2 * j + 1]
            p = three * np.uint64(first[j] - left)
            q = p + three
            d = three * np.uint64(j)
            line[d] = share * red + u * row[p] + v * row[q]
            line[d + one] = share * green + u * row[p + one] + v * row[q + one]
            line[d + two] = share * blue + u * row[p + two] + v * row[q + two]
        return
    for j in range(begin, end):
        share = beyond[j]
        r, g, b = share * red, share * green, share * blue
        p = three * np.uint64(first[j] - left)
        w = np.uint64(j * taps)
        for t in range(taps):
            weight = weights[w + np.uint64(t)]
            r += weight * row[p]
            g += weight * row[p + one]
            b += weight * row[p + two]
            p += three
        d = three * np.uint64(j)
        line[d] = r
        line[d + one] = g
        line[d + two] = b


def _warp(image: Any, chosen: Any, origins: Any, steps: Any, shown: Any, fill: Any, out: Any) -> None:
    """The module's formula for the regions whose numbers are ``chosen``.

    The two sums commute. The one over columns is the dear one (RGB triples do not vectorise), so it runs on whichever
    are fewer: the source rows (it goes first) or the output rows (it goes second).
    """
    size = out.shape[1]
    height, width = image.shape[:2]
    pixels = image.reshape(height, 3 * width)
    most = 1
    for n in chosen:
        for axis in range(2):
            taps = math.ceil(2 * max(steps[n, axis], 1.0))
            most = max(most, int(min(taps, float(max(width, height)))))
    weights_x, weights_y = np.empty(size * most, np.float32), np.empty(size * most, np.float32)
    first_x, first_y = np.empty(size, np.int64), np.empty(size, np.int64)
    beyond_x, beyond_y = np.empty(size, np.float32), np.empty(size, np.float32)
    colour = fill.astype(np.float32)
    filled = np.empty(3 * max(width, size), np.float32)  # ``fill`` as a row of interleaved RGB
    for x in range(len(filled)):
        filled[x] = colour[x % 3]
    row = np.empty(3 * width, np.float32)
    line = np.empty(3 * size, np.float32)
    narrowed = np.empty((size, 3 * size), np.float32)  # source rows after the sum over columns

    for n in chosen:
        left, top, right, bottom = shown[n]
        if left >= right or top >= bottom:
            right = left = bottom = top = 0
        taps_x = _triangle_taps(origins[n, 0], steps[n, 0], size, width, weights_x, first_x, beyond_x)
        taps_y = _triangle_taps(origins[n, 1], steps[n, 1], size, height, weights_y, first_y, beyond_y)
        # ``first`` never falls with j: these are all the source columns and rows that the shown pixels need.
        column, column_end = first_x[left], first_x[max(right - 1, 0)] + taps_x
        source, source_end = first_y[top], first_y[max(bottom - 1, 0)] + taps_y
        begin, end = 3 * column, 3 * column_end
        columns_first = source_end - source < bottom - top
        if columns_first:
            for y in range(source, source_end):
                bytes_of_row = pixels[y, begin:end]
                for x in range(end - begin):
                    row[x] = np.float32(bytes_of_row[x])
                _blend_columns(
                    row,
                    column,
                    first_x,
                    weights_x,
                    taps_x,
                    beyond_x,
                    colour,
                    left,
                    right,
                    narrowed[y - source],
                )
        line[:] = filled[: 3 * size]
        for i in range(size):
            target = out[n, i].reshape(3 * size)
            if i < top or i >= bottom:
                for x in range(3 * size):
                    target[x] = np.uint8(filled[x])
                continue
            taps = weights_y[i * taps_y : (i + 1) * taps_y]
            if columns_first:
                y = first_y[i] - source
                _blend_rows(narrowed, y, 3 * left, 3 * right, taps, taps_y, beyond_y[i], filled, line[3 * left :])
            else:
                _blend_rows(pixels, first_y[i], begin, end, taps, taps_y, beyond_y[i], filled, row)
                _blend_columns(row, column, first_x, weights_x, taps_x, beyond_x, colour, left, right, line)
            for x in range(3 * size):
                target[x] = np.uint8(np.int32(line[x] + _ROUND))


_KERNELS = (_halve_height, _halve_width, _triangle_taps, _blend_rows, _blend_columns, _warp)
_compiling = threading.Lock()
_compiled = False


def _compile_kernels() -> None:
    """Put the compiled kernels in the places of the plain ones, once per process."""
    global _compiled
    with _compiling:
        if _compiled:
            return
        from numba import njit
        from numba.core import event

        class Announcement(event.Listener):
            """One line when something is compiled; loading from the cache on disk says nothing."""

            made = False

            def on_start(self, event: Any) -> None:
                dispatcher = (event.data or {}).get("dispatcher")
                if not self.made and getattr(dispatcher, "__module__", None) == __name__:
                    self.made = True
                    print(
                        "inception_rcnn: compiling the warp for this machine (once, a few seconds) ...",
                        file=sys.stderr,
                    )

            def on_end(self, event: Any) -> None:
                """Nothing to say."""

        event.register("numba:compile", Announcement())
        # Fused multiply-add is the only liberty with floating point; the module's formula needs no other.
        for kernel in _KERNELS:
            globals()[kernel.__name__] = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(
                kernel
            )
        _compiled = True
