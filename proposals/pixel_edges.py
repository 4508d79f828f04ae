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

from ..runtime.compilation import kernel
from .workspace import Workspace

KEYS: Final = 1 << 16
NONE: Final = np.uint16(KEYS - 1)  # no edge: above the key of the largest difference that there is
_SHIFT: Final = 12  # of a float32's 23 mantissa bits 11 stay
_LOWEST: Final = (127 - 14) << 11  # squared differences below 2**-14 grey levels count as none
# Up to this many pixels edges are taken in the paper's order. Larger pictures would be crossed from end to end, out of
# the processor's cache, for every weight: theirs are taken by rising weight within tiles of this side, and the tiles
# keep step in 32 levels, each sqrt(2) times the last.
EXACT_PIXELS: Final = 1 << 20
TILE: Final = 256
LEVELS: Final = 32
# A pixel's edges in sorted order, when their keys are equal: from up-left, up, up-right and left, then its own four.
_SEEN_AS: Final = (3, 1, 0, 2)  # by direction, at the pixel that an edge leads to


def key_weights() -> NDArray[np.float32]:
    """The edge weight (a difference in grey levels) that each sort key stands for.  # [65536]"""
    bits = (np.arange(KEYS, dtype=np.uint32) + np.uint32(_LOWEST)) << np.uint32(_SHIFT)
    weights = np.sqrt(bits.view(np.float32))
    weights[0] = 0
    return weights


WEIGHTS: Final = key_weights()


@kernel
def edge_keys(smoothed: Any, diagonal: bool, squared: Any, bits: Any, keys: Any) -> None:
    """Sort keys of all edges.

    Args:
        smoothed: float32 ``[C, H, W]``.
        diagonal: True for 8-connected pixels.
        squared, bits: workspace, one buffer ``[W]`` as float32 and as int32.
        keys: uint16 ``[directions, H, W]``, written: right, down, down-right, down-left; `NONE` where the picture ends.
    """
    channels, height, width = smoothed.shape
    for y in range(height):
        for direction in range(4 if diagonal else 2):
            below = 0 if direction == 0 else 1
            line = keys[direction, y]
            if y + below >= height:
                line[:] = NONE
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
            for x in range(start, stop):
                line[x] = np.uint16(max((bits[x] >> _SHIFT) - _LOWEST, 0))
            if direction == 3:
                line[0] = NONE
            elif direction != 1:
                line[width - 1] = NONE


@kernel
def _lightest(keys: Any, y: Any, lightest: Any) -> None:
    """For each pixel of row y the first of its edges in sorted order: key * 8 + its place among the pixel's edges."""
    directions, _, width = keys.shape
    for x in range(width):
        lightest[x] = np.uint32(keys[0, y, x]) << np.uint32(3) | np.uint32(4)
    for direction in range(1, directions):
        place = np.uint32(4 + direction)
        line = keys[direction, y]
        for x in range(width):
            lightest[x] = min(lightest[x], np.uint32(line[x]) << np.uint32(3) | place)
    line = keys[0, y]
    for x in range(1, width):
        lightest[x] = min(lightest[x], np.uint32(line[x - 1]) << np.uint32(3) | np.uint32(3))
    if y == 0:
        return
    for direction in range(1, directions):
        place = np.uint32(_SEEN_AS[direction])
        step = (1, 0, 1, -1)[direction]
        line = keys[direction, y - 1]
        for x in range(max(step, 0), width + min(step, 0)):
            lightest[x] = min(lightest[x], np.uint32(line[x - step]) << np.uint32(3) | place)


@kernel
def _join(
    keys: Any, here: Any, mine: Any, there: Any, theirs: Any, highest: Any, base: Any, pairs: Any, first: Any
) -> None:
    """Join the pixels of one row to their neighbours in one direction, where both name that edge the lightest."""
    for x in range(keys.size):
        key = keys[x]
        code = np.uint32(key) << np.uint32(3)
        joined = (here[x] == (code | mine)) & (there[x] == (code | theirs)) & (key <= highest)
        keys[x] = NONE if joined else key
        pairs[x] = key if joined else pairs[x]
        first[x] = base + np.uint32(x) if joined else first[x]


