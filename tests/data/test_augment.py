"""Augmentation: crops have the shares of the paper, distortions the hand-computed pixels."""

import numpy as np
import pytest

from inception_rcnn.data.augment import centre_crop, distort_colours, random_area_crop

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


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        # grey values of the two pixels: 0.299 * 100 + 0.587 * 50 + 0.114 * 150 = 76.35, and 10; their mean is 43.175
        ((1, 1, 1), [[100, 50, 150], [10, 10, 10]]),
        ((1.2, 1, 1), [[120, 60, 180], [12, 12, 12]]),
        ((2, 1, 1), [[200, 100, 255], [20, 20, 20]]),
        ((1, 0.5, 1), [[72, 47, 97], [27, 27, 27]]),  # halfway to 43.175
        ((1, 1, 0), [[76, 76, 76], [10, 10, 10]]),
        ((2, 0.5, 0), [[120, 120, 120], [53, 53, 53]]),  # grey values 152.7 and 20, halfway to their mean 86.35
    ],
)
def test_brightness_contrast_and_saturation_give_hand_computed_pixels(factors, expected):
    class FixedFactors:
        def uniform(self, low: float, high: float, count: int) -> np.ndarray:
            return np.array(factors)

    image = np.array([[[100, 50, 150], [10, 10, 10]]], np.uint8)
    assert distort_colours(image, FixedFactors())[0].tolist() == expected


def test_strength_zero_changes_nothing():
    assert np.abs(distort_colours(IMAGE, np.random.default_rng(0), strength=0).astype(int) - IMAGE).max() <= 1


def test_grey_pixels_stay_grey():
    grey = np.repeat(IMAGE[..., :1], 3, axis=2)
    distorted = distort_colours(grey, np.random.default_rng(3)).astype(int)
    assert np.ptp(distorted, axis=2).max() <= 1


def test_the_mean_changes_at_most_by_the_strength():
    for seed in range(20):
        mean = distort_colours(IMAGE, np.random.default_rng(seed)).mean()
        assert 0.75 * IMAGE.mean() < mean < 1.25 * IMAGE.mean()


def source_patch(crop: np.ndarray) -> tuple[float, float, float, float]:
    """Returns the patch (x1, y1, x2, y2) of `RAMP` in a crop. The red value is x, the green value is y."""
    red, green = crop[..., 0].astype(float), crop[..., 1].astype(float)
    x1, x2 = sorted((red[:, 0].mean(), red[:, -1].mean()))
    y1, y2 = green[0].mean(), green[-1].mean()
    return x1, y1, x2 + 1, y2 + 1


RAMP = np.zeros((200, 250, 3), np.uint8)
RAMP[..., 0] = np.arange(250)
RAMP[..., 1] = np.arange(200)[:, None]


def test_random_crops_have_8_to_100_percent_of_the_area_and_aspects_from_3_4_to_4_3():
    shares, aspects, mirrored = [], [], 0
    for seed in range(300):
        crop = random_area_crop(RAMP, np.random.default_rng(seed))
        assert (crop.shape, crop.dtype) == ((224, 224, 3), np.uint8)
        x1, y1, x2, y2 = source_patch(crop)
        shares.append((x2 - x1) * (y2 - y1) / (250 * 200))
        aspects.append((x2 - x1) / (y2 - y1))
        mirrored += crop[0, 0, 0] > crop[0, -1, 0]
    assert 0.07 < min(shares) < 0.12
    assert 0.8 < max(shares) <= 1.01
    assert 0.72 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.38
    assert 100 < mirrored < 200


def test_random_crops_are_a_function_of_the_seed_and_leave_the_picture_alone():
    before = RAMP.copy()
    a, b, c = (random_area_crop(RAMP, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    np.testing.assert_array_equal(RAMP, before)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (30, 30)])
def test_pictures_of_any_shape_can_be_cropped(shape):
    image = np.full((*shape, 3), 7, np.uint8)
    assert (random_area_crop(image, np.random.default_rng(0)) == 7).all()
    assert centre_crop(image).shape == (224, 224, 3)


def test_the_centre_crop_removes_equal_borders():
    image = np.zeros((256, 400, 3), np.uint8)
    image[16:240, 88:312] = 200
    assert (centre_crop(image) == 200).all()
