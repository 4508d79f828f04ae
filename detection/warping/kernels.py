"""The kernels of `warp_regions`, compiled by numba: halving pictures, and the two sums of the formula.

`warp_regions` imports this module when it warps the first region, since importing numba takes half a second.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...runtime.compilation import fused_kernel

_ROUND = np.float32(0.5)


@fused_kernel
def halve_height(image: Any, fill: Any) -> Any:
    """Means of pairs of rows: [H, W, 3] -> [ceil(H / 2), W, 3]. An odd last row is averaged with ``fill``.

    Here and in halve_width, exact halves are rounded up and down in turn, so halving does not brighten the picture.
    """
    height, width = image.shape[:2]
    rows = image.reshape(height, 3 * width)
    fill_row = np.empty(3 * width, np.uint8)
    for x in range(3 * width):
        fill_row[x] = fill[x % 3]
    result = np.empty(((height + 1) // 2, 3 * width), np.uint8)
    for y in range(len(result)):
        a = rows[2 * y]
        b = rows[2 * y + 1] if 2 * y + 1 < height else fill_row
        target = result[y]
        for x in range(3 * width):
            target[x] = (np.uint16(a[x]) + np.uint16(b[x]) + np.uint16((x + y) & 1)) >> 1
    return result.reshape(len(result), width, 3)


@fused_kernel
def halve_width(image: Any, fill: Any) -> Any:
    """Means of pairs of columns: [H, W, 3] -> [H, ceil(W / 2), 3]. An odd last column is averaged with ``fill``."""
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
def _triangle_taps(origin: Any, step: Any, size: Any, limit: Any, weights: Any, first: Any, fill_weights: Any) -> Any:
    """Write the weights u_k of the formula along one axis of ``limit`` source pixels, for all output pixels j.

    ``weights[j * taps + t]`` is the weight of source pixel ``first[j] + t``. Source pixels outside the picture have no
    weight of their own; ``fill_weights[j]`` is the sum of theirs, the weight of ``fill``.

    Returns:
        ``taps``, the number of weights of an output pixel, the same for all j.
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
        fill_weights[j] = max(0.0, 1.0 - inside)
    return taps


@fused_kernel
def _blend_rows(
    rows: Any, y: Any, begin: Any, end: Any, weights: Any, taps: Any, fill_weight: Any, fill_row: Any, result: Any
) -> None:
    """The formula's sum over rows k: result[x - begin] = fill_weight * fill_row + sum_t weights[t] * rows[y + t, x].

    Each sweep over ``result`` adds two or three rows, because loading and storing ``result`` limits the speed.
    """
    n = end - begin
    target = result[:n]
    t = 0
    if fill_weight > 0 or taps < 2:
        for x in range(n):
            target[x] = fill_weight * fill_row[x]
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
    fill_weights: Any,
    fill: Any,
    begin: Any,
    end: Any,
    line: Any,
) -> None:
    """The formula's sum over columns l, for begin <= j < end:

        line[j] = fill_weights[j] * fill + sum_t weights[j, t] * row[first[j] - left + t]

    ``row`` and ``line`` are interleaved RGB. Indices are unsigned because numba tests whether signed ones are negative.
    """
    red, green, blue = fill[0], fill[1], fill[2]
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    if taps == 2:
        for j in range(begin, end):
            fill_weight, u, v = fill_weights[j], weights[2 * j], weights[2 * j + 1]
            p = three * np.uint64(first[j] - left)
            q = p + three
            d = three * np.uint64(j)
            line[d] = fill_weight * red + u * row[p] + v * row[q]
            line[d + one] = fill_weight * green + u * row[p + one] + v * row[q + one]
            line[d + two] = fill_weight * blue + u * row[p + two] + v * row[q + two]
        return
    for j in range(begin, end):
        fill_weight = fill_weights[j]
        r, g, b = fill_weight * red, fill_weight * green, fill_weight * blue
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
def warp(image: Any, indices: Any, origins: Any, steps: Any, visible: Any, fill: Any, out: Any) -> None:
    """Warp the regions ``indices`` of ``origins``, ``steps`` and ``visible`` (see `placement`) into ``out``.

    The two sums of the formula commute. The sum over columns is the expensive one, since RGB triples do not vectorise.
    It runs first, on the source rows, if they are fewer than the output rows; else it runs second, on the output rows.
    """
    size = out.shape[1]
    height, width = image.shape[:2]
    pixels = image.reshape(height, 3 * width)
    max_taps = 1
    for n in indices:
        for axis in range(2):
            taps = math.ceil(2 * max(steps[n, axis], 1.0))
            max_taps = max(max_taps, int(min(taps, float(max(width, height)))))
    weights_x, weights_y = np.empty(size * max_taps, np.float32), np.empty(size * max_taps, np.float32)
    first_x, first_y = np.empty(size, np.int64), np.empty(size, np.int64)
    fill_weights_x, fill_weights_y = np.empty(size, np.float32), np.empty(size, np.float32)
    colour = fill.astype(np.float32)
    fill_row = np.empty(3 * max(width, size), np.float32)  # interleaved RGB
    for x in range(len(fill_row)):
        fill_row[x] = colour[x % 3]
    row = np.empty(3 * width, np.float32)
    line = np.empty(3 * size, np.float32)
    narrowed = np.empty((size, 3 * size), np.float32)  # source rows after the sum over columns

    for n in indices:
        left, top, right, bottom = visible[n]
        if left >= right or top >= bottom:
            right = left = bottom = top = 0
        taps_x = _triangle_taps(origins[n, 0], steps[n, 0], size, width, weights_x, first_x, fill_weights_x)
        taps_y = _triangle_taps(origins[n, 1], steps[n, 1], size, height, weights_y, first_y, fill_weights_y)
        # ``first`` never decreases with j, so these ranges hold all source columns and rows of the visible pixels.
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
                    fill_weights_x,
                    colour,
                    left,
                    right,
                    narrowed[y - source],
                )
        line[:] = fill_row[: 3 * size]
        for i in range(size):
            target = out[n, i].reshape(3 * size)
            if i < top or i >= bottom:
                for x in range(3 * size):
                    target[x] = np.uint8(fill_row[x])
                continue
            taps = weights_y[i * taps_y : (i + 1) * taps_y]
            if columns_first:
                y = first_y[i] - source
                _blend_rows(
                    narrowed, y, 3 * left, 3 * right, taps, taps_y, fill_weights_y[i], fill_row, line[3 * left :]
                )
            else:
                _blend_rows(pixels, first_y[i], begin, end, taps, taps_y, fill_weights_y[i], fill_row, row)
                _blend_columns(row, column, first_x, weights_x, taps_x, fill_weights_x, colour, left, right, line)
            for x in range(3 * size):
                target[x] = np.uint8(np.int32(line[x] + _ROUND))
