"""Properties of superpixels. test_hierarchies.py compares them with a reference implementation."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage
from skimage.data import chelsea
from skimage.segmentation import felzenszwalb

from inception_rcnn.proposals import pixel_edges

Segment = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return chelsea()  # [300, 451, 3]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_superpixels_are_connected_numbered_in_raster_order_and_large_enough(
    connectivity: int, photograph: np.ndarray, segment: Segment
) -> None:
    labels = segment(photograph, k=50, min_size=50, connectivity=connectivity)
    names, first = np.unique(labels, return_index=True)
    assert names.tolist() == list(range(len(names)))
    assert (np.diff(first) > 0).all()
    assert np.bincount(labels.ravel()).min() >= 50
    structure = np.ones((3, 3)) if connectivity == 8 else None
    # Bounding boxes keep the connected-component search small.
    parts = zip(names, ndimage.find_objects(labels.astype(int) + 1), strict=True)
    assert all(ndimage.label(labels[box] == name, structure)[1] == 1 for name, box in parts)


def test_scikit_image_finds_about_as_many_superpixels(photograph: np.ndarray, segment: Segment) -> None:
    # skimage does not truncate weights and smooths differently, so only the numbers are comparable.
    expected = felzenszwalb(photograph, scale=200, sigma=0.8, min_size=50).max() + 1
    assert segment(photograph, k=200, min_size=50, connectivity=8).max() + 1 == pytest.approx(expected, rel=0.25)


def test_the_first_row_and_column_have_edges(segment: Segment) -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    image[0, ::2] = image[::2, 0] = 90
    assert segment(image, k=1000, min_size=1).max() == 0


def test_larger_k_gives_fewer_superpixels(photograph: np.ndarray, segment: Segment) -> None:
    counts = [segment(photograph, k=k, min_size=20).max() for k in (25, 50, 100, 200)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[-1]


def test_one_pixel_is_one_superpixel(segment: Segment) -> None:
    assert segment(np.zeros((1, 1, 3), np.uint8), k=100, min_size=100).tolist() == [[0]]


def test_tiles_change_the_number_of_superpixels_only_slightly(
    photograph: np.ndarray, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = segment(photograph, k=100, min_size=50).max()
    monkeypatch.setattr(pixel_edges, "EXACT_PIXELS", 0)
    monkeypatch.setattr(pixel_edges, "TILE", 100)
    tiled = segment(photograph, k=100, min_size=50).max()
    assert tiled != whole
    assert tiled == pytest.approx(whole, rel=0.05)
