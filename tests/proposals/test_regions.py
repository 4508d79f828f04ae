"""Histograms, boxes and adjacency of superpixels. Each test covers a fault found in other implementations."""

import numpy as np
import pytest

from inception_rcnn.proposals.colour import COLOUR_SPACES, convert, levels
from inception_rcnn.proposals.regions import colour_bin_factors, describe, neighbours, pixel_codes, row_length
from inception_rcnn.proposals.segmentation import smooth_planes, split_channels
from inception_rcnn.proposals.workspace import Workspace


def described(picture: np.ndarray, labels: np.ndarray, colour_space: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the histogram rows, sizes and boxes of labelled regions."""
    height, width, channels = picture.shape
    workspace = Workspace()
    planes = split_channels(picture, workspace)
    smoothed = smooth_planes(planes, workspace)
    codes = np.empty((1 if channels == 1 else 2, height, width), np.uint64)
    lines = np.empty((5 * channels, width), np.uint8)
    gx, gy = np.empty(width, np.float32), np.empty(width, np.float32)
    factors = colour_bin_factors(levels(colour_space))
    pixel_codes(planes, smoothed, gx, gy, lines, factors, codes)
    regions = int(labels.max()) + 1
    counts = np.empty((regions, row_length(channels)), np.int32)
    rows = np.empty((regions, row_length(channels)), np.float32)
    size, box = np.empty(regions, np.int32), np.empty((regions, 4), np.int32)
    describe(labels.astype(np.uint32).reshape(-1), height, width, codes, counts, rows, size, box)
    return rows, size, box


def pairs_of(labels: np.ndarray, diagonal: bool) -> set[tuple[int, int]]:
    height, width = labels.shape
    border, last = np.empty(width, np.uint8), np.empty(4, np.int64)
    table, pairs = np.empty(256, np.int64), np.empty((100, 2), np.int32)
    found = neighbours(labels.astype(np.uint32).reshape(-1), height, width, diagonal, border, last, table, pairs)
    assert len(set(map(tuple, pairs[:found].tolist()))) == found
    return set(map(tuple, pairs[:found].tolist()))


@pytest.mark.parametrize("colour_space", list(COLOUR_SPACES))
def test_every_group_of_bins_counts_every_pixel_once(colour_space: str) -> None:
    rng = np.random.default_rng(3)
    picture = convert(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), colour_space)
    labels = (np.arange(40)[None, :] // 15 + 0 * np.arange(30)[:, None]).astype(int)
    rows, size, _ = described(picture, labels, colour_space)
    channels = picture.shape[2]
    texture, colour = rows[:, : 80 * channels], rows[:, 80 * channels :]
    assert size.tolist() == [450, 450, 300]
    for region in range(3):
        assert (texture[region].reshape(-1, 10).sum(axis=1) == size[region]).all()
        assert (colour[region].reshape(-1, 25).sum(axis=1) == size[region]).all()


@pytest.mark.parametrize("colour_space", ["hsv", "lab", "rgb", "rgi", "hue", "intensity"])
def test_all_colours_spread_over_the_bins(colour_space: str) -> None:
    # A histogram range that differs from the range of hue puts all pixels into one bin, or leaves a third of the bins
    # empty.
    steps = np.linspace(0, 255, 32).astype(np.uint8)
    image = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(128, 256, 3)
    picture = convert(image, colour_space)
    rows, _, _ = described(picture, np.zeros(image.shape[:2], int), colour_space)
    colour = rows[0, 80 * picture.shape[2] :].reshape(-1, 25)
    # The channels a and b of Lab do not use the whole range of a byte.
    assert ((colour > 0).sum(axis=1) >= (18 if colour_space == "lab" else 25)).all()


@pytest.mark.parametrize("count", [180, 256])
def test_colour_bins_are_exact_for_every_value(count: int) -> None:
    values = np.arange(count)
    np.testing.assert_array_equal(values * int(colour_bin_factors([count])[0]) >> 16, values * 25 // count)


def test_a_ramp_has_texture_only_along_its_gradient() -> None:
    # The ramp rises by five grey levels per pixel. Bins have width 2: 5 is in bin 2 at 0 degrees, 5 cos 45° = 3.5 in
    # bin 1 at 45 degrees.
    picture = np.repeat(np.arange(0, 200, 5, dtype=np.uint8)[None, :], 30, axis=0)[:, :, None]
    labels = np.zeros((30, 40), int)
    labels[5:-5, 5:-5] = 1
    rows, size, _ = described(np.ascontiguousarray(picture), labels, "intensity")
    texture = rows[1, :80].reshape(8, 10) / size[1]
    # The orientations are 0, 180, 45, 225, 90, 270, 135 and 315 degrees.
    assert texture.argmax(axis=1).tolist() == [2, 0, 1, 0, 0, 0, 0, 1]
    assert (texture.max(axis=1) == 1).all()


def test_derivatives_approximate_the_gaussian_derivative_at_sigma_1() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    picture = np.random.default_rng(5).integers(0, 256, (60, 60, 1), dtype=np.uint8)
    smoothed = smooth_planes(split_channels(picture, Workspace()), Workspace())[0].astype(float)
    scharr = ndimage.convolve1d(ndimage.convolve1d(smoothed, [0.5, 0, -0.5], axis=1), np.array([3, 10, 3]) / 16, axis=0)
    exact = ndimage.gaussian_filter(picture[:, :, 0].astype(float), 1, order=(0, 1), truncate=6)
    inner = (slice(8, -8), slice(8, -8))
    # The two differ at high frequencies, of which white noise contains far more than photographs.
    assert np.abs(scharr - exact)[inner].mean() < 0.06 * np.abs(exact)[inner].mean()


def test_every_region_has_its_own_size_and_box() -> None:
    labels = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 3, 3]])
    _, size, box = described(np.zeros((3, 4, 1), np.uint8), labels, "intensity")
    assert size.tolist() == [4, 3, 3, 2]
    assert box.tolist() == [[0, 0, 2, 3], [2, 0, 4, 2], [1, 1, 3, 3], [2, 2, 4, 3]]


def test_regions_whose_boxes_overlap_are_neighbours_only_if_their_pixels_touch() -> None:
    # The boxes of regions 0 and 2 overlap, but region 1 separates the regions.
    labels = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 2]])
    assert pairs_of(labels, diagonal=False) == {(0, 1), (1, 2)}


def test_regions_that_share_a_corner_are_neighbours_only_with_connectivity_8() -> None:
    labels = np.array([[0, 1], [2, 3]])
    assert pairs_of(labels, diagonal=False) == {(0, 1), (0, 2), (1, 3), (2, 3)}
    assert pairs_of(labels, diagonal=True) == {(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (1, 2)}


@pytest.mark.parametrize(("slots", "room", "found"), [(64, 200, -1), (1024, 50, -1), (1024, 112, 112)])
def test_a_table_or_list_that_is_too_small_is_reported(slots: int, room: int, found: int) -> None:
    labels = np.arange(64, dtype=np.uint32)
    border, last = np.empty(8, np.uint8), np.empty(4, np.int64)
    table, pairs = np.empty(slots, np.int64), np.empty((room, 2), np.int32)
    assert neighbours(labels, 8, 8, False, border, last, table, pairs) == found
