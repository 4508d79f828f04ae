"""Graph-based image segmentation (Felzenszwalb & Huttenlocher 2004): the superpixels of selective search.

Edges between neighbouring pixels are processed by rising weight. An edge joins two components if its weight is at most
the largest internal edge weight of each component plus k / size. Afterwards, components with fewer than `min_size`
pixels join their most similar neighbour. pixel_edges.py defines the weights and sorts the edges.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime.compilation import kernel
from .pixel_edges import WEIGHTS, Edges
from .smoothing import SIGMA, gaussian_taps, smooth
from .workspace import Workspace

_BLOCK: Final = 64
_MERGED: Final = np.uint32(0xFFFFFFFF)


@kernel
def _edge_pixels(edge: Any, directions: Any, width: Any) -> Any:
    """Returns the two pixels that an edge connects."""
    width = np.uint32(width)
    if directions == 2:
        a = edge >> np.uint32(1)
        return a, np.uint32(a + (width if edge & np.uint32(1) else np.uint32(1)))
    a = edge >> np.uint32(2)
    down = edge & np.uint32(3)
    return a, np.uint32(a + (np.uint32(1) if down == 0 else width) + np.uint32(down == 2) - np.uint32(down == 3))


@kernel
def _prefetch_tile(values: Any, width: Any, tile: Any, number: Any) -> Any:
    """Reads one value of every cache line of a tile in sequence, which is much faster than random access.

    Returns the sum of the values, which keeps the compiler from removing the reads.
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
    first: Any,
    pair_weight: Any,
    parent: Any,
    state: Any,
    limit: Any,
    undecided: Any,
) -> Any:
    """Joins pixels into components by the paper's predicate.

    Many edges cannot join anything when they are reached: they lie inside one component, or one of their components can
    no longer grow because the edge weights exceed its threshold. Blocks of edges are therefore filtered first, without
    branches and with roots that are approximated by three steps in the tree. Only the remaining edges are processed
    exactly.

    Args:
        order, ordered_keys, starts: sorted edges from `sort_edges`.
        weights: float32 ``[65536]`` from `key_weights`.
        directions: edges per pixel, 2 or 4.
        width: width of the image.
        tile_side: side of a tile in pixels.
        k: the scale of observation, in grey levels times pixels.
        first, pair_weight: ``[H * W]`` from `join_nearest`.
        parent: uint32 ``[H * W]``, output: the parent of each pixel in the union-find tree; a root is its own parent.
        state: int32 ``[2 * H * W]``, output: for each root the bits of its threshold (internal difference + k / size)
            and its size, interleaved so that both lie in one cache line.
        limit: float32 ``[2 * H * W]``, the same memory as `state`.
        undecided: uint32 ``[E + 1]``, output: the edges that connect two different components, in sorted order.

    Returns:
        The number of undecided edges, and a checksum that keeps the compiler from removing the prefetch reads.
    """
    k = np.float32(k)
    half = k / np.float32(2)
    for pixel in range(parent.size):
        parent[pixel] = first[pixel]
        weight = pair_weight[pixel]
        limit[2 * pixel] = k if weight < 0 else weight + half
        state[2 * pixel + 1] = 1 if weight < 0 else 2
    tiled = starts.shape[0] > 1
    checksum = np.int64(0)
    left = np.uint32(0)
    one, two = np.uint32(1), np.uint32(2)
    ends_a = np.empty(_BLOCK, np.uint32)
    ends_b = np.empty(_BLOCK, np.uint32)
    kept_keys = np.empty(_BLOCK, np.uint32)
    places = np.empty(_BLOCK, np.uint32)
    for level in range(starts.shape[1] - 1):
        for tile in range(starts.shape[0]):
            end = starts[tile, level + 1]
            if tiled and end - starts[tile, level] > tile_side * tile_side // 16:
                checksum += _prefetch_tile(parent, width, tile_side, tile)
            for start in range(starts[tile, level], end, _BLOCK):
                lowest = weights[np.uint32(ordered_keys[start])]
                block = left
                crossing = np.uint32(0)
                for i in range(start, min(start + _BLOCK, end)):
                    edge = order[i]
                    pixel_a, pixel_b = _edge_pixels(edge, directions, width)
                    a = parent[parent[parent[pixel_a]]]
                    b = parent[parent[parent[pixel_b]]]
                    parent[pixel_a] = a
                    parent[pixel_b] = b
                    ends_a[crossing] = a
                    ends_b[crossing] = b
                    kept_keys[crossing] = ordered_keys[i]
                    undecided[left] = edge
                    different = np.uint32(a != b)
                    left += different
                    crossing += different
                alive = np.uint32(0)
                for i in range(crossing):
                    a, b = ends_a[i], ends_b[i]
                    # If three steps did not reach a root, the edge is kept for exact processing.
                    grows_a = (parent[a] != a) | (limit[two * a] >= lowest)
                    grows_b = (parent[b] != b) | (limit[two * b] >= lowest)
                    ends_a[alive] = a
                    ends_b[alive] = b
                    kept_keys[alive] = kept_keys[i]
                    places[alive] = block + np.uint32(i)
                    alive += np.uint32(grows_a & grows_b)
                for i in range(alive):
                    a, b = ends_a[i], ends_b[i]
                    while parent[a] != a:
                        a = parent[a]
                    while parent[b] != b:
                        b = parent[b]
                    if a == b:
                        continue
                    weight = weights[kept_keys[i]]
                    if limit[two * a] >= weight and limit[two * b] >= weight:
                        size_a, size_b = state[two * a + one], state[two * b + one]
                        top = a if size_a >= size_b else b
                        low = b if size_a >= size_b else a
                        joined = size_a + size_b
                        if tiled:
                            # Another tile may have joined heavier edges: the internal difference is the maximum.
                            internal_a = limit[two * a] - k / np.float32(size_a)
                            internal_b = limit[two * b] - k / np.float32(size_b)
                            weight = max(weight, max(internal_a, internal_b))
                        parent[low] = top
                        limit[two * top] = weight + k / np.float32(joined)
                        state[two * top + one] = joined
                        undecided[places[i]] = _MERGED
                kept = block
                for i in range(block, left):
                    edge = undecided[i]
                    undecided[kept] = edge
                    kept += np.uint32(edge != _MERGED)
                left = kept
    return left, checksum


