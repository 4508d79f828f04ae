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


def where_it_came_from(crop: np.ndarray) -> tuple[float, float, float, float]:
    """The patch of `RAMP` that a crop shows, (x1, y1, x2, y2): red rises with x, green with y."""
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
        x1, y1, x2, y2 = where_it_came_from(crop)
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


def test_the_centre_crop_is_the_middle_at_256_pixels():
    image = np.zeros((256, 400, 3), np.uint8)
    image[16:240, 88:312] = 200
    assert (centre_crop(image) == 200).all()
