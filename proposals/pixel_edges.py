"""The edges between neighbouring pixels, sorted by weight: the input of segmentation at every k.

The weight of an edge is the Euclidean distance of two smoothed pixels over the channels. Its square is truncated to a
float of 16 bits (5 exponent and 11 mantissa bits), so that edges can be sorted by counting sort. Uniform quantisation
would be too coarse for small k / size and would give many more superpixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..runtime.compilation import kernel
from .workspace import Workspace

KEYS: Final = 1 << 16
NO_EDGE: Final = np.uint16(KEYS - 1)  # no edge; larger than the key of the largest possible difference
_SHIFT: Final = 12  # keeps 11 of the 23 mantissa bits of a float32
_LOWEST: Final = (127 - 14) << 11  # squared differences below 2**-14 count as zero
# In images of up to this many pixels, edges are processed in the paper's order. In a larger image that order jumps
# across the whole image at every weight and misses the processor's cache. There, edges are processed by rising weight
# within tiles of TILE x TILE pixels, and all tiles complete one of 32 weight levels before the next begins. Each level
# starts at sqrt(2) times the weight of the previous level.
EXACT_PIXELS: Final = 1 << 20
TILE: Final = 256
LEVELS: Final = 32
# Rank of a pixel's edges among equal keys: edges from its neighbours up-left, up, up-right and left have ranks 0 to 3,
# its own edges right, down, down-right and down-left ranks 4 to 7. _RANK_AT_END[d] is the rank of an edge of direction
# d at the pixel where it ends.
_RANK_AT_END: Final = (3, 1, 0, 2)


def key_weights() -> NDArray[np.float32]:
    """Returns the edge weight, a difference in grey levels, of each sort key, float32 ``[65536]``."""
    bits = (np.arange(KEYS, dtype=np.uint32) + np.uint32(_LOWEST)) << np.uint32(_SHIFT)
    weights = np.sqrt(bits.view(np.float32))
    weights[0] = 0
    return weights


WEIGHTS: Final = key_weights()


@kernel
def edge_keys(smoothed: Any, diagonal: bool, squared: Any, bits: Any, keys: Any) -> None:
    """Computes the sort keys of all edges.

    Args:
        smoothed: float32 ``[C, H, W]``, the smoothed image.
        diagonal: True for 8-connected pixels.
        squared, bits: workspace, the same buffer ``[W]`` as float32 and as int32.
        keys: uint16 ``[directions, H, W]``, output: the keys of the edges right, down, down-right and down-left;
            `NO_EDGE` for edges that would leave the image.
    """
    channels, height, width = smoothed.shape
    for y in range(height):
        for direction in range(4 if diagonal else 2):
            below = 0 if direction == 0 else 1
            line = keys[direction, y]
            if y + below >= height:
                line[:] = NO_EDGE
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
                line[0] = NO_EDGE
            elif direction != 1:
                line[width - 1] = NO_EDGE


@kernel
def _lightest(keys: Any, y: Any, lightest: Any) -> None:
    """Computes for each pixel of row y its first edge in sorted order, as key * 8 + rank (see `_RANK_AT_END`)."""
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
        place = np.uint32(_RANK_AT_END[direction])
        step = (1, 0, 1, -1)[direction]
        line = keys[direction, y - 1]
        for x in range(max(step, 0), width + min(step, 0)):
            lightest[x] = min(lightest[x], np.uint32(line[x - step]) << np.uint32(3) | place)


@kernel
def _join(
    keys: Any, here: Any, mine: Any, there: Any, theirs: Any, highest: Any, base: Any, pairs: Any, first: Any
) -> None:
    """Joins the pixels of one row to their neighbours in one direction, where the edge is the lightest of both."""
    for x in range(keys.size):
        key = keys[x]
        code = np.uint32(key) << np.uint32(3)
        joined = (here[x] == (code | mine)) & (there[x] == (code | theirs)) & (key <= highest)
        keys[x] = NO_EDGE if joined else key
        pairs[x] = key if joined else pairs[x]
        first[x] = base + np.uint32(x) if joined else first[x]


@kernel
def join_nearest(keys: Any, weights: Any, highest: Any, rows: Any, pairs: Any, first: Any, pair_weight: Any) -> None:
    """Joins every two pixels that share their lightest edge.

    When Felzenszwalb and Huttenlocher's algorithm reaches such an edge, both pixels are still single. They are
    therefore joined for every k that is at least the weight, independently of all other edges. A quarter of the
    pixels are joined here, row by row and without branches, which is faster than in sorted order.

    Args:
        keys: uint16 ``[directions, H, W]`` from `edge_keys`; the keys of joined edges become `NO_EDGE`.
        weights: float32 ``[65536]`` from `key_weights`.
        highest: the largest key to join.
        rows: uint32 ``[2, W]``, workspace.
        pairs: uint16 ``[W]``, workspace.
        first: uint32 ``[H, W]``, output: the index y * W + x of the first pixel of the pair; of a single pixel its own.
        pair_weight: float32 ``[H, W]``, output: the weight of the joined edge at the first pixel of a pair, -1 at all
            other pixels.
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
        pairs[:] = NO_EDGE
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
                np.uint32(_RANK_AT_END[direction]),
                highest,
                np.uint32(y * width + start),
                pairs[start:stop],
                first[y + below, start + step : stop + step],
            )
        for x in range(width):
            weight = weights[np.uint32(pairs[x])]
            pair_weight[y, x] = weight if pairs[x] != NO_EDGE else np.float32(-1)


