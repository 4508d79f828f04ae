"""Graph-based image segmentation (Felzenszwalb & Huttenlocher 2004): the superpixels of selective search.

Edges between neighbouring pixels are taken by rising difference; two components join when the edge is no heavier
than either's largest internal edge plus k / size. Components smaller than `min_size` then join their most similar
neighbour. Edge weights are floats cut to 16 bits (5 exponent, 11 mantissa bits of the squared difference), so that
they can be counting-sorted; uniform steps would swallow k / size and leave 40 % more regions.
"""

from __future__ import annotations

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


def key_weights() -> NDArray[np.float32]:
    """The edge weight (a difference in grey levels) that each sort key stands for.  # [65536]"""
    bits = (np.arange(KEYS, dtype=np.uint32) + np.uint32(_LOWEST)) << np.uint32(_SHIFT)
    weights = np.sqrt(bits.view(np.float32))
    weights[0] = 0
    return weights


@kernel
def edge_keys(smoothed: Any, diagonal: bool, squared: Any, bits: Any, keys: Any, count: Any) -> None:
    """Sort keys of all edges, and how often each occurs.

    Args:
        smoothed: float32 ``[C, H, W]``.
        diagonal: True for 8-connected pixels.
        squared, bits: workspace, one buffer ``[W]`` as float32 and as int32.
        keys: uint16 ``[directions, H * W]``, written: right, down, down-right, down-left.
        count: int32 ``[KEYS]``, written.
    """
    channels, height, width = smoothed.shape
    count[:] = 0
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
            for x in range(start, stop):
                count[np.uint32(line[x])] += 1


@kernel
def sort_edges(keys: Any, height: int, width: int, count: Any, order: Any) -> int:
    """Counting sort: edge numbers by rising key, ties by pixel, then direction. Returns their number.

    Args:
        keys, count: from `edge_keys`; `count` is overwritten.
        order: uint32 ``[directions * H * W]``, written: pixel * directions + direction.
    """
    total = 0
    for key in range(count.size):
        here = count[key]
        count[key] = total
        total += here
    directions = keys.shape[0]
    for y in range(height):
        for x in range(width):
            pixel = y * width + x
            for direction in range(directions):
                if direction != 1 and direction != 3 and x + 1 == width:
                    continue
                if direction == 3 and x == 0:
                    continue
                if direction > 0 and y + 1 == height:
                    continue
                key = np.uint32(keys[direction, pixel])
                place = count[key]
                count[key] = place + 1
                order[np.uint32(place)] = np.uint32(pixel * directions + direction)
    return total


@kernel
def _find(parent: Any, node: np.uint32) -> np.uint32:
    """The root of a node, halving the path on the way."""
    while True:
        above = parent[node]
        if above == node:
            return node
        top = parent[above]
        parent[node] = top
        node = top


