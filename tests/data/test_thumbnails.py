"""Thumbnails are small upright JPEG files of any picture that the program reads."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.images import ImageError, read_image, read_reduced
from inception_rcnn.data.thumbnails import data_url, thumbnail


@pytest.mark.parametrize(
    ("size", "small"),
    [((1600, 800), (320, 160)), ((300, 900), (107, 320)), ((20, 10), (20, 10)), ((5000, 1), (320, 1))],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_longer_side_has_at_most_320_pixels(
    size: tuple[int, int], small: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    Image.new("RGB", size, (200, 30, 30)).save(tmp_path / f"a.{suffix}")
    with Image.open(BytesIO(thumbnail(tmp_path / f"a.{suffix}"))) as picture:
        assert (picture.format, picture.size) == ("JPEG", small)
        assert np.abs(np.asarray(picture, int) - (200, 30, 30)).max() < 8


def test_a_rotated_picture_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.new("RGB", (4000, 2000)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(BytesIO(thumbnail(tmp_path / "a.jpg"))) as picture:
        assert picture.size == (160, 320)


def test_a_large_jpeg_is_read_at_a_part_of_its_size(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 2000).astype(np.uint8)[None], 1000, axis=0)
    Image.fromarray(np.stack([ramp] * 3, axis=2)).save(tmp_path / "a.jpg", quality=95)
    reduced = read_reduced(tmp_path / "a.jpg", 320)
    assert reduced.shape == (500, 1000, 3)
    full = read_image(tmp_path / "a.jpg")
    assert np.abs(reduced.astype(int) - full[::2, ::2]).max() < 4
    assert read_reduced(tmp_path / "a.jpg", 1001).shape == full.shape


def test_the_data_url_contains_the_file(tmp_path: Path) -> None:
    head, _, content = data_url(b"content").partition(",")
    assert (head, base64.b64decode(content)) == ("data:image/jpeg;base64", b"content")


def test_a_file_that_is_no_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(ImageError, match="not a JPEG"):
        thumbnail(tmp_path / "a.jpg")
