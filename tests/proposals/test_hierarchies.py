"""Superpixels and hierarchies of small images equal those of a slow implementation of the papers' formulas.

The reference implementation below shares no code with the package, except for the colour conversion, which has its own
tests. It computes in float32 where the package does: rounding that breaks a near tie differently would change all later
merges.
"""

from collections.abc import Callable

import numpy as np
import pytest

from inception_rcnn.proposals.colour import convert
from inception_rcnn.proposals.hierarchies import hierarchies
from inception_rcnn.proposals.strategies import Strategy

F = np.float32
LEVELS = {"hsv": [180, 256, 256], "hue": [180]}


def reference_smooth(channel: np.ndarray) -> np.ndarray:
    """Filters columns, then rows, with a sampled Gaussian of sigma 0.8 and seven taps; the border is repeated."""
    taps = np.exp(-0.5 * (np.arange(4) / 0.8) ** 2)
    taps = (taps / (taps[0] + 2 * taps[1:].sum())).astype(F)
    smoothed = channel.astype(F)
    for axis in (0, 1):
        length = smoothed.shape[axis]

        def moved(by: int, picture: np.ndarray = smoothed, axis: int = axis, length: int = length) -> np.ndarray:
            return picture.take(np.clip(np.arange(length) + by, 0, length - 1), axis=axis)

        total = taps[0] * smoothed
        for distance in (1, 2, 3):
            total = total + taps[distance] * (moved(-distance) + moved(distance))
        smoothed = total
    return smoothed