@kernel
def join_nearest(keys: Any, weights: Any, highest: Any, rows: Any, pairs: Any, first: Any, pair_weight: Any) -> None:
    """Join each two pixels whose lightest edge is the same one.

    When that edge's turn comes in Felzenszwalb and Huttenlocher's order, both pixels are still alone, so they join
    for every k that is no less than its weight, whatever happens elsewhere. A quarter of the pixels are joined here,
    along rows and without branches, in place of one by one all over the picture.

    Args:
        keys: uint16 ``[directions, H, W]`` of `edge_keys`; the edges joined become `NONE`.
        weights: float32 ``[65536]`` of `key_weights`.
        highest: the largest key to join.
        rows: uint32 ``[2, W]``, workspace.
        pairs: uint16 ``[W]``, workspace.
        first: uint32 ``[H, W]``, written: the number y * W + x of the first pixel of the pair; of a single, its own.
        pair_weight: float32 ``[H, W]``, written: at the first pixel of a pair its edge's weight, -1 elsewhere.
    """
    directions, height, width = keys.shape
    for y in range(height):
        for x in range(width):
            first[y, x] = y * width + x
    _lightest(keys, 0, rows[0])
    for y in range(height):
        here, there = rows[y % 2], rows[(y + 1) % 2]
        if y + 1 < height:
            _lightest(keys, y + 1, there)
        pairs[:] = NONE
        for direction in range(directions if y + 1 < height else 1):
            step = (1, 0, 1, -1)[direction]
            below = 0 if direction == 0 else 1
            other = here if direction == 0 else there
            start, stop = max(-step, 0), width - max(step, 0)
            _join(
                keys[direction, y, start:stop],
                here[start:stop],
                np.uint32(4 + direction),
                other[start + step : stop + step],
                np.uint32(_SEEN_AS[direction]),
                highest,
                np.uint32(y * width + start),
                pairs[start:stop],
                first[y + below, start + step : stop + step],
            )
        for x in range(width):
            weight = weights[np.uint32(pairs[x])]
            pair_weight[y, x] = weight if pairs[x] != NONE else np.float32(-1)


@kernel
def _keep_lighter(earlier: Any, later: Any, same: Any, other: Any, and_same: Any, and_other: Any) -> None:
    """Of each two edges between the same two components, only the one that comes first in sorted order stays.

    They are parallel where `same` equals `other` and `and_same` equals `and_other`: numbers of `join_nearest`.
    """
    for x in range(earlier.size):
        parallel = (same[x] == other[x]) & (and_same[x] == and_other[x])
        a, b = earlier[x], later[x]
        earlier[x] = NONE if parallel & (a > b) else a
        later[x] = NONE if parallel & (a <= b) else b


@kernel
def drop_parallel(keys: Any, first: Any) -> None:
    """Leave out the heavier of two edges between the same two pairs, or between a pair and a pixel.

    When the lighter one's turn comes its components join, and the heavier one lies within one; or one of them can no
    longer grow, and the heavier one will not make it. Segmentation is the same, with a fifth fewer edges, as long as
    edges are taken in order: not where tiles keep step in levels. (Where pixels are 4-connected it would be a
    twentieth, which is not worth the search.)

    Args:
        keys: uint16 ``[4, H, W]`` of `edge_keys`; edges left out become `NONE`.
        first: uint32 ``[H, W]`` of `join_nearest`.
    """
    for y in range(first.shape[0] - 1):
        # of each two by two pixels: p and r above, d and q below
        p, r, d, q = first[y, :-1], first[y, 1:], first[y + 1, :-1], first[y + 1, 1:]
        p_r, d_q = keys[0, y, :-1], keys[0, y + 1, :-1]
        p_d, r_q = keys[1, y, :-1], keys[1, y, 1:]
        p_q, r_d = keys[2, y, :-1], keys[3, y, 1:]
        _keep_lighter(p_d, r_q, p, r, d, q)
        _keep_lighter(p_r, d_q, p, d, r, q)
        _keep_lighter(p_d, r_d, p, r, p, r)
        _keep_lighter(p_q, r_q, p, r, p, r)
        _keep_lighter(p_d, p_q, d, q, d, q)
        _keep_lighter(r_q, r_d, d, q, d, q)
        _keep_lighter(p_r, r_d, p, d, p, d)
        _keep_lighter(p_q, d_q, p, d, p, d)
        _keep_lighter(p_r, p_q, r, q, r, q)
        _keep_lighter(r_d, d_q, r, q, r, q)
        _keep_lighter(p_r, r_q, p, q, p, q)
        _keep_lighter(p_d, d_q, p, q, p, q)
        _keep_lighter(p_r, p_d, r, d, r, d)
        _keep_lighter(r_q, d_q, r, d, r, d)


@kernel
def _file(key: Any, edge: Any, count: Any, order: Any) -> None:
    """Put one edge into its place."""
    place = count[np.uint32(key)]
    count[np.uint32(key)] = place + np.uint32(1)
    order[np.uint64(place)] = edge


