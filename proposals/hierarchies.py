"""Runs all hierarchical groupings of one image in threads. Work that several strategies share is done once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .colour import convert, levels
from .grouping import group
from .pixel_edges import Edges, sorted_edges
from .regions import colour_bin_factors, describe, neighbours, pixel_codes, row_length
from .segmentation import components, smooth_planes, split_channels
from .strategies import SIMILARITIES, Strategy
from .workspace import Workspace, borrow, drop_large

# With this k, all pixels are one superpixel. A larger k would give the same, but overflow float32.
_LARGEST_K = 1e30
# Grouping takes time in proportion to the square of the superpixels of noise: 1.3 seconds for 8,000. At a scale of 1 or
# more, an image of working size never has as many. A small share of the pixels is added for images at full resolution.
_MOST_SUPERPIXELS = 8_000
_PIXELS_PER_FURTHER_SUPERPIXEL = 500

_Map = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]  # like list(map(work, items))


@dataclass(frozen=True)
class _Pixels:
    """The input of all segmentations of one colour space.

    Attributes:
        edges: the sorted edges between neighbouring pixels.
        codes: uint64 ``[words, H, W]``, the histogram bins of each pixel, see `pixel_codes`.
        channels: number of colour channels.
    """

    edges: Edges
    codes: NDArray[np.uint64]
    channels: int


@dataclass(frozen=True)
class _Superpixels:
    """The input of all groupings of one segmentation into R superpixels.

    Attributes:
        rows: float32 ``[R, row_length(C)]``, histograms.
        size: int32 ``[R]``, number of pixels.
        box: int32 ``[R, 4]``, (x1, y1, x2, y2).
        touching: int32 ``[P, 2]``, pairs of adjacent superpixels.
    """

    rows: NDArray[np.float32]
    size: NDArray[np.int32]
    box: NDArray[np.int32]
    touching: NDArray[np.int32]


def _pixels(
    image: NDArray[np.uint8], colour_space: str, least_k: float, connectivity: int, workspace: Workspace
) -> _Pixels:
    converted = convert(image, colour_space)
    height, width, channels = converted.shape
    codes = workspace.take("codes", (1 if channels == 1 else 2, height, width), np.uint64)
    with borrow() as scratch:
        planes = split_channels(converted, scratch)
        smoothed = smooth_planes(planes, scratch)
        edges = sorted_edges(smoothed, connectivity, least_k, workspace)
        gx = scratch.take("gx", width, np.float32)
        gy = scratch.take("gy", width, np.float32)
        lines = scratch.take("lines", (5 * channels, width), np.uint8)
        factors = colour_bin_factors(levels(colour_space))
        pixel_codes(planes, smoothed, gx, gy, lines, factors, codes)
    return _Pixels(edges, codes, channels)


def _superpixels(
    pixels: _Pixels, height: int, width: int, k: float, connectivity: int, workspace: Workspace
) -> _Superpixels:
    channels = pixels.channels
    with borrow() as scratch:
        min_size = min(round(k), height * width)
        labels, regions = components(pixels.edges, height, width, k, min_size, scratch)
        while regions > _MOST_SUPERPIXELS + height * width // _PIXELS_PER_FURTHER_SUPERPIXEL:
            min_size = max(2 * min_size, 2)
            labels, regions = components(pixels.edges, height, width, k, min_size, scratch)
        counts = scratch.take("counts", (regions, row_length(channels)), np.int32)
        rows = workspace.take("rows", (regions, row_length(channels)), np.float32)
        size = workspace.take("size", regions, np.int32)
        box = workspace.take("box", (regions, 4), np.int32)
        describe(labels, height, width, pixels.codes, counts, rows, size, box)
        # A planar map of R regions has fewer than 3 R adjacent pairs. Pairs that touch only at corners are additional.
        room = 4 * regions + 16
        border = scratch.take("border", width, np.uint8)
        last = scratch.take("last", 4, np.int64)
        while True:
            table = scratch.take("table", 1 << (4 * room - 1).bit_length(), np.int64)
            touching = workspace.take("touching", (room, 2), np.int32)
            found = neighbours(labels, height, width, connectivity == 8, border, last, table, touching)
            if found >= 0:
                return _Superpixels(rows, size, box, touching[:found])
            room *= 2


def _grouping(superpixels: _Superpixels, pixels: int, similarity: str) -> NDArray[np.int32]:
    regions, length = superpixels.rows.shape
    pairs = len(superpixels.touching)
    measures = sum(1 << bit for bit, letter in enumerate(SIMILARITIES) if letter in similarity)
    box = np.empty((2 * regions, 4), np.int32)
    box[:regions] = superpixels.box
    with borrow() as scratch:
        rows = scratch.take("merged", (regions, length), np.float32)
        rows[:] = superpixels.rows
        size = scratch.take("sizes", 2 * regions, np.int32)
        size[:regions] = superpixels.size
        slot, owner, stamp, head = (
            scratch.take(name, 2 * regions, np.int32) for name in ("slot", "owner", "stamp", "head")
        )
        follow, target = (scratch.take(name, 2 * pairs, np.int32) for name in ("follow", "target"))
        sims = scratch.take("sims", 2 * pairs + 1, np.float64)
        heap = scratch.take("heap", 2 * pairs + 1, np.int64)
        group(
            superpixels.touching, rows, size, box, length // row_length(1), pixels, measures,
            slot, owner, stamp, head, follow, target, sims, heap,
        )  # fmt: skip
    return box[: 2 * regions - 1]


def hierarchies(
    image: NDArray[np.uint8], strategies: Sequence[Strategy], connectivity: int, threads: int | None
) -> list[NDArray[np.int32]]:
    """Computes the boxes of every region in the hierarchy of each strategy.

    Args:
        image: uint8 RGB ``[H, W, 3]`` at working size.
        strategies: the groupings to run.
        connectivity: neighbours of a pixel, 4 or 8.
        threads: maximum number of threads; None for all cores that this process may use.

    Returns:
        For each strategy int32 ``[2R - 1, 4]``: the boxes of R superpixels, then of their unions in the order of
        merging. The last box is the whole image.
    """
    image = np.ascontiguousarray(image)
    strategies = [replace(strategy, k=min(strategy.k, _LARGEST_K)) for strategy in strategies]
    spaces = list(dict.fromkeys(strategy.colour_space for strategy in strategies))
    workers = min(threads or _cores(), len(strategies))
    boxes: dict[Strategy, NDArray[np.int32]] = {}
    with ExitStack() as stack:
        run: _Map = _sequential_map
        if workers > 1:
            pool = stack.enter_context(ThreadPoolExecutor(workers))
            run = _threaded_map(pool)
        # To limit memory, at most `workers` colour spaces are held at a time. Each takes some 40 bytes per pixel.
        for first in range(0, len(spaces), workers):
            held_spaces = spaces[first : first + workers]
            selected = list(dict.fromkeys(strategy for strategy in strategies if strategy.colour_space in held_spaces))
            boxes.update(zip(selected, _group_all(image, selected, connectivity, run), strict=True))
    drop_large()
    return [boxes[strategy] for strategy in strategies]


def _group_all(
    image: NDArray[np.uint8], strategies: Sequence[Strategy], connectivity: int, run: _Map
) -> list[NDArray[np.int32]]:
    height, width, _ = image.shape
    spaces = list(dict.fromkeys(strategy.colour_space for strategy in strategies))
    segmentations = list(dict.fromkeys((strategy.colour_space, strategy.k) for strategy in strategies))
    with ExitStack() as stack:
        pixel_workspaces = {space: stack.enter_context(borrow()) for space in spaces}
        superpixel_workspaces = {segmentation: stack.enter_context(borrow()) for segmentation in segmentations}

        def pixels_of(space: str) -> _Pixels:
            least_k = min(strategy.k for strategy in strategies if strategy.colour_space == space)
            return _pixels(image, space, least_k, connectivity, pixel_workspaces[space])

        pixels = dict(zip(spaces, run(pixels_of, spaces), strict=True))

        def superpixels_of(segmentation: tuple[str, float]) -> _Superpixels:
            space, k = segmentation
            return _superpixels(pixels[space], height, width, k, connectivity, superpixel_workspaces[segmentation])

        superpixels = dict(zip(segmentations, run(superpixels_of, segmentations), strict=True))

        def boxes_of(strategy: Strategy) -> NDArray[np.int32]:
            start = superpixels[strategy.colour_space, strategy.k]
            return _grouping(start, height * width, strategy.similarity)

        return run(boxes_of, strategies)


def _threaded_map(pool: ThreadPoolExecutor) -> _Map:
    return lambda work, items: list(pool.map(work, items))


def _sequential_map(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [work(item) for item in items]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