@kernel
def union(
    order: Any,
    edges: int,
    keys: Any,
    width: int,
    weights: Any,
    k: float,
    min_size: int,
    parent: Any,
    size: Any,
    threshold: Any,
    undecided: Any,
) -> None:
    """Join pixels into components; afterwards `parent` is a forest over pixels.

    Most edges are dead when their turn comes: inside one component, or at a component that can no longer grow
    because edges have become heavier than its threshold. A block of edges is tested without branches, by roots three
    hops up, and only the survivors are handled exactly.

    Args:
        order, edges: from `sort_edges`.
        keys: uint16 ``[directions, H * W]``.
        weights: float32 ``[KEYS]`` of `key_weights`.
        parent: uint32, size: int32, threshold: float32, ``[H * W]`` each, written.
        undecided: uint32 ``[edges]``, workspace: edges between two components, for the second pass.
    """
    directions = np.uint32(keys.shape[0])
    offsets = (np.uint32(1), np.uint32(width), np.uint32(width + 1), np.uint32(width - 1))
    shift = np.uint32(1 if directions == 2 else 2)
    mask = np.uint32(directions - 1)
    infinity = np.float32(np.inf)
    k32 = np.float32(k)
    for pixel in range(parent.size):
        parent[pixel] = pixel
        size[pixel] = 1
        threshold[pixel] = k32
    survivors = np.empty(_BLOCK, np.uint32)
    left = 0
    for start in range(0, edges, _BLOCK):
        first = order[start]
        lowest = weights[np.uint32(keys[first & mask, first >> shift])]
        alive = 0
        for i in range(start, min(start + _BLOCK, edges)):
            edge = order[i]
            a = np.uint32(edge >> shift)
            b = np.uint32(a + offsets[edge & mask])
            a = parent[parent[parent[a]]]
            b = parent[parent[parent[b]]]
            survivors[alive] = edge
            undecided[left] = edge
            different = a != b
            # A node that is no root has an infinite threshold: three hops were too few, so it stays in doubt.
            alive += different & (lowest <= threshold[a]) & (lowest <= threshold[b])
            left += different
        if alive == 0:
            continue
        for i in range(alive):
            edge = survivors[i]
            a = np.uint32(edge >> shift)
            b = _find(parent, np.uint32(a + offsets[edge & mask]))
            a = _find(parent, a)
            if a == b:
                continue
            weight = weights[np.uint32(keys[edge & mask, edge >> shift])]
            if weight <= threshold[a] and weight <= threshold[b]:
                size_a, size_b = size[a], size[b]
                top = a if size_a >= size_b else b
                low = b if size_a >= size_b else a
                parent[low] = top
                joined = size_a + size_b
                size[top] = joined
                threshold[low] = infinity
                threshold[top] = weight + k32 / np.float32(joined)
    # Second pass: components under the minimum size join across their lightest edge.
    for i in range(left):
        edge = undecided[i]
        a = np.uint32(edge >> shift)
        b = _find(parent, np.uint32(a + offsets[edge & mask]))
        a = _find(parent, a)
        if a != b and (size[a] < min_size or size[b] < min_size):
            top = a if size[a] >= size[b] else b
            low = b if size[a] >= size[b] else a
            parent[low] = top
            size[top] += size[low]


@kernel
def number_components(parent: Any, names: Any, labels: Any) -> int:
    """Number the components 0, 1, ... in the order in which a raster scan meets them. Returns how many.

    Args:
        parent: uint32 ``[H * W]`` from `union`.
        names: int32 ``[H * W]``, workspace.
        labels: uint32 ``[H * W]``, written.
    """
    names[:] = -1
    found = 0
    for pixel in range(parent.size):
        root = _find(parent, np.uint32(pixel))
        name = names[root]
        if name < 0:
            name = found
            names[root] = name
            found += 1
        labels[pixel] = name
    return found


def prepare_edges(smoothed: NDArray[np.float32], connectivity: int, workspace: Workspace) -> tuple[Any, Any, int]:
    """Sort keys, sorted edges and their number, for `components` at any k; they live in `workspace`."""
    _, height, width = smoothed.shape
    directions = 2 if connectivity == 4 else 4
    squared = workspace.take("squared", width, np.float32)
    keys = workspace.take("keys", (directions, height * width), np.uint16)
    count = workspace.take("count", KEYS, np.int32)
    order = workspace.take("order", directions * height * width, np.uint32)
    edge_keys(smoothed, directions == 4, squared, squared.view(np.int32), keys, count)
    edges = sort_edges(keys, height, width, count, order)
    return keys, order, edges


def components(
    edges: tuple[Any, Any, int], height: int, width: int, k: float, min_size: int, workspace: Workspace
) -> tuple[NDArray[np.uint32], int]:
    """Superpixel labels uint32 ``[H * W]`` and their number, from the edges of `prepare_edges`."""
    keys, order, total = edges
    pixels = height * width
    parent = workspace.take("parent", pixels, np.uint32)
    size = workspace.take("size", pixels, np.int32)
    threshold = workspace.take("threshold", pixels, np.float32)
    undecided = workspace.take("undecided", total + 1, np.uint32)
    labels = workspace.take("labels", pixels, np.uint32)
    union(order, total, keys, width, _WEIGHTS, k, min_size, parent, size, threshold, undecided)
    # the components' sizes are no longer wanted: their buffer holds the names
    return labels, number_components(parent, size, labels)


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
        edges = prepare_edges(smoothed, connectivity, workspace)
        labels, _ = components(edges, height, width, k, min_size, workspace)
        return labels.reshape(height, width).astype(np.int32)