@kernel
def _keep_lighter(earlier: Any, later: Any, start: Any, other_start: Any, end: Any, other_end: Any) -> None:
    """Removes, of two edges between the same two components, the one that is later in sorted order.

    Two edges are parallel where `start` equals `other_start` and `end` equals `other_end`. These are component indices
    from `join_nearest`.
    """
    for x in range(earlier.size):
        parallel = (start[x] == other_start[x]) & (end[x] == other_end[x])
        a, b = earlier[x], later[x]
        earlier[x] = NO_EDGE if parallel & (a > b) else a
        later[x] = NO_EDGE if parallel & (a <= b) else b


@kernel
def drop_parallel(keys: Any, first: Any) -> None:
    """Removes the heavier of two parallel edges: edges between the same two pairs, or a pair and a pixel.

    If the lighter edge joins its components, the heavier edge lies inside one component. If it does not, one component
    can no longer grow, and the heavier edge cannot join them either. The segmentation is therefore the same, with a
    fifth fewer edges of 8-connected pixels. This holds only if edges are processed in sorted order, not in tiles. For
    4-connected pixels only a twentieth of the edges would be removed, which does not pay for the search.

    Args:
        keys: uint16 ``[4, H, W]`` from `edge_keys`; the keys of removed edges become `NO_EDGE`.
        first: uint32 ``[H, W]`` from `join_nearest`.
    """
    for y in range(first.shape[0] - 1):
        # In each block of two by two pixels, p and r are the upper pixels, d and q the lower ones.
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
def _place_edge(key: Any, edge: Any, count: Any, order: Any) -> None:
    """Writes one edge to its position in sorted order."""
    place = count[np.uint32(key)]
    count[np.uint32(key)] = place + np.uint32(1)
    order[np.uint64(place)] = edge


@kernel
def sort_edges(keys: Any, tile: Any, count: Any, order: Any, ordered_keys: Any, starts: Any) -> Any:
    """Sorts the edges of each tile by counting sort: by rising key, then by pixel, then by direction.

    Args:
        keys: uint16 ``[directions, H, W]`` from `edge_keys`; edges with the key `NO_EDGE` are left out.
        tile: side of a tile in pixels.
        count: uint32 ``[KEYS]``, workspace.
        order: uint32 ``[directions * H * W]``, output, tile by tile: the edges as pixel * directions + direction.
        ordered_keys: uint16 ``[directions * H * W]``, output: the keys of the edges in `order`.
        starts: int64 ``[tiles, LEVELS + 1]``, output: where the edges of each level begin in `order`; the last column
            is the end of the tile.

    Returns:
        The number of edges.
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
            # Entries with the key NO_EDGE come last and are overwritten by the next tile. That is faster than a branch
            # at each entry.
            total = count[NO_EDGE]
            starts[number, LEVELS] = total
            number += 1
            for y in range(top, bottom):
                for x in range(left, right):
                    edge = (y * width + x) * directions
                    _place_edge(keys[0, y, x], edge, count, order)
                    _place_edge(keys[1, y, x], edge + 1, count, order)
                    if directions == 4:
                        _place_edge(keys[2, y, x], edge + 2, count, order)
                        _place_edge(keys[3, y, x], edge + 3, count, order)
            # Each count is now the end of the edges with its key, so the keys can be written sequentially.
            for key in range(KEYS - 1):
                end = count[key]
                for place in range(start, end):
                    ordered_keys[place] = key
                start = end
    return total


@dataclass(frozen=True)
class Edges:
    """The edges between the pixels of an image, sorted by weight.

    Attributes:
        order: uint32 ``[E]``, the edges as pixel * directions + direction.
        keys: uint16 ``[E]``, the sort keys of their weights.
        starts: int64 ``[tiles, LEVELS + 1]``, where the edges of each tile and level begin.
        directions: edges per pixel, 2 (4-connected) or 4 (8-connected).
        tile: side of a tile in pixels. An image of up to `EXACT_PIXELS` is a single tile.
        first: uint32 ``[H, W]``, the pixels that are already joined, see `join_nearest`.
        pair_weight: float32 ``[H, W]``, the weights of the joined edges, see `join_nearest`.
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
    """Computes the sorted edges of a smoothed image.

    Args:
        smoothed: float32 ``[C, H, W]``.
        connectivity: neighbours of a pixel, 4 or 8.
        least_k: the smallest k for which the edges will be used. A smaller k would not join all pairs in `first`.
        workspace: holds the arrays of the result, which are valid until it is used again.
        tile: side of a tile in pixels; by default chosen by the size of the image.
    """
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
