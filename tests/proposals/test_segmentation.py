"""Facts about the superpixels; their equality with the algorithm is in test_against_reference.py."""

import numpy as np
import pytest

from inception_rcnn.proposals import pixel_edges
from inception_rcnn.proposals.pixel_edges import KEYS, key_weights
from inception_rcnn.proposals.segmentation import segment


def photograph() -> np.ndarray:
    return pytest.importorskip("skimage.data").chelsea()


def test_sort_keys_stand_for_rising_weights_that_cover_every_difference() -> None:
    weights = key_weights()
    assert weights.shape == (KEYS,)
    assert weights[0] == 0
    assert (np.diff(weights) > 0).all()
    assert weights[-1] > 255 * 3**0.5
    assert np.diff(weights)[1:].max() / weights[-1] < 2**-12
    assert (np.diff(np.log2(weights[1:])) < 2**-11).all()


@pytest.mark.parametrize("connectivity", [4, 8])
def test_superpixels_are_connected_numbered_in_raster_order_and_large_enough(connectivity: int) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = segment(photograph(), k=50, min_size=50, connectivity=connectivity)
    names, first = np.unique(labels, return_index=True)
    assert names.tolist() == list(range(len(names)))
    assert (np.diff(first) > 0).all()
    assert np.bincount(labels.ravel()).min() >= 50
    structure = np.ones((3, 3)) if connectivity == 8 else None
    assert all(ndimage.label(labels == name, structure)[1] == 1 for name in names)


def test_there_are_as_many_as_scikit_image_finds() -> None:
    # skimage cuts weights nowhere and scales k by 1/255; its smoothing differs, so only the number is comparable
    reference = pytest.importorskip("skimage.segmentation").felzenszwalb
    image = photograph()
    expected = reference(image, scale=200, sigma=0.8, min_size=50).max() + 1
    assert segment(image, k=200, min_size=50, connectivity=8).max() + 1 == pytest.approx(expected, rel=0.25)


def test_the_first_row_and_column_have_edges() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    image[0, ::2] = image[::2, 0] = 90
    assert segment(image, k=1000, min_size=1).max() == 0


def test_larger_k_gives_fewer_superpixels() -> None:
    image = photograph()
    counts = [segment(image, k=k, min_size=20).max() for k in (25, 50, 100, 200)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[-1]


def test_one_pixel_is_one_superpixel() -> None:
    assert segment(np.zeros((1, 1, 3), np.uint8)).tolist() == [[0]]


def test_a_picture_in_tiles_has_about_as_many_superpixels_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photograph()
    whole = segment(image, k=100, min_size=50).max()
    monkeypatch.setattr(pixel_edges, "EXACT_PIXELS", 0)
    monkeypatch.setattr(pixel_edges, "TILE", 100)
    tiled = segment(image, k=100, min_size=50).max()
    assert tiled != whole
    assert tiled == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("min_size", [1, 30])
@pytest.mark.parametrize("k", [30, 200, 400])
def test_leaving_out_parallel_edges_changes_no_superpixel(
    k: float, min_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    # many equal weights, and pairs in every direction
    pictures = [rng.integers(0, 3, (90, 120, 3)), rng.integers(0, 256, (60, 70, 3)), rng.integers(0, 20, (80, 50, 3))]
    pictures = [picture.astype(np.uint8) for picture in pictures]
    found = [segment(picture, k, min_size, 8) for picture in pictures]
    dropped = []

    def count(keys: np.ndarray, first: np.ndarray) -> None:
        before = (keys == pixel_edges.NONE).sum()
        kept = keys.copy()
        drop_parallel(kept, first)
        dropped.append((kept == pixel_edges.NONE).sum() - before)

    drop_parallel = pixel_edges.drop_parallel
    monkeypatch.setattr(pixel_edges, "drop_parallel", count)
    for picture, labels in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(segment(picture, k, min_size, 8), labels)
    assert min(dropped) > 0
