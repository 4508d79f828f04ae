"""Colour conversion of single pixels with known values."""

import numpy as np
import pytest

from inception_rcnn.proposals.colour import COLOUR_SPACES, convert, levels


@pytest.mark.parametrize(
    ("colour_space", "rgb", "expected"),
    [
        ("hsv", (0, 255, 0), [60, 255, 255]),  # hue 120 degrees in steps of two
        ("hsv", (100, 50, 50), [0, 128, 100]),  # saturation (100 - 50) / 100
        ("hue", (0, 0, 255), [120]),
        ("lab", (255, 255, 255), [255, 128, 128]),  # L = 100 is scaled to 255, a = b = 0 is shifted to 128
        ("intensity", (255, 0, 0), [76]),  # 0.299 * 255
        ("rgi", (90, 60, 30), [127, 85, 60]),  # 255 * 90 / 180, 255 * 60 / 180, 180 / 3
        ("rgi", (0, 0, 0), [0, 0, 0]),
        ("rgb", (1, 2, 3), [1, 2, 3]),
    ],
)
def test_a_pixel_has_its_known_value(colour_space: str, rgb: tuple[int, int, int], expected: list[int]) -> None:
    assert convert(np.array([[rgb]], np.uint8), colour_space).tolist() == [[expected]]


@pytest.mark.parametrize("colour_space", list(COLOUR_SPACES))
def test_every_value_is_below_the_number_of_levels(colour_space: str) -> None:
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    image = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3)
    converted = convert(image, colour_space)
    assert (converted.reshape(-1, converted.shape[2]) < levels(colour_space)).all()
    assert converted.flags.c_contiguous