@kernel
def number_components(parent: Any, state: Any, width: Any, tile: Any, labels: Any, sizes: Any) -> Any:
    """Numbers the components 0, 1, ..., tile by tile.

    Args:
        parent, state: from `merge_by_threshold`, overwritten.
        width: width of the image.
        tile: side of a tile in pixels.
        labels: uint32 ``[H * W]``, output: the component of each pixel.
        sizes: int32 ``[H * W]``, output: number of pixels of each component.

    Returns:
        The number of components, and a checksum that keeps the compiler from removing the prefetch reads.
    """
    height = parent.size // width
    found = 0
    number = 0
    checksum = np.int64(0)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            if tile < height or tile < width:
                checksum += _prefetch_tile(parent, width, tile, number)
                number += 1
            for y in range(top, min(top + tile, height)):
                for pixel in range(y * width + left, y * width + min(left + tile, width)):
                    root = parent[pixel]
                    while parent[root] != root:
                        root = parent[root]
                    parent[pixel] = root
                    # The root's size is replaced by the bitwise complement of its label, which is negative.
                    place = np.uint32(2) * root + np.uint32(1)
                    name = ~state[place]
                    if name < 0:
                        sizes[found] = state[place]
                        name = found
                        state[place] = ~name
                        found += 1
                    labels[pixel] = name
    return found, checksum


@kernel
def _find(parent: Any, node: Any) -> Any:
    """Returns the root of a component, with path halving."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def merge_small(
    undecided: Any, directions: Any, width: Any, min_size: Any, labels: Any, sizes: Any, parent: Any, names: Any
) -> Any:
    """Joins components below the minimum size to the neighbour across their lightest edge.

    Args:
        undecided: uint32 ``[U]`` from `merge_by_threshold`.
        directions: edges per pixel, 2 or 4.
        width: width of the image.
        min_size: components with fewer pixels are joined to a neighbour.
        labels: uint32 ``[H * W]``, the component of each pixel; renumbered in raster-scan order.
        sizes: int32 ``[R]``, number of pixels of each component, overwritten.
        parent: uint32 ``[R]``, workspace.
        names: int32 ``[R]``, workspace.

    Returns:
        The number of remaining components.
    """
    for component in range(parent.size):
        parent[component] = component
    # Edges inside a component or between two large components can be removed, because later joins do not change this.
    left = np.uint32(0)
    for i in range(undecided.size):
        edge = undecided[i]
        a, b = _edge_pixels(edge, directions, width)
        a, b = labels[a], labels[b]
        undecided[left] = edge
        left += np.uint32((a != b) & ((sizes[a] < min_size) | (sizes[b] < min_size)))
    for i in range(left):
        a, b = _edge_pixels(undecided[i], directions, width)
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
    """Segments an image into superpixels.

    Args:
        edges: the edges of the image from `sorted_edges`.
        height, width: size of the image.
        k: the scale of observation, in grey levels times pixels. A larger k gives larger superpixels.
        min_size: superpixels with fewer pixels are joined to a neighbour.
        workspace: holds the labels, which are valid until it is used again.

    Returns:
        Superpixel of each pixel, uint32 ``[H * W]``, numbered in raster-scan order, and the number of superpixels.
    """
    pixels = height * width
    parent = workspace.take("parent", pixels, np.uint32)
    state = workspace.take("state", 2 * pixels, np.int32)
    undecided = workspace.take("undecided", edges.order.size + 1, np.uint32)
    labels = workspace.take("labels", pixels, np.uint32)
    names = workspace.take("names", pixels, np.int32)
    sizes = workspace.take("sizes", pixels, np.int32)
    directions = np.uint32(edges.directions)
    left, _ = merge_by_threshold(
        edges.order, edges.keys, edges.starts, WEIGHTS, directions, width, edges.tile, k, edges.first.reshape(-1),
        edges.pair_weight.reshape(-1), parent, state, state.view(np.float32), undecided,
    )  # fmt: skip
    found, _ = number_components(parent, state, width, edges.tile, labels, sizes)
    return labels, merge_small(
        undecided[:left], directions, width, min_size, labels, sizes[:found], parent[:found], names[:found]
    )


def split_channels(image: NDArray[np.uint8], workspace: Workspace) -> NDArray[np.uint8]:
    """Converts an image, uint8 ``[H, W, C]``, into channel planes, uint8 ``[C, H, W]``, stored in `workspace`."""
    height, width, channels = image.shape
    planes = workspace.take("planes", (channels, height, width), np.uint8)
    for channel in range(channels):
        cv2.extractChannel(image, channel, planes[channel])
    return planes


def smooth_planes(planes: NDArray[np.uint8], workspace: Workspace) -> NDArray[np.float32]:
    """Smooths an image, uint8 ``[C, H, W]``, with sigma 0.8 into float32 ``[C, H, W]``, stored in `workspace`."""
    smoothed = workspace.take("smoothed", planes.shape, np.float32)
    smooth(planes, gaussian_taps(SIGMA), workspace.take("row", planes.shape[2] + 6, np.float32), smoothed)
    return smoothed
