"""The edges between neighbouring pixels, sorted by weight: what segmentation at every k starts from.

A weight is the Euclidean distance of two smoothed pixels over the channels, cut to a float of 16 bits (5 exponent, 11
mantissa bits of its square) so that edges can be counting-sorted. Uniform steps would
swallow k / size and leave many more superpixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..data.compilation import kernel
from .workspace import Workspace

KEYS: Final = 1 << 16
_SHIFT: Final = 12  # of a float32's 23 mantissa bits 11 stay
_LOWEST: Final = (127 - 14) << 11  # squared differences below 2**-14 grey levels count as none
# Up to this many pixels edges are taken in the paper's order. Larger pictures would be crossed from end to end, out of
# the processor's cache, for every weight: theirs are taken by rising weight within tiles of this side, and the tiles
# keep step in 32 levels, each sqrt(2) times the last.
EXACT_PIXELS: Final = 1 << 20
TILE: Final = 256
LEVELS: Final = 32


def key_weights() -> NDArray[np.float32]:
    """The edge weight (a difference in grey levels) that each sort key stands for.  # [65536]"""
    bits = (np.arange(KEYS, dtype=np.uint32) + np.uint32(_LOWEST)) << np.uint32(_SHIFT)
    weights = np.sqrt(bits.view(np.float32))
    weights[0] = 0
    return weights


@kernel
def edge_keys(smoothed: Any, diagonal: bool, squared: Any, bits: Any, keys: Any) -> None:
    """Sort keys of all edges.

    Args:
        smoothed: float32 ``[C, H, W]``.
        diagonal: True for 8-connected pixels.
        squared, bits: workspace, one buffer ``[W]`` as float32 and as int32.
        keys: uint16 ``[directions, H * W]``, written: right, down, down-right, down-left.
    """
    channels, height, width = smoothed.shape
    for y in range(height):
        for direction in range(4 if diagonal else 2):
            below = 0 if direction == 0 else 1
            if y + below >= height:
                continue
            start = 1 if direction == 3 else 0
            stop = width if direction == 1 else width - 1 + start
            step = (1, 0, 1, -1)[direction]
            for c in range(channels):
                here = smoothed[c, y]
                there = smoothed[c, y + below]
                if c == 0:
                    for x in range(start, stop):
                        difference = here[x] - there[x + step]
                        squared[x] = difference * difference
                else:
                    for x in range(start, stop):
                        difference = here[x] - there[x + step]
                        squared[x] += difference * difference
            base = y * width
            line = keys[direction, base : base + width]
            for x in range(start, stop):
                line[x] = np.uint16(max((bits[x] >> _SHIFT) - _LOWEST, 0))


@kernel
def _file(keys: Any, direction: Any, pixel: Any, count: Any, order: Any, ordered_keys: Any) -> None:
    """Put one edge into its place."""
    key = keys[direction, pixel]
    place = np.uint64(count[np.uint32(key)])
    count[np.uint32(key)] += 1
    order[place] = pixel * keys.shape[0] + direction
    ordered_keys[place] = key


@kernel
def sort_edges(
    keys: Any, height: Any, width: Any, tile: Any, count: Any, order: Any, ordered_keys: Any, starts: Any
) -> Any:
    """Counting sort of every tile's edges by rising key, ties by pixel, then direction. Returns their number.

    Args:
        keys: uint16 ``[directions, H * W]`` of `edge_keys`.
        tile: pixels a side.
        count: int64 ``[KEYS]``, workspace.
        order: uint32 ``[directions * H * W]``, written, tile after tile: pixel * directions + direction.
        ordered_keys: uint16, the same size, written: their keys.
        starts: int64 ``[tiles, LEVELS + 1]``, written: where the edges of each level begin.
    """
    total = 0
    number = 0
    directions = keys.shape[0]
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            count[:] = 0
            for y in range(top, bottom):
                for direction in range(directions if y + 1 < height else 1):
                    first = max(left, 1) if direction == 3 else left
                    last = min(right, width - 1) if direction == 0 or direction == 2 else right
                    line = keys[direction, y * width : (y + 1) * width]
                    for x in range(first, last):
                        count[np.uint32(line[x])] += 1
            for level in range(LEVELS):
                starts[number, level] = total
                for key in range(level * KEYS // LEVELS, (level + 1) * KEYS // LEVELS):
                    here = count[key]
                    count[key] = total
                    total += here
            starts[number, LEVELS] = total
            number += 1
            for y in range(top, bottom):
                below = y + 1 < height
                for x in range(left, right):
                    pixel = y * width + x
                    if x + 1 < width:
                        _file(keys, 0, pixel, count, order, ordered_keys)
                    if below:
                        _file(keys, 1, pixel, count, order, ordered_keys)
                        if directions == 4:
                            if x + 1 < width:
                                _file(keys, 2, pixel, count, order, ordered_keys)
                            if x > 0:
                                _file(keys, 3, pixel, count, order, ordered_keys)
    return total


@dataclass(frozen=True)
class Edges:
    """The edges between a picture's pixels, sorted by weight; every k can be segmented from them.

    Attributes:
        order: uint32 ``[E]``: pixel * directions + direction.
        keys: uint16 ``[E]``: their weights as sort keys.
        starts: int64 ``[tiles, LEVELS + 1]``: where each tile's edges of each level begin.
        directions: edges a pixel: 2 (4-connected) or 4 (8-connected).
        tile: pixels a side of the tiles; one tile covers a picture of up to `EXACT_PIXELS`.
    """

    order: NDArray[np.uint32]
    keys: NDArray[np.uint16]
    starts: NDArray[np.int64]
    directions: int
    tile: int


def sorted_edges(
    smoothed: NDArray[np.float32], connectivity: int, workspace: Workspace, tile: int | None = None
) -> Edges:
    """The edges of a smoothed picture float32 ``[C, H, W]``; they live in `workspace`."""
    _, height, width = smoothed.shape
    if tile is None:
        tile = max(height, width) if height * width <= EXACT_PIXELS else TILE
    directions = 2 if connectivity == 4 else 4
    squared = workspace.take("squared", width, np.float32)
    keys = workspace.take("keys", (directions, height * width), np.uint16)
    count = workspace.take("count", KEYS, np.int64)
    starts = workspace.take("starts", (-(-height // tile) * -(-width // tile), LEVELS + 1), np.int64)
    order = workspace.take("order", directions * height * width, np.uint32)
    ordered_keys = workspace.take("ordered_keys", directions * height * width, np.uint16)
    edge_keys(smoothed, directions == 4, squared, squared.view(np.int32), keys)
    edges = sort_edges(keys, height, width, tile, count, order, ordered_keys, starts)
    return Edges(order[:edges], ordered_keys[:edges], starts, directions, tile)
