import numpy as np

from inception_rcnn.data.augment import distort_colours

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def test_distortion_changes_colours_and_nothing_else():
    before = IMAGE.copy()
    distorted = distort_colours(IMAGE, np.random.default_rng(1))
    assert (distorted.dtype, distorted.shape) == (np.uint8, IMAGE.shape)
    assert not np.array_equal(distorted, IMAGE)
    np.testing.assert_array_equal(IMAGE, before)


def test_the_same_seed_distorts_the_same_way():
    a, b = (distort_colours(IMAGE, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_no_strength_is_no_change():
    assert np.abs(distort_colours(IMAGE, np.random.default_rng(0), strength=0).astype(int) - IMAGE).max() <= 1


def test_grey_stays_grey():
    grey = np.repeat(IMAGE[..., :1], 3, axis=2)
    distorted = distort_colours(grey, np.random.default_rng(3)).astype(int)
    assert np.ptp(distorted, axis=2).max() <= 1


def test_means_stay_within_the_strength():
    for seed in range(20):
        mean = distort_colours(IMAGE, np.random.default_rng(seed)).mean()
        assert 0.75 * IMAGE.mean() < mean < 1.25 * IMAGE.mean()
