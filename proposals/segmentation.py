"""Graph-based image segmentation (Felzenszwalb & Huttenlocher 2004): the superpixels of selective search.

Edges between neighbouring pixels are taken by rising difference; two components join when the edge is no heavier
than either's largest internal edge plus k / size. Components smaller than `min_size` then join their most similar
neighbour. Edge weights are floats cut to 16 bits (5 exponent, 11 mantissa bits of the squared difference), so that
they can be counting-sorted; uniform steps would swallow k / size and leave 40 % more regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .compilation import kernel
from .smoothing import SIGMA, gaussian_taps, smooth
from .workspace import Workspace, borrow

KEYS: Final = 1 << 16
_SHIFT: Final = 12  # of a float32's 23 mantissa bits 11 stay
_LOWEST: Final = (127 - 14) << 11  # squared differences below 2**-14 grey levels count as none
_BLOCK: Final = 64
_MERGED: Final = np.uint32(0xFFFFFFFF)
# Up to this many pixels edges are taken in the paper's order. Larger pictures would be crossed from end to end, out of
# the processor's cache, for every weight: theirs are taken by rising weight within tiles of this side, and the tiles
# keep step in 32 levels, each sqrt(2) times the last: within 1 % of the number of superpixels.
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


@kernel
def _ends(edge: Any, directions: Any, width: Any) -> Any:
    """The two pixels of an edge."""
    width = np.uint32(width)
    if directions == 2:
        a = edge >> np.uint32(1)
        return a, np.uint32(a + (width if edge & np.uint32(1) else np.uint32(1)))
    a = edge >> np.uint32(2)
    down = edge & np.uint32(3)
    return a, np.uint32(a + (np.uint32(1) if down == 0 else width) + np.uint32(down == 2) - np.uint32(down == 3))


@kernel
def _fetch(values: Any, width: Any, tile: Any, number: Any) -> Any:
    """Read one value of every cache line of a tile, in order: as a stream it arrives much faster than at random.

    Returns a sum that depends on the values, so that the reading is not optimised away.
    """
    across = (width + tile - 1) // tile
    top, left = number // across * tile, number % across * tile
    total = np.int64(0)
    for y in range(top, min(top + tile, values.size // width)):
        for pixel in range(y * width + left, y * width + min(left + tile, width), 16):
            total += values[pixel]
    return total


@kernel
def merge_by_threshold(
    order: Any,
    ordered_keys: Any,
    starts: Any,
    weights: Any,
    directions: Any,
    width: Any,
    tile_side: Any,
    k: Any,
    forest: Any,
    limit: Any,
    size: Any,
    undecided: Any,
) -> Any:
    """Join pixels into components by the paper's predicate. Returns how many edges are `undecided`, and nothing of use.

    Most edges are dead when their turn comes: inside one component, or at a component that can no longer grow
    because edges have become heavier than its threshold. A block of edges is therefore tested without branches, by
    roots three hops up, and only the survivors are handled exactly.

    Args:
        order, ordered_keys, starts: of `sort_edges`.
        weights: float32 ``[KEYS]`` of `key_weights`.
        directions: edges a pixel: 2 or 4.
        tile_side: pixels a side of a tile.
        forest: int32 ``[H * W]``, written: the parent of a pixel, or, at a root, the bits of its threshold (internal
            difference + k / size) with the sign set. One word holds both so that the forest fits the cache.
        limit: float32, the same memory as `forest`: a root's negative threshold.
        size: int32 ``[H * W]``, written at roots.
        undecided: uint32 ``[E + 1]``, written: the edges between two components, in their order.
    """
    k = np.float32(k)
    for pixel in range(forest.size):
        limit[pixel] = -k
        size[pixel] = 1
    tiled = starts.shape[0] > 1
    unused = np.int64(0)
    left = np.uint32(0)
    ends_a = np.empty(_BLOCK, np.uint32)
    ends_b = np.empty(_BLOCK, np.uint32)
    kept_keys = np.empty(_BLOCK, np.uint32)
    places = np.empty(_BLOCK, np.uint32)
    for level in range(LEVELS):
        for tile in range(starts.shape[0]):
            end = starts[tile, level + 1]
            if tiled and end - starts[tile, level] > tile_side * tile_side // 16:
                unused += _fetch(forest, width, tile_side, tile) + _fetch(size, width, tile_side, tile)
            for start in range(starts[tile, level], end, _BLOCK):
                lowest = -weights[np.uint32(ordered_keys[start])]
                alive = np.uint32(0)
                block = left
                for i in range(start, min(start + _BLOCK, end)):
                    edge = order[i]
                    a, b = _ends(edge, directions, width)
                    for _ in range(3):
                        above = forest[a]
                        a = a if above < 0 else np.uint32(above)
                    for _ in range(3):
                        above = forest[b]
                        b = b if above < 0 else np.uint32(above)
                    ends_a[alive] = a
                    ends_b[alive] = b
                    kept_keys[alive] = ordered_keys[i]
                    places[alive] = left
                    undecided[left] = edge
                    different = a != b
                    # where three hops were too few the word is a parent: the edge stays in doubt
                    grows_a = (forest[a] >= 0) | (limit[a] <= lowest)
                    grows_b = (forest[b] >= 0) | (limit[b] <= lowest)
                    left += np.uint32(different)
                    alive += np.uint32(different & grows_a & grows_b)
                for i in range(alive):
                    a, b = ends_a[i], ends_b[i]
                    while forest[a] >= 0:
                        a = np.uint32(forest[a])
                    while forest[b] >= 0:
                        b = np.uint32(forest[b])
                    if a == b:
                        continue
                    weight = weights[kept_keys[i]]
                    if limit[a] <= -weight and limit[b] <= -weight:
                        size_a, size_b = size[a], size[b]
                        top = a if size_a >= size_b else b
                        low = b if size_a >= size_b else a
                        joined = size_a + size_b
                        size[top] = joined
                        if tiled:
                            # another tile may have been ahead: the internal difference is the largest so far
                            internal_a = -limit[a] - k / np.float32(size_a)
                            internal_b = -limit[b] - k / np.float32(size_b)
                            weight = max(weight, max(internal_a, internal_b))
                        forest[low] = top
                        limit[top] = -(weight + k / np.float32(joined))
                        undecided[places[i]] = _MERGED
                kept = block
                for i in range(block, left):
                    edge = undecided[i]
                    undecided[kept] = edge
                    kept += np.uint32(edge != _MERGED)
                left = kept
    return left, unused


@kernel
def number_components(forest: Any, size: Any, width: Any, tile: Any, labels: Any, sizes: Any) -> Any:
    """Number the components 0, 1, ..., tile after tile. Returns how many, and nothing of use.

    Args:
        forest, size: int32 ``[H * W]`` of `merge_by_threshold`, used up.
        tile: pixels a side.
        labels: uint32 ``[H * W]``, written.
        sizes: int32 ``[H * W]``, written: the components' numbers of pixels.
    """
    height = forest.size // width
    found = 0
    number = 0
    unused = np.int64(0)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            if tile < height or tile < width:
                unused += _fetch(forest, width, tile, number) + _fetch(size, width, tile, number)
                number += 1
            for y in range(top, min(top + tile, height)):
                for pixel in range(y * width + left, y * width + min(left + tile, width)):
                    root = np.uint32(pixel)
                    above = forest[root]
                    while above >= 0:
                        root = np.uint32(above)
                        above = forest[root]
                    if root != pixel:
                        forest[pixel] = root
                    # a root's size gives way to its number, as a negative
                    name = ~size[root]
                    if name < 0:
                        sizes[found] = size[root]
                        name = found
                        size[root] = ~name
                        found += 1
                    labels[pixel] = name
    return found, unused


@kernel
def _find(parent: Any, node: Any) -> Any:
    """The root of a component, halving the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def merge_small(
    undecided: Any, directions: Any, width: Any, min_size: Any, labels: Any, sizes: Any, parent: Any, names: Any
) -> Any:
    """Components under the minimum size join the neighbour across their lightest edge. Returns how many are left.

    Args:
        undecided: uint32 ``[U]`` of `merge_by_threshold`.
        min_size: components of fewer pixels are merged.
        labels: uint32 ``[H * W]``, renumbered in raster order.
        sizes: int32 ``[R]``, the components' numbers of pixels, overwritten.
        parent: uint32 ``[R]``, workspace.
        names: int32 ``[R]``, workspace.
    """
    for component in range(parent.size):
        parent[component] = component
    # Edges inside a component or between two that are large enough stay so: sift them out without branches.
    left = np.uint32(0)
    for i in range(undecided.size):
        edge = undecided[i]
        a, b = _ends(edge, directions, width)
        a, b = labels[a], labels[b]
        undecided[left] = edge
        left += np.uint32((a != b) & ((sizes[a] < min_size) | (sizes[b] < min_size)))
    for i in range(left):
        a, b = _ends(undecided[i], directions, width)
        a, b = _find(parent, labels[a]), _find(parent, labels[b])
        if a != b and (sizes[a] < min_size or sizes[b] < min_size):
            top = a if sizes[a] >= sizes[b] else b
            low = b if sizes[a] >= sizes[b] else a
            parent[low] = top
            sizes[top] += sizes[low]
    names[:] = -1
    found = 0
    for pixel in range(labels.size):
        component = labels[pixel]
        name = names[component]
        if name < 0:
            root = _find(parent, component)
            name = names[root]
            if name < 0:
                name = found
                names[root] = name
                found += 1
            names[component] = name
        labels[pixel] = name
    return found


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


