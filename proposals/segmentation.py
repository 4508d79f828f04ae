"""Graph-based image segmentation (Felzenszwalb & Huttenlocher 2004): the superpixels of selective search.

Edges between neighbouring pixels are taken by rising difference; two components join when the edge is no heavier
than either's largest internal edge plus k / size. Components smaller than `min_size` then join their most similar
neighbour. How edges are weighed and sorted is in pixel_edges.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..data.compilation import kernel
from .pixel_edges import Edges, key_weights, sorted_edges
from .smoothing import SIGMA, gaussian_taps, smooth
from .workspace import Workspace, borrow

_BLOCK: Final = 64
_MERGED: Final = np.uint32(0xFFFFFFFF)


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
        weights: float32 ``[65536]`` of `key_weights`.
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
    for level in range(starts.shape[1] - 1):
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
