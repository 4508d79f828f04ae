"""Augmentation: crops have the shares and places of the paper, distortions the hand-computed pixels."""

import cv2
import numpy as np
import pytest

from inception_rcnn.data.augment import (
    CROP_COUNTS,
    centre_crop,
    crop_places,
    crops_at,
    distort_colours,
    random_area_crop,
)

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


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture whose pixels say where they are: x = red + 256 * (blue // 16), y = green + 256 * (blue % 16)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, 16 * (x // 256) + y // 256], axis=-1).astype(np.uint8)


def place_of(pixel: np.ndarray) -> tuple[int, int]:
    red, green, blue = (int(value) for value in pixel)
    return red + 256 * (blue // 16), green + 256 * (blue % 16)


def test_the_ten_crops_lie_in_the_corners_and_the_centre_of_the_picture():
    image, expected = coordinates(256, 256), [(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)]
    crops = crops_at(image, crop_places(10, False))
    assert crops.shape == (10, 224, 224, 3)
    assert [place_of(crop[0, 0]) for crop in crops[::2]] == expected
    assert [place_of(crop[-1, -1]) for crop in crops[::2]] == [(x + 223, y + 223) for x, y in expected]
    np.testing.assert_array_equal(crops[1::2], crops[::2, :, ::-1])
    np.testing.assert_array_equal(crops_at(image, crop_places(1, False))[0], centre_crop(image))


@pytest.mark.parametrize(("height", "width"), [(256, 400), (400, 256), (90, 700), (1, 1)])
def test_the_ten_crops_are_those_of_the_stretched_picture(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    shrinks = min(height, width) > 256
    stretched = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    expected = crops_at(stretched, crop_places(10, False))
    np.testing.assert_array_equal(crops_at(image, crop_places(10, height > width)), expected)
    both = crops_at(image, [*crop_places(144, height > width), *crop_places(10, height > width)])
    np.testing.assert_array_equal(both[144:], expected)
    np.testing.assert_array_equal(both[:144], crops_at(image, crop_places(144, height > width)))


def slow_crops(image: np.ndarray) -> list[np.ndarray]:
    """The 144 crops, each of them made anew from the picture as section 7 of the paper describes it."""
    height, width = image.shape[:2]
    crops = []
    for shorter in (256, 288, 320, 352):
        for square in ("first", "middle", "last"):
            for patch in ("top left", "top right", "bottom left", "bottom right", "centre", "whole"):
                for mirrored in (False, True):
                    w = shorter if width <= height else round(width * (shorter / height))
                    h = shorter if height <= width else round(height * (shorter / width))
                    method = cv2.INTER_AREA if shorter < min(height, width) else cv2.INTER_LINEAR
                    resized = cv2.resize(image, (w, h), interpolation=method)
                    longer = max(w, h)
                    start = {"first": 0, "middle": (longer - shorter) // 2, "last": longer - shorter}[square]
                    cut = resized[:, start : start + shorter] if w > h else resized[start : start + shorter]
                    far, middle = shorter - 224, (shorter - 224) // 2
                    if patch == "whole":
                        crop = cv2.resize(cut, (224, 224), interpolation=cv2.INTER_AREA)
                    elif patch == "centre":
                        crop = cut[middle : middle + 224, middle : middle + 224]
                    else:
                        top = 0 if "top" in patch else far
                        left = 0 if "left" in patch else far
                        crop = cut[top : top + 224, left : left + 224]
                    crops.append(np.fliplr(crop) if mirrored else crop)
    return crops


@pytest.mark.parametrize("shape", [(300, 500), (500, 301), (400, 400), (90, 100), (1, 1), (2, 7)], ids=str)
def test_the_144_crops_equal_a_slow_reference_crop_by_crop(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    places = crop_places(144, shape[0] > shape[1])
    crops, expected = crops_at(image, places), slow_crops(image)
    assert len(set(places)) == len(crops) == len(expected) == 144
    for crop, reference, place in zip(crops, expected, places, strict=True):
        np.testing.assert_array_equal(crop, reference, err_msg=str(place))


def test_the_ten_crops_contain_the_single_crop():
    one, ten, many = (set(crop_places(count, False)) for count in CROP_COUNTS)
    assert one < ten
    assert not ten & many


def test_another_number_of_crops_is_an_error():
    with pytest.raises(ValueError, match="expected one of 1, 10, 144"):
        crop_places(5, False)


@pytest.mark.parametrize("upright", [False, True])
def test_long_pictures_are_cut_before_they_are_resized(upright):
    image = np.repeat(np.arange(20_000)[None] // 100, 2, axis=0).astype(np.uint8)[..., None].repeat(3, axis=2)
    if upright:
        image = np.ascontiguousarray(image.transpose(1, 0, 2))
    places = crop_places(144, upright)
    crops = crops_at(image, places)
    for square, value in enumerate((0, 99, 199)):
        values = np.concatenate([crop for crop, place in zip(crops, places, strict=True) if place.square == square])
        assert abs(int(values.min()) - value) <= 1
        assert abs(int(values.max()) - value) <= 1
