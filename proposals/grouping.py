"""Hierarchical grouping: the most similar neighbours merge until one region is left (Uijlings et al. 2013, alg. 1)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..runtime.compilation import kernel

# Histograms are scaled to this sum and their bins cut to whole numbers, whose sum is the same in any order.
_HISTOGRAM_SUM: Final = 2.0**26


@kernel
def _intersection(a: Any, b: Any, scale_a: Any, scale_b: Any) -> Any:
    """Returns the intersection of two scaled histograms: the sum of the smaller bins, each cut to a whole number."""
    total = np.int32(0)
    for i in range(a.size):
        u = a[i] * scale_a
        v = b[i] * scale_b
        total = np.int32(total + np.int32(u if u < v else v))
    return total


@kernel
def similarity(
    a: Any, b: Any, rows: Any, slot: Any, size: Any, box: Any, channels: Any, pixels: Any, measures: Any
) -> float:
    """Returns the similarity of two regions: the sum of the selected measures, each in [0, 1] (sec. 3.2, eqs. 1-5).

    Args:
        a, b: the numbers of the regions.
        rows: float32 ``[R, row_length(C)]``, histograms of pixel counts; ``rows[slot[a]]`` belongs to region a.
        slot: int32 ``[2R]``, the row of each region.
        size: int32 ``[2R]``, number of pixels of each region.
        box: int32 ``[2R, 4]``, (x1, y1, x2, y2) of each region.
        channels: number of colour channels C.
        pixels: number of pixels of the image.
        measures: a bit mask: 1 colour, 2 texture, 4 size, 8 fill.
    """
    total = 0.0
    size_a, size_b = size[a], size[b]
    if measures & 3:
        scale_a = np.float32(_HISTOGRAM_SUM / size_a)
        scale_b = np.float32(_HISTOGRAM_SUM / size_b)
        split = channels * 80
        if measures & 1:
            shared = _intersection(rows[slot[a], split:], rows[slot[b], split:], scale_a, scale_b)
            total += shared / (_HISTOGRAM_SUM * channels)
        if measures & 2:
            shared = _intersection(rows[slot[a], :split], rows[slot[b], :split], scale_a, scale_b)
            total += shared / (_HISTOGRAM_SUM * 8 * channels)
    if measures & 4:
        total += 1.0 - (size_a + size_b) / pixels
    if measures & 8:
        wide = max(box[a, 2], box[b, 2]) - min(box[a, 0], box[b, 0])
        high = max(box[a, 3], box[b, 3]) - min(box[a, 1], box[b, 1])
        total += 1.0 - (np.int64(wide) * np.int64(high) - size_a - size_b) / pixels
    return total


@kernel
def _comes_first(sim_a: Any, pair_a: Any, sim_b: Any, pair_b: Any) -> bool:
    """Defines the heap order: higher similarity first. Ties: smaller pair code first, see `group`."""
    return sim_a > sim_b or (sim_a == sim_b and pair_a < pair_b)


@kernel
def _sift_down(sims: Any, pairs: Any, count: Any, place: Any) -> None:
    sim, pair = sims[place], pairs[place]
    while True:
        child = 2 * place + 1
        if child >= count:
            break
        if child + 1 < count and _comes_first(sims[child + 1], pairs[child + 1], sims[child], pairs[child]):
            child += 1
        if not _comes_first(sims[child], pairs[child], sim, pair):
            break
        sims[place], pairs[place] = sims[child], pairs[child]
        place = child
    sims[place], pairs[place] = sim, pair


@kernel
def _sift_up(sims: Any, pairs: Any, place: Any, sim: Any, pair: Any) -> None:
    while place > 0:
        above = (place - 1) >> 1
        if not _comes_first(sim, pair, sims[above], pairs[above]):
            break
        sims[place], pairs[place] = sims[above], pairs[above]
        place = above
    sims[place], pairs[place] = sim, pair


@kernel
def _root(owner: Any, region: Any) -> Any:
    """Returns the region into which `region` has been merged, with path halving."""
    while owner[region] != region:
        owner[region] = owner[owner[region]]
        region = owner[region]
    return region


@kernel
def group(
    touching: Any,
    rows: Any,
    size: Any,
    box: Any,
    channels: int,
    pixels: int,
    measures: int,
    slot: Any,
    owner: Any,
    stamp: Any,
    head: Any,
    follow: Any,
    target: Any,
    sims: Any,
    pairs: Any,
) -> None:
    """Merges R superpixels into one region. Regions R..2R-2 are the unions, in the order of merging.

    A heap entry is valid only while neither of its regions has been merged; invalid entries are skipped when they
    reach the top. A neighbour list may contain merged regions; they are resolved when the owner of the list merges.
    The kernel allocates no memory.

    Args:
        touching: int32 ``[P, 2]``, the pairs of adjacent superpixels from `neighbours`.
        rows: float32 ``[R, row_length(C)]``, histograms of pixel counts, overwritten.
        size: int32 ``[2R]``, number of pixels. The first R are input, the others output.
        box: int32 ``[2R, 4]``, (x1, y1, x2, y2). The first R are input, the others output.
        channels: number of colour channels C.
        pixels: number of pixels of the image.
        measures: bit mask, see `similarity`.
        slot, owner, stamp, head: int32 ``[2R]``, workspace.
        follow, target: int32 ``[2P]``, workspace: the neighbour lists.
        sims: float64 ``[2P + 1]``, workspace: the similarities in the heap.
        pairs: int64 ``[2P + 1]``, workspace: the pairs in the heap, as newer region * 2^32 + older region. At most P
            pairs are valid at a time, so a full heap always has room after its invalid entries have been removed.
    """
    regions = rows.shape[0]
    for region in range(2 * regions):
        slot[region] = region
        owner[region] = region
        stamp[region] = -1
        head[region] = -1
    count = touching.shape[0]
    for i in range(count):
        a, b = touching[i, 0], touching[i, 1]
        target[2 * i], follow[2 * i] = b, head[a]
        head[a] = 2 * i
        target[2 * i + 1], follow[2 * i + 1] = a, head[b]
        head[b] = 2 * i + 1
        sims[i] = similarity(a, b, rows, slot, size, box, channels, pixels, measures)
        pairs[i] = (np.int64(b) << 32) | np.int64(a)
    for place in range(count // 2 - 1, -1, -1):
        _sift_down(sims, pairs, count, place)

    new = regions
    while new < 2 * regions - 1:
        pair = pairs[0]
        count -= 1
        if count > 0:
            sims[0], pairs[0] = sims[count], pairs[count]
            _sift_down(sims, pairs, count, 0)
        a = np.int64(pair & np.int64(0xFFFFFFFF))
        b = np.int64(pair >> 32)
        if owner[a] != a or owner[b] != b:
            continue
        owner[a] = new
        owner[b] = new
        size[new] = size[a] + size[b]
        box[new, 0] = min(box[a, 0], box[b, 0])
        box[new, 1] = min(box[a, 1], box[b, 1])
        box[new, 2] = max(box[a, 2], box[b, 2])
        box[new, 3] = max(box[a, 3], box[b, 3])
        kept, added = rows[slot[a]], rows[slot[b]]
        for i in range(kept.size):
            kept[i] += added[i]
        slot[new] = slot[a]
        for part in (a, b):
            node = head[part]
            while node >= 0:
                after = follow[node]
                other = _root(owner, target[node])
                if other != new and stamp[other] != new:
                    stamp[other] = new
                    target[node] = other
                    follow[node] = head[new]
                    head[new] = node
                    if count == sims.size:
                        live = 0
                        for i in range(count):
                            u = np.int64(pairs[i] & np.int64(0xFFFFFFFF))
                            v = np.int64(pairs[i] >> 32)
                            if owner[u] == u and owner[v] == v:
                                sims[live], pairs[live] = sims[i], pairs[i]
                                live += 1
                        count = live
                        for place in range(count // 2 - 1, -1, -1):
                            _sift_down(sims, pairs, count, place)
                    sim = similarity(new, other, rows, slot, size, box, channels, pixels, measures)
                    _sift_up(sims, pairs, count, sim, (np.int64(new) << 32) | np.int64(other))
                    count += 1
                node = after
        new += 1
