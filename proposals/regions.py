"""The features of superpixels: size, box, colour and texture histograms, and adjacency.

The histograms of a region are one row of pixel counts: texture ``[C, 8 orientations, 10 bins]``, then colour
``[C, 25]`` (Uijlings et al. 2013, section 3.2). The row of a union of two regions is the sum of their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runtime.compilation import kernel

TEXTURE_BINS: Final = 80  # per channel: 8 orientations with 10 bins each
COLOUR_BINS: Final = 25  # per channel
# Range of the 10 bins, in grey levels per pixel. Larger derivatives fall into the last bin.
TEXTURE_RANGE: Final = 20.0


def row_length(channels: int) -> int:
    """Returns the number of histogram bins of a region, for example 315 for three channels."""
    return channels * (TEXTURE_BINS + COLOUR_BINS)


def colour_bin_factors(levels: Sequence[int]) -> NDArray[np.int32]:
    """Returns factors f, int32 ``[C]``, with ``value * f >> 16 == value * 25 // levels`` for every value."""
    return np.array([-(-(COLOUR_BINS << 16) // count) for count in levels], np.int32)


@kernel
def pixel_codes(image: Any, smoothed: Any, gx: Any, gy: Any, lines: Any, bin_factors: Any, codes: Any) -> None:
    """Computes the histogram bins of each pixel.

    The Gaussian derivative at sigma 1 is approximated by the Scharr derivative of the image smoothed at sigma 0.8,
    which segmentation needs anyway. The variances add up: 0.8^2 + 0.36 = 1 in both directions. The derivative of the
    opposite orientation is the negative, so four signed derivatives give all eight rectified derivatives.

    Args:
        image: uint8 ``[C, H, W]``.
        smoothed: float32 ``[C, H, W]``, the image smoothed at sigma 0.8.
        gx, gy: float32 ``[W]``, workspace.
        lines: uint8 ``[5 * C, W]``, workspace.
        bin_factors: int32 ``[C]`` from `colour_bin_factors`.
        codes: uint64 ``[2, H, W]`` for three channels or ``[1, H, W]`` for one, output. From the lowest byte on, each
            channel has four bytes of derivatives (the bin, plus 10 if negative) and a byte with the colour bin.
    """
    channels, height, width = smoothed.shape
    scale = np.float32(10.0 / TEXTURE_RANGE)
    diagonal = np.float32(np.sqrt(0.5))
    narrow, wide = np.float32(3.0 / 32.0) * scale, np.float32(10.0 / 32.0) * scale
    zero, nine, ten = np.int32(0), np.int32(9), np.int32(10)
    for y in range(height):
        for c in range(channels):
            above = smoothed[c, max(y - 1, 0)]
            here = smoothed[c, y]
            below = smoothed[c, min(y + 1, height - 1)]
            for x in range(1, width - 1):
                gx[x] = narrow * ((above[x + 1] - above[x - 1]) + (below[x + 1] - below[x - 1])) + wide * (
                    here[x + 1] - here[x - 1]
                )
                gy[x] = narrow * ((below[x - 1] - above[x - 1]) + (below[x + 1] - above[x + 1])) + wide * (
                    below[x] - above[x]
                )
            for x in (0, width - 1):
                left, right = max(x - 1, 0), min(x + 1, width - 1)
                gx[x] = narrow * ((above[right] - above[left]) + (below[right] - below[left])) + wide * (
                    here[right] - here[left]
                )
                gy[x] = narrow * ((below[left] - above[left]) + (below[right] - above[right])) + wide * (
                    below[x] - above[x]
                )
            for orientation in range(4):
                line = lines[5 * c + orientation]
                for x in range(width):
                    if orientation == 0:
                        slope = gx[x]
                    elif orientation == 1:
                        slope = (gx[x] + gy[x]) * diagonal
                    elif orientation == 2:
                        slope = gy[x]
                    else:
                        slope = (gy[x] - gx[x]) * diagonal
                    steep = np.int32(abs(slope))
                    line[x] = (steep if steep < nine else nine) + (ten if slope < 0 else zero)
            line = lines[5 * c + 4]
            plane = image[c, y]
            for x in range(width):
                line[x] = (np.int32(plane[x]) * bin_factors[c]) >> np.int32(16)
        # Pieces of 512 pixels stay in the first-level cache during the eight passes.
        for start in range(0, width, 512):
            stop = min(start + 512, width)
            for word in range(codes.shape[0]):
                packed = codes[word, y, start:stop]
                for x in range(packed.size):
                    packed[x] = 0
                for byte in range(min(8, 5 * channels - 8 * word)):
                    line = lines[8 * word + byte, start:stop]
                    shift = np.uint64(8 * byte)
                    for x in range(packed.size):
                        packed[x] |= np.uint64(line[x]) << shift


@kernel
def _count(codes: Any, y: Any, start: Any, stop: Any, row: Any) -> None:
    """Adds a run of pixels of one region to the region's row of counts."""
    # The increments are unrolled because they take most of the time of `describe`: 15 per pixel.
    byte = np.uint64(255)
    if codes.shape[0] == 1:
        for x in range(start, stop):
            word = codes[0, y, x]
            row[word & byte] += 1
            row[np.uint64(20) + ((word >> np.uint64(8)) & byte)] += 1
            row[np.uint64(40) + ((word >> np.uint64(16)) & byte)] += 1
            row[np.uint64(60) + ((word >> np.uint64(24)) & byte)] += 1
            row[np.uint64(80) + (word >> np.uint64(32))] += 1
        return
    for x in range(start, stop):
        word = codes[0, y, x]
        row[word & byte] += 1
        row[np.uint64(20) + ((word >> np.uint64(8)) & byte)] += 1
        row[np.uint64(40) + ((word >> np.uint64(16)) & byte)] += 1
        row[np.uint64(60) + ((word >> np.uint64(24)) & byte)] += 1
        row[np.uint64(240) + ((word >> np.uint64(32)) & byte)] += 1
        row[np.uint64(80) + ((word >> np.uint64(40)) & byte)] += 1
        row[np.uint64(100) + ((word >> np.uint64(48)) & byte)] += 1
        row[np.uint64(120) + (word >> np.uint64(56))] += 1
        word = codes[1, y, x]
        row[np.uint64(140) + (word & byte)] += 1
        row[np.uint64(265) + ((word >> np.uint64(8)) & byte)] += 1
        row[np.uint64(160) + ((word >> np.uint64(16)) & byte)] += 1
        row[np.uint64(180) + ((word >> np.uint64(24)) & byte)] += 1
        row[np.uint64(200) + ((word >> np.uint64(32)) & byte)] += 1
        row[np.uint64(220) + ((word >> np.uint64(40)) & byte)] += 1
        row[np.uint64(290) + (word >> np.uint64(48))] += 1


@kernel
def describe(labels: Any, height: int, width: int, codes: Any, counts: Any, rows: Any, size: Any, box: Any) -> None:
    """Computes the sizes, boxes and histograms of the superpixels.

    Args:
        labels: uint32 ``[H * W]``, superpixel of each pixel, 0..R-1.
        codes: uint64 ``[words, H, W]`` from `pixel_codes`.
        counts: int32 ``[R, row_length(C)]``, workspace.
        rows: float32 ``[R, row_length(C)]``, output: histograms.
        size: int32 ``[R]``, output: number of pixels.
        box: int32 ``[R, 4]``, output: (x1, y1, x2, y2), half-open.
    """
    regions, length = rows.shape
    channels = length // (TEXTURE_BINS + COLOUR_BINS)
    counts[:] = 0
    for region in range(regions):
        size[region] = 0
        box[region, 0] = width
        box[region, 1] = height
        box[region, 2] = 0
        box[region, 3] = 0
    flat = counts.reshape(-1)
    for y in range(height):
        x = 0
        while x < width:
            start = x
            base = y * width
            region = labels[base + x]
            while x < width and labels[base + x] == region:
                x += 1
            row = flat[np.int64(region) * length : (np.int64(region) + 1) * length]
            _count(codes, y, start, x, row)
            size[region] += x - start
            box[region, 0] = min(box[region, 0], start)
            box[region, 1] = min(box[region, 1], y)
            box[region, 2] = max(box[region, 2], x)
            box[region, 3] = y + 1
    # A rectified derivative is zero wherever the derivative is not positive. These pixels belong to bin 0.
    for region in range(regions):
        for group in range(channels * 8):
            positive = 0
            for i in range(group * 10 + 1, group * 10 + 10):
                positive += counts[region, i]
            counts[region, group * 10] = size[region] - positive
        for i in range(length):
            rows[region, i] = counts[region, i]


@kernel
def _mark(here: Any, there: Any, border: Any) -> None:
    """Marks the pixels of a row whose neighbour in one direction has another label."""
    for x in range(border.size):
        border[x] |= np.uint8(here[x] != there[x])


@kernel
def neighbours(
    labels: Any, height: int, width: int, diagonal: bool, border: Any, last: Any, table: Any, pairs: Any
) -> int:
    """Finds the pairs of adjacent superpixels: each pair once, the smaller label first, in raster-scan order.

    Args:
        labels: uint32 ``[H * W]``, superpixel of each pixel.
        diagonal: True if pixels that share only a corner are adjacent.
        border: uint8 ``[W]``, workspace.
        last: int64 ``[4]``, workspace.
        table: int64 ``[2^n]``, workspace: a hash table with open addressing.
        pairs: int32 ``[P, 2]``, output.

    Returns:
        The number of pairs, or -1 if `table` or `pairs` is too small.
    """
    table[:] = -1
    last[:] = -1
    mask = np.uint64(table.size - 1)
    found = 0
    limit = min(table.size // 2, pairs.shape[0])
    for y in range(height):
        here = labels[y * width : (y + 1) * width]
        below = labels[min(y + 1, height - 1) * width : (min(y + 1, height - 1) + 1) * width]
        border[:] = 0
        _mark(here[: width - 1], here[1:], border[: width - 1])
        _mark(here, below, border)
        if diagonal:
            _mark(here[: width - 1], below[1:], border[: width - 1])
            _mark(here[1:], below[: width - 1], border[1:])
        for x in range(width):
            if border[x] == 0:
                continue
            a = here[x]
            for direction in range(4 if diagonal else 2):
                other = x + (1, 0, 1, -1)[direction]
                if other < 0 or other >= width:
                    continue
                b = here[other] if direction == 0 else below[other]
                if a == b:
                    continue
                low, high = min(a, b), max(a, b)
                pair = (np.int64(high) << np.int64(32)) | np.int64(low)
                if pair == last[direction]:
                    continue
                last[direction] = pair
                place = ((np.uint64(pair) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(24)) & mask
                while table[place] != -1 and table[place] != pair:
                    place = (place + np.uint64(1)) & mask
                if table[place] == -1:
                    if found == limit:
                        return -1
                    table[place] = pair
                    pairs[found, 0] = low
                    pairs[found, 1] = high
                    found += 1
    return found