def components(
    edges: Edges, height: int, width: int, k: float, min_size: int, workspace: Workspace
) -> tuple[NDArray[np.uint32], int]:
    """Superpixel labels uint32 ``[H * W]``, which live in `workspace`, and their number."""
    pixels = height * width
    forest = workspace.take("forest", pixels, np.int32)
    size = workspace.take("size", pixels, np.int32)
    undecided = workspace.take("undecided", edges.order.size + 1, np.uint32)
    labels = workspace.take("labels", pixels, np.uint32)
    names = workspace.take("names", pixels, np.int32)
    sizes = workspace.take("sizes", pixels, np.int32)
    directions = np.uint32(edges.directions)
    left, _ = merge_by_threshold(
        edges.order, edges.keys, edges.starts, _WEIGHTS, directions, width, edges.tile, k,
        forest, forest.view(np.float32), size, undecided,
    )  # fmt: skip
    found, _ = number_components(forest, size, width, edges.tile, labels, sizes)
    parent = size.view(np.uint32)[:found]
    return labels, merge_small(
        undecided[:left], directions, width, min_size, labels, sizes[:found], parent, names[:found]
    )


_WEIGHTS: Final = key_weights()


def smooth_picture(image: NDArray[np.uint8], workspace: Workspace) -> NDArray[np.float32]:
    """A picture uint8 ``[H, W, C]`` smoothed with sigma 0.8: float32 ``[C, H, W]``, living in `workspace`."""
    height, width, channels = image.shape
    smoothed = workspace.take("smoothed", (channels, height, width), np.float32)
    row = workspace.take("row", (width + 6) * channels, np.float32)
    smooth(image.reshape(height, width * channels), gaussian_taps(SIGMA), row, smoothed)
    return smoothed


def segment(image: NDArray[np.uint8], k: float = 100, min_size: int = 100, connectivity: int = 4) -> NDArray[np.int32]:
    """Felzenszwalb and Huttenlocher's superpixels of a picture.

    Args:
        image: uint8 ``[H, W, C]``, in any colour space: the edge weight is the Euclidean distance over channels.
        k: the scale of observation, in grey levels times pixels: larger gives larger superpixels.
        min_size: superpixels of fewer pixels are merged into a neighbour.
        connectivity: 4 or 8 neighbours of a pixel.

    Returns:
        int32 ``[H, W]``: superpixels 0, 1, ... in the order in which a raster scan meets them.
    """
    height, width, _ = image.shape
    with borrow() as workspace:
        smoothed = smooth_picture(np.ascontiguousarray(image), workspace)
        edges = sorted_edges(smoothed, connectivity, workspace)
        labels, _ = components(edges, height, width, k, min_size, workspace)
        return labels.reshape(height, width).astype(np.int32)
