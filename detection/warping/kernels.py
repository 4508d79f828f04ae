"""The compiled part of `warp`: halving pictures, and the formula's two sums over a region.

Imported when the first region is warped, since numba takes half a second to import.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...runtime.compilation import fused_kernel

_ROUND = np.float32(0.5)


@fused_kernel
def halve_height(image: Any, fill: Any) -> Any:
    """Means of two rows: [H, W, 3] -> [ceil(H / 2), W, 3]; a last row without a partner is averaged with ``fill``.

    Exact halves go up and down in turn, here and in halve_width, so that halving does not brighten the picture.
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


@fused_kernel
def halve_width(image: Any, fill: Any) -> Any:
    """Means of two columns: [H, W, 3] -> [H, ceil(W / 2), 3]; a last column without a partner as in halve_height."""
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


@fused_kernel
def _triangle_taps(origin: Any, step: Any, size: Any, limit: Any, weights: Any, first: Any, beyond: Any) -> Any:
    """u_k of the formula of `warp` along one axis of ``limit`` source pixels, for all output pixels j.

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


@fused_kernel
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


@fused_kernel
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


@fused_kernel
def warp(image: Any, chosen: Any, origins: Any, steps: Any, shown: Any, fill: Any, out: Any) -> None:
    """The formula of `warp` for the regions whose numbers are ``chosen``.

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