@kernel
def sort_edges(keys: Any, tile: Any, count: Any, order: Any, ordered_keys: Any, starts: Any) -> Any:
    """Counting sort of every tile's edges by rising key, ties by pixel, then direction. Returns their number.

    Args:
        keys: uint16 ``[directions, H, W]`` of `edge_keys`; those that are `NONE` are left out.
        tile: pixels a side.
        count: uint32 ``[KEYS]``, workspace.
        order: uint32 ``[directions * H * W]``, written, tile after tile: pixel * directions + direction.
        ordered_keys: uint16, the same size, written: their keys.
        starts: int64 ``[tiles, LEVELS + 1]``, written: where the edges of each level begin.
    """
    directions, height, width = keys.shape
    total = 0
    number = 0
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            count[:] = 0
            for y in range(top, bottom):
                for direction in range(directions):
                    line = keys[direction, y]
                    for x in range(left, right):
                        count[np.uint32(line[x])] += 1
            start = total
            for level in range(LEVELS):
                starts[number, level] = total
                for key in range(level * KEYS // LEVELS, (level + 1) * KEYS // LEVELS):
                    here = count[key]
                    count[key] = total
                    total += here
            # Edges that are none come last: what follows overwrites them, which costs less than a branch at each.
            total = count[NONE]
            starts[number, LEVELS] = total
            number += 1
            for y in range(top, bottom):
                for x in range(left, right):
                    edge = (y * width + x) * directions
                    _file(keys[0, y, x], edge, count, order)
                    _file(keys[1, y, x], edge + 1, count, order)
                    if directions == 4:
                        _file(keys[2, y, x], edge + 2, count, order)
                        _file(keys[3, y, x], edge + 3, count, order)
            # Each count is now the end of its key's edges: their keys are written in order, not one by one all over.
            for key in range(KEYS - 1):
                end = count[key]
                for place in range(start, end):
                    ordered_keys[place] = key
                start = end
    return total


@dataclass(frozen=True)
class Edges:
    """The edges between a picture's pixels, sorted by weight: for every k from the least that they were made for.

    Attributes:
        order: uint32 ``[E]``: pixel * directions + direction.
        keys: uint16 ``[E]``: their weights as sort keys.
        starts: int64 ``[tiles, LEVELS + 1]``: where each tile's edges of each level begin.
        directions: edges a pixel: 2 (4-connected) or 4 (8-connected).
        tile: pixels a side of the tiles; one tile covers a picture of up to `EXACT_PIXELS`.
        first, pair_weight: ``[H, W]``, the pixels that are joined already, see `join_nearest`.
    """

    order: NDArray[np.uint32]
    keys: NDArray[np.uint16]
    starts: NDArray[np.int64]
    directions: int
    tile: int
    first: NDArray[np.uint32]
    pair_weight: NDArray[np.float32]


def sorted_edges(
    smoothed: NDArray[np.float32], connectivity: int, least_k: float, workspace: Workspace, tile: int | None = None
) -> Edges:
    """The edges of a smoothed picture float32 ``[C, H, W]``, for every k from `least_k`; they live in `workspace`."""
    _, height, width = smoothed.shape
    if tile is None:
        tile = max(height, width) if height * width <= EXACT_PIXELS else TILE
    directions = 2 if connectivity == 4 else 4
    squared = workspace.take("squared", width, np.float32)
    keys = workspace.take("keys", (directions, height, width), np.uint16)
    rows = workspace.take("rows", (2, width), np.uint32)
    pairs = workspace.take("pairs", width, np.uint16)
    first = workspace.take("first", (height, width), np.uint32)
    pair_weight = workspace.take("pair_weight", (height, width), np.float32)
    count = workspace.take("count", KEYS, np.uint32)
    starts = workspace.take("starts", (-(-height // tile) * -(-width // tile), LEVELS + 1), np.int64)
    order = workspace.take("order", directions * height * width, np.uint32)
    ordered_keys = workspace.take("ordered_keys", directions * height * width, np.uint16)
    edge_keys(smoothed, directions == 4, squared, squared.view(np.int32), keys)
    highest = np.searchsorted(WEIGHTS, np.float32(least_k), side="right") - 1
    join_nearest(keys, WEIGHTS, min(int(highest), KEYS - 2), rows, pairs, first, pair_weight)
    if directions == 4 and tile >= max(height, width):
        drop_parallel(keys, first)
    edges = sort_edges(keys, tile, count, order, ordered_keys, starts)
    return Edges(order[:edges], ordered_keys[:edges], starts, directions, tile, first, pair_weight)