def reference_segment(
    smoothed: list[np.ndarray], k: float, min_size: int, connectivity: int, tile: int | None = None
) -> np.ndarray:
    """Runs Felzenszwalb and Huttenlocher's algorithm 1, then merges small components.

    With tiles, edges are sorted by the octave of the squared weight, then by tile, then by weight.
    """
    height, width = smoothed[0].shape
    steps = [(0, 1), (1, 0), (1, 1), (1, -1)][: connectivity // 2]
    edges = []
    for y in range(height):
        for x in range(width):
            for direction, (dy, dx) in enumerate(steps):
                if y + dy < height and 0 <= x + dx < width:
                    squared = F(0)
                    for channel in smoothed:
                        difference = channel[y, x] - channel[y + dy, x + dx]
                        squared = squared + difference * difference
                    # The square is truncated to 11 bits of mantissa, and to 0 below 2^-14.
                    bits = int(np.array(squared, F).view(np.int32)) >> 12 << 12
                    squared = np.array(bits, np.int32).view(F) if squared >= F(2**-14) * F(1 + 2**-11) else F(0)
                    a = y * width + x
                    edges.append((F(np.sqrt(squared)), a, direction, a + dy * width + dx))
    if tile is None:
        edges.sort(key=lambda edge: edge[:3])
    else:

        def tiled_order(edge: tuple) -> tuple:
            octave = int(np.floor(np.log2(float(edge[0]) ** 2 + 1e-12) + 1e-6)) if edge[0] else -14
            return max(octave, -14), edge[1] // width // tile, edge[1] % width // tile, *edge[:3]

        edges.sort(key=tiled_order)
    parent = list(range(height * width))
    members = [1] * len(parent)
    internal = [F(0)] * len(parent)

    def find(node: int) -> int:
        while parent[node] != node:
            node = parent[node]
        return node

    def join(a: int, b: int) -> int:
        parent[b] = a
        members[a] += members[b]
        return a

    for weight, a, _, b in edges:
        a, b = find(a), find(b)
        if a != b and all(weight <= internal[c] + F(k) / F(members[c]) for c in (a, b)):
            internal[join(a, b)] = max(weight, internal[a], internal[b])
    for _, a, _, b in edges:
        a, b = find(a), find(b)
        if a != b and min(members[a], members[b]) < min_size:
            join(a, b)
    names: dict[int, int] = {}
    return np.array([names.setdefault(find(p), len(names)) for p in range(len(parent))]).reshape(height, width)


def reference_histogram(
    picture: np.ndarray, levels: list[int], smoothed: list[np.ndarray], mask: np.ndarray
) -> np.ndarray:
    """Returns the pixel counts of one region: texture [C, 8, 10], then colour [C, 25]."""
    texture, colour = [], []
    for c, channel in enumerate(smoothed):
        p = np.pad(channel, 1, mode="edge")
        narrow, wide = F(3 / 32) * F(0.5), F(10 / 32) * F(0.5)  # a bin spans two grey levels per pixel
        gx = narrow * ((p[:-2, 2:] - p[:-2, :-2]) + (p[2:, 2:] - p[2:, :-2])) + wide * (p[1:-1, 2:] - p[1:-1, :-2])
        gy = narrow * ((p[2:, :-2] - p[:-2, :-2]) + (p[2:, 2:] - p[:-2, 2:])) + wide * (p[2:, 1:-1] - p[:-2, 1:-1])
        half = F(np.sqrt(0.5))
        four = [gx, (gx + gy) * half, gy, (gy - gx) * half]
        for derivative in four:
            for sign in (1, -1):
                bins = np.clip(np.floor(np.maximum(sign * derivative, 0)), 0, 9).astype(int)
                texture.append(np.bincount(bins[mask], minlength=10))
        colour.append(np.bincount(picture[:, :, c][mask].astype(int) * 25 // levels[c], minlength=25))
    return np.concatenate(texture + colour)


def reference_hierarchy(
    picture: np.ndarray, levels: list[int], k: float, similarity: str, connectivity: int
) -> list[tuple[int, int, int, int]]:
    """Runs algorithm 1 of Uijlings et al.; similarities of new regions are computed from pixel masks."""
    height, width, channels = picture.shape
    smoothed = [reference_smooth(picture[:, :, c]) for c in range(channels)]
    labels = reference_segment(smoothed, k, round(k), connectivity)
    masks = {r: labels == r for r in range(labels.max() + 1)}
    rows = {r: reference_histogram(picture, levels, smoothed, masks[r]) for r in masks}

    def box(mask: np.ndarray) -> tuple[int, int, int, int]:
        ys, xs = np.nonzero(mask)
        return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1

    def touch(a: np.ndarray, b: np.ndarray) -> bool:
        if (a[1:] & b[:-1]).any() or (b[1:] & a[:-1]).any() or (a[:, 1:] & b[:, :-1]).any():
            return True
        if (b[:, 1:] & a[:, :-1]).any():
            return True
        corners = [(a[1:, 1:] & b[:-1, :-1]), (b[1:, 1:] & a[:-1, :-1]), (a[1:, :-1] & b[:-1, 1:])]
        return connectivity == 8 and any(m.any() for m in [*corners, b[1:, :-1] & a[:-1, 1:]])

    def intersection(a: np.ndarray, b: np.ndarray, size_a: int, size_b: int) -> int:
        shared = np.minimum(a.astype(F) * F(2.0**26 / size_a), b.astype(F) * F(2.0**26 / size_b))
        return int(shared.astype(np.int32).sum())

    known: dict[tuple[int, int], float] = {}

    def similarity_of(a: int, b: int) -> float:
        if (a, b) not in known:
            size_a, size_b = int(masks[a].sum()), int(masks[b].sum())
            total, split = 0.0, 80 * channels
            if "C" in similarity:
                total += intersection(rows[a][split:], rows[b][split:], size_a, size_b) / (2.0**26 * channels)
            if "T" in similarity:
                total += intersection(rows[a][:split], rows[b][:split], size_a, size_b) / (2.0**26 * 8 * channels)
            if "S" in similarity:
                total += 1 - (size_a + size_b) / (height * width)
            if "F" in similarity:
                x1, y1, x2, y2 = box(masks[a] | masks[b])
                total += 1 - ((x2 - x1) * (y2 - y1) - size_a - size_b) / (height * width)
            known[a, b] = total
        return known[a, b]

    boxes = [box(masks[r]) for r in masks]
    alive = set(masks)
    adjacent = {(a, b) for a in alive for b in alive if a < b and touch(masks[a], masks[b])}
    while len(alive) > 1:
        a, b = min(adjacent, key=lambda pair: (-similarity_of(*pair), pair[1], pair[0]))
        new = len(boxes)
        masks[new] = masks[a] | masks[b]
        rows[new] = rows[a] + rows[b]
        boxes.append(box(masks[new]))
        alive -= {a, b}
        adjacent = {pair for pair in adjacent if not {a, b} & set(pair)}
        adjacent |= {(other, new) for other in alive if touch(masks[other], masks[new])}
        alive.add(new)
    return boxes


def small_picture(seed: int, height: int = 28, width: int = 36) -> np.ndarray:
    """Draws overlapping rectangles of plain, shaded and noisy colour, which give regions of all sizes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3)) + rng.integers(0, 256, 3)
    for _ in range(12):
        x, y = rng.integers(0, width - 4), rng.integers(0, height - 4)
        part = image[y : y + rng.integers(4, 16), x : x + rng.integers(4, 20)]
        part[:] = rng.integers(0, 256, 3) + np.arange(part.shape[1])[:, None] * rng.uniform(-4, 4)
        part += rng.normal(0, rng.choice([0, 2, 12]), part.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("seed", range(4))
def test_superpixels_equal_the_reference(seed: int, connectivity: int, segment: Callable[..., np.ndarray]) -> None:
    picture = small_picture(seed)
    smoothed = [reference_smooth(picture[:, :, c]) for c in range(3)]
    for k, min_size in ((3.0, 1), (20.0, 5), (100.0, 100)):
        expected = reference_segment(smoothed, k, min_size, connectivity)
        np.testing.assert_array_equal(segment(picture, k, min_size, connectivity), expected)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_superpixels_in_tiles_equal_the_reference_in_tiles(
    seed: int, connectivity: int, segment: Callable[..., np.ndarray]
) -> None:
    picture = small_picture(seed)
    smoothed = [reference_smooth(picture[:, :, c]) for c in range(3)]
    for k, min_size in ((3.0, 1), (20.0, 5)):
        expected = reference_segment(smoothed, k, min_size, connectivity, tile=10)
        np.testing.assert_array_equal(segment(picture, k, min_size, connectivity, tile=10), expected)


@pytest.mark.parametrize(
    ("colour_space", "similarity", "connectivity"),
    [
        ("hsv", "CTSF", 4),
        ("lab", "TSF", 4),
        ("rgi", "F", 4),
        ("hue", "S", 4),
        ("intensity", "CT", 4),
        ("rgb", "CTSF", 8),
        ("intensity", "T", 8),
    ],
)
@pytest.mark.parametrize("seed", [10, 11])
def test_hierarchies_equal_the_reference(seed: int, colour_space: str, similarity: str, connectivity: int) -> None:
    image = small_picture(seed)
    expected = reference_hierarchy(
        convert(image, colour_space), LEVELS.get(colour_space, [256] * 3), 8.0, similarity, connectivity
    )
    found = hierarchies(image, [Strategy(colour_space, 8.0, similarity)], connectivity, threads=1)
    assert len(expected) > 20
    np.testing.assert_array_equal(found[0], expected)
