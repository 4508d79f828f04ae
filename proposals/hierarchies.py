"""All hierarchical groupings of one picture: what strategies share is computed once, the rest runs in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .colour import convert, levels
from .grouping import group
from .pixel_edges import Edges, sorted_edges
from .regions import colour_bin_factors, describe, neighbours, pixel_codes, row_length
from .segmentation import components, planes_of, smooth_planes
from .strategies import SIMILARITIES, Strategy
from .workspace import Workspace, borrow, drop_large

_Run = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]


@dataclass(frozen=True)
class _Pixels:
    """What all segmentations of one colour space share."""

    edges: Edges
    codes: NDArray[np.uint64]
    channels: int


@dataclass(frozen=True)
class _Superpixels:
    """What all groupings of one segmentation start from."""

    rows: NDArray[np.float32]
    size: NDArray[np.int32]
    box: NDArray[np.int32]
    touching: NDArray[np.int32]


def _pixels(
    image: NDArray[np.uint8], colour_space: str, least_k: float, connectivity: int, workspace: Workspace
) -> _Pixels:
    picture = convert(image, colour_space)
    height, width, channels = picture.shape
    codes = workspace.take("codes", (1 if channels == 1 else 2, height, width), np.uint64)
    with borrow() as scratch:
        planes = planes_of(picture, scratch)
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
        labels, regions = components(pixels.edges, height, width, k, round(k), scratch)
        counts = scratch.take("counts", (regions, row_length(channels)), np.int32)
        rows = workspace.take("rows", (regions, row_length(channels)), np.float32)
        size = workspace.take("size", regions, np.int32)
        box = workspace.take("box", (regions, 4), np.int32)
        describe(labels, height, width, pixels.codes, counts, rows, size, box)
        # A planar map has under 3 R neighbours; corners that touch add some, and noise can add more.
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
            superpixels.touching, rows, size, box, length // 105, pixels, measures,
            slot, owner, stamp, head, follow, target, sims, heap,
        )  # fmt: skip
    return box[: 2 * regions - 1]


def hierarchies(
    image: NDArray[np.uint8], strategies: Sequence[Strategy], connectivity: int, threads: int | None
) -> list[NDArray[np.int32]]:
    """The boxes of every strategy's hierarchy.

    Args:
        image: uint8 RGB ``[H, W, 3]`` at working size.
        strategies: which groupings to run.
        connectivity: 4 or 8 neighbours of a pixel.
        threads: how many to use at the most; None for all cores that this process may use.

    Returns:
        For each strategy int32 ``[2R - 1, 4]``: R superpixels, then their unions in the order of their making, the
        whole picture last.
    """
    image = np.ascontiguousarray(image)
    spaces = list(dict.fromkeys(strategy.colour_space for strategy in strategies))
    workers = min(threads or _cores(), len(strategies))
    found: dict[Strategy, NDArray[np.int32]] = {}
    with ExitStack() as stack:
        run: _Run = _in_turn
        if workers > 1:
            pool = stack.enter_context(ThreadPoolExecutor(workers))
            run = _pool_run(pool)
        # no more colour spaces at a time than threads: each holds some 40 bytes a pixel
        for first in range(0, len(spaces), workers):
            together = spaces[first : first + workers]
            some = list(dict.fromkeys(one for one in strategies if one.colour_space in together))
            found.update(zip(some, _group_all(image, some, connectivity, run), strict=True))
    drop_large()
    return [found[strategy] for strategy in strategies]


def _group_all(
    image: NDArray[np.uint8], strategies: Sequence[Strategy], connectivity: int, run: _Run
) -> list[NDArray[np.int32]]:
    height, width, _ = image.shape
    spaces = list(dict.fromkeys(strategy.colour_space for strategy in strategies))
    segmentations = list(dict.fromkeys((strategy.colour_space, strategy.k) for strategy in strategies))
    with ExitStack() as stack:
        space_rooms = {space: stack.enter_context(borrow()) for space in spaces}
        rooms = {one: stack.enter_context(borrow()) for one in segmentations}

        def of_space(space: str) -> _Pixels:
            least_k = min(strategy.k for strategy in strategies if strategy.colour_space == space)
            return _pixels(image, space, least_k, connectivity, space_rooms[space])

        pixels = dict(zip(spaces, run(of_space, spaces), strict=True))

        def of_segmentation(one: tuple[str, float]) -> _Superpixels:
            return _superpixels(pixels[one[0]], height, width, one[1], connectivity, rooms[one])

        superpixels = dict(zip(segmentations, run(of_segmentation, segmentations), strict=True))

        def of_strategy(strategy: Strategy) -> NDArray[np.int32]:
            start = superpixels[strategy.colour_space, strategy.k]
            return _grouping(start, height * width, strategy.similarity)

        return run(of_strategy, strategies)


def _pool_run(pool: ThreadPoolExecutor) -> _Run:
    return lambda work, items: list(pool.map(work, items))


def _in_turn(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [work(item) for item in items]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
