"""Graph-based image segmentation (Felzenszwalb & Huttenlocher 2004): the superpixels of selective search.

Edges between neighbouring pixels are taken by rising difference; two components join when the edge is no heavier
than either's largest internal edge plus k / size. Components smaller than `min_size` then join their most similar
neighbour. How edges are weighed and sorted is in pixel_edges.py.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime.compilation import kernel
from .pixel_edges import WEIGHTS, Edges, sorted_edges
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
    first: Any,
    pair_weight: Any,
    parent: Any,
    state: Any,
    limit: Any,
    undecided: Any,
) -> Any:
    """Join pixels into components by the paper's predicate. Returns how many edges are `undecided`, and nothing of use.

    Many edges are dead when their turn comes: inside one component, or at a component that can no longer grow because
    edges have become heavier than its threshold. A block of edges is therefore sifted without branches, by roots three
    hops up, and only the survivors are handled exactly.

    Args:
        order, ordered_keys, starts: of `sort_edges`.
        weights: float32 ``[65536]`` of `key_weights`.
        directions: edges a pixel: 2 or 4.
        tile_side: pixels a side of a tile.
        first, pair_weight: ``[H * W]`` of `join_nearest`.
        parent: uint32 ``[H * W]``, written: a pixel's parent; a root is its own.
        state: int32 ``[2 * H * W]``, written, side by side so that both come in one cache line: at a root the bits of
            its threshold (internal difference + k / size), and its size.
        limit: float32, the same memory as `state`.
        undecided: uint32 ``[E + 1]``, written: the edges between two components, in their order.
    """
    k = np.float32(k)
    half = k / np.float32(2)
    for pixel in range(parent.size):
        parent[pixel] = first[pixel]
        weight = pair_weight[pixel]
        limit[2 * pixel] = k if weight < 0 else weight + half
        state[2 * pixel + 1] = 1 if weight < 0 else 2
    tiled = starts.shape[0] > 1
    unused = np.int64(0)
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
                unused += _fetch(parent, width, tile_side, tile)
            for start in range(starts[tile, level], end, _BLOCK):
                lowest = weights[np.uint32(ordered_keys[start])]
                block = left
                crossing = np.uint32(0)
                for i in range(start, min(start + _BLOCK, end)):
                    edge = order[i]
                    pixel_a, pixel_b = _ends(edge, directions, width)
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
                    # where three hops were too few the edge stays in doubt
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
                            # another tile may have been ahead: the internal difference is the largest so far
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
    return left, unused


@kernel
def number_components(parent: Any, state: Any, width: Any, tile: Any, labels: Any, sizes: Any) -> Any:
    """Number the components 0, 1, ..., tile after tile. Returns how many, and nothing of use.

    Args:
        parent, state: of `merge_by_threshold`, used up.
        tile: pixels a side.
        labels: uint32 ``[H * W]``, written.
        sizes: int32 ``[H * W]``, written: the components' numbers of pixels.
    """
    height = parent.size // width
    found = 0
    number = 0
    unused = np.int64(0)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            if tile < height or tile < width:
                unused += _fetch(parent, width, tile, number)
                number += 1
            for y in range(top, min(top + tile, height)):
                for pixel in range(y * width + left, y * width + min(left + tile, width)):
                    root = parent[pixel]
                    while parent[root] != root:
                        root = parent[root]
                    parent[pixel] = root
                    # a root's size gives way to its number, as a negative
                    place = np.uint32(2) * root + np.uint32(1)
                    name = ~state[place]
                    if name < 0:
                        sizes[found] = state[place]
                        name = found
                        state[place] = ~name
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


def planes_of(image: NDArray[np.uint8], workspace: Workspace) -> NDArray[np.uint8]:
    """A picture uint8 ``[H, W, C]`` channel by channel: uint8 ``[C, H, W]``, living in `workspace`."""
    height, width, channels = image.shape
    planes = workspace.take("planes", (channels, height, width), np.uint8)
    for channel in range(channels):
        cv2.extractChannel(image, channel, planes[channel])
    return planes


def smooth_planes(planes: NDArray[np.uint8], workspace: Workspace) -> NDArray[np.float32]:
    """A picture uint8 ``[C, H, W]`` smoothed with sigma 0.8: float32 ``[C, H, W]``, living in `workspace`."""
    smoothed = workspace.take("smoothed", planes.shape, np.float32)
    smooth(planes, gaussian_taps(SIGMA), workspace.take("row", planes.shape[2] + 6, np.float32), smoothed)
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
        smoothed = smooth_planes(planes_of(np.ascontiguousarray(image), workspace), workspace)
        edges = sorted_edges(smoothed, connectivity, k, workspace)
        labels, _ = components(edges, height, width, k, min_size, workspace)
        return labels.reshape(height, width).astype(np.int32)
