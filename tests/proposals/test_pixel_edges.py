"""Sort keys of edges, and the removal of parallel edges."""

from collections.abc import Callable

import numpy as np
import pytest

from inception_rcnn.proposals import pixel_edges
from inception_rcnn.proposals.pixel_edges import KEYS, key_weights


def test_the_weights_of_sort_keys_rise_and_cover_every_difference() -> None:
    weights = key_weights()
    assert weights.shape == (KEYS,)
    assert weights[0] == 0
    assert (np.diff(weights) > 0).all()
    assert weights[-1] > 255 * 3**0.5
    assert np.diff(weights)[1:].max() / weights[-1] < 2**-12
    assert (np.diff(np.log2(weights[1:])) < 2**-11).all()


@pytest.mark.parametrize("min_size", [1, 30])
@pytest.mark.parametrize("k", [30, 200, 400])
def test_removing_parallel_edges_changes_no_superpixel(
    k: float, min_size: int, segment: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    # Images with many equal weights and with pairs in every direction.
    pictures = [rng.integers(0, 3, (90, 120, 3)), rng.integers(0, 256, (60, 70, 3)), rng.integers(0, 20, (80, 50, 3))]
    pictures = [picture.astype(np.uint8) for picture in pictures]
    found = [segment(picture, k, min_size, 8) for picture in pictures]
    removed = []

    def count_removed_but_keep_all(keys: np.ndarray, first: np.ndarray) -> None:
        before = (keys == pixel_edges.NO_EDGE).sum()
        copied = keys.copy()
        drop_parallel(copied, first)
        removed.append((copied == pixel_edges.NO_EDGE).sum() - before)

    drop_parallel = pixel_edges.drop_parallel
    monkeypatch.setattr(pixel_edges, "drop_parallel", count_removed_but_keep_all)
    for picture, labels in zip(pictures, found, strict=True):
        np.testing.assert_array_equal(segment(picture, k, min_size, 8), labels)
    assert min(removed) > 0
