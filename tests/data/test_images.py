"""Picture files of all formats are read with the expected pixels; damaged files raise an ImageError."""

from __future__ import annotations

import os
import struct
import sys
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageOps

from inception_rcnn.data import images
from inception_rcnn.data.images import ImageError, read_image, read_size, to_rgb

Pixels = npt.NDArray[np.uint8]

# 32 x 48 pixels in six uniform 16 x 16 blocks. JPEG compresses such blocks separately, so they change only slightly.
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [40, 80, 120], [250, 250, 250]]], np.uint8)
BLOCKS: Pixels = COLOURS.repeat(16, axis=0).repeat(16, axis=1)
MIDDLES = (slice(8, None, 16), slice(8, None, 16))


def save(path: Path, picture: Image.Image | npt.NDArray[Any], **options: Any) -> Path:
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(path, **options)
    return path


def png(path: Path, depth: int, colour_type: int, rows: list[list[int]], width: int, transparent: bytes = b"") -> Path:
    """Writes a PNG of any kind, because Pillow cannot write 16-bit colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + struct.pack(f">{len(row)}{'H' if depth == 16 else 'B'}", *row) for row in rows)
    extra = chunk(b"tRNS", transparent) if transparent else b""
    data = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def assert_valid(pixels: Pixels) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


LOSSLESS: dict[str, dict[str, Any]] = {
    "a.png": {},
    "a.bmp": {},
    "a.webp": {"lossless": True},
    "a.tif": {},
    "deflate.tiff": {"compression": "tiff_deflate"},
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_are_read_exactly(tmp_path: Path, name: str) -> None:
    pixels = read_image(save(tmp_path / name, BLOCKS, **LOSSLESS[name]))
    assert_valid(pixels)
    assert np.array_equal(pixels, BLOCKS)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {}), ("a.JPEG", {"progressive": True}), ("b.jpg", {"subsampling": 2}), ("a.webp", {"quality": 90})],
)
def test_lossy_files_are_read_with_small_errors(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    pixels = read_image(str(save(tmp_path / name, BLOCKS, **options)))
    assert_valid(pixels)
    assert np.abs(pixels[MIDDLES].astype(int) - COLOURS).max() <= 8


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.tif", "a.gif"])
def test_a_picture_may_have_a_single_pixel(tmp_path: Path, name: str) -> None:
    pixels = read_image(save(tmp_path / name, np.full((1, 1, 3), 255, np.uint8)))
    assert_valid(pixels)
    assert pixels.tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.gif", "a.jpg"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, name: str) -> None:
    grey = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    pixels = read_image(save(tmp_path / name, grey, **({"quality": 100} if name == "a.jpg" else {})))
    assert_valid(pixels)
    assert (pixels == pixels[:, :, :1]).all()
    assert np.abs(pixels[:, :, 0].astype(int) - grey).max() <= (2 if name == "a.jpg" else 0)


def test_bilevel_pictures_are_read(tmp_path: Path) -> None:
    bits = np.array([[True, False], [False, True]])
    pixels = read_image(save(tmp_path / "a.tif", Image.fromarray(bits), compression="group4"))
    assert pixels[:, :, 1].tolist() == [[255, 0], [0, 255]]


def test_palette_colours_are_read(tmp_path: Path) -> None:
    for name in ("a.png", "a.gif", "a.bmp"):
        assert np.array_equal(read_image(save(tmp_path / name, Image.fromarray(BLOCKS).quantize(8))), BLOCKS), name


# (R, G, B, alpha) and the colour after blending with white
BLENDED = [((255, 0, 0, 255), (255, 0, 0)), ((0, 0, 0, 0), (255, 255, 255)), ((0, 100, 200, 51), (204, 224, 244))]


@pytest.mark.parametrize(
    ("name", "options"), [("a.png", {}), ("a.tif", {}), ("a.webp", {"lossless": True, "exact": True})]
)
def test_colour_with_alpha_is_blended_with_white(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    rgba = np.array([[pixel for pixel, _ in BLENDED]], np.uint8)
    pixels = read_image(save(tmp_path / name, rgba, **options))
    assert_valid(pixels)
    assert pixels[0].tolist() == [list(expected) for _, expected in BLENDED]


def test_grey_with_alpha_is_blended_with_white(tmp_path: Path) -> None:
    la = np.array([[[0, 255], [0, 0], [100, 51]]], np.uint8)
    assert read_image(save(tmp_path / "a.png", Image.fromarray(la, "LA")))[0, :, 0].tolist() == [0, 255, 224]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_the_transparent_colour_of_a_palette_is_white(tmp_path: Path, name: str) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    pixels = read_image(save(tmp_path / name, picture, transparency=1))
    assert pixels[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


def test_the_transparent_colour_of_a_picture_without_palette_is_white(tmp_path: Path) -> None:
    grey = png(tmp_path / "grey.png", 8, 0, [[5, 9]], 2, struct.pack(">H", 5))
    assert read_image(grey)[0].tolist() == [[255] * 3, [9] * 3]
    colour = png(tmp_path / "colour.png", 8, 2, [[1, 2, 3, 4, 5, 6]], 2, struct.pack(">HHH", 1, 2, 3))
    assert read_image(colour)[0].tolist() == [[255] * 3, [4, 5, 6]]
    wide = png(tmp_path / "wide.png", 16, 0, [[5, 65535 // 5]], 2, struct.pack(">H", 5))
    assert read_image(wide)[0].tolist() == [[255] * 3, [51] * 3]


SIXTEEN = [0, 128, 129, 255, 257, 1000, 4095, 32768, 65406, 65535]
EIGHT = [round(value * 255 / 65535) for value in SIXTEEN]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path: Path, name: str) -> None:
    pixels = read_image(save(tmp_path / name, np.array([SIXTEEN], np.uint16)))
    assert_valid(pixels)
    assert pixels[0, :, 1].tolist() == EIGHT


def test_big_endian_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    picture = Image.frombytes("I;16B", (len(SIXTEEN), 1), np.array(SIXTEEN, ">u2").tobytes())
    assert read_image(save(tmp_path / "a.tif", picture))[0, :, 0].tolist() == EIGHT


def test_16_bit_colour_is_scaled_within_one_level(tmp_path: Path) -> None:
    row = [channel for value in SIXTEEN for channel in (value, 65535 - value, 0)]
    pixels = read_image(png(tmp_path / "a.png", 16, 2, [row], len(SIXTEEN))).astype(int)
    assert np.abs(pixels[0, :, 0] - EIGHT).max() <= 1
    assert np.abs(pixels[0, :, 1] - (255 - np.array(EIGHT))).max() <= 1
    assert (pixels[0, :, 2] == 0).all()


def test_16_bit_pictures_with_alpha_are_blended_with_white(tmp_path: Path) -> None:
    grey = read_image(png(tmp_path / "la.png", 16, 4, [[0, 65535, 0, 0, 25700, 13107]], 3))
    assert grey[0, :, 2].tolist() == [0, 255, 224]
    colour = read_image(png(tmp_path / "rgba.png", 16, 6, [[0, 25700, 51400, 13107, 1, 2, 3, 0]], 2))
    assert colour[0].tolist() == [[204, 224, 244], [255, 255, 255]]


def test_pixels_without_a_defined_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="32-bit float pixels have no defined range"):
        read_image(save(tmp_path / "float.tif", np.ones((2, 2), np.float32)))
    tifffile.imwrite(tmp_path / "integer.tif", np.ones((2, 2), np.uint32))
    with pytest.raises(ImageError, match="32-bit integer pixels have no defined range"):
        read_image(tmp_path / "integer.tif")
    for kind in (np.int8, np.int16, np.int32):
        tifffile.imwrite(tmp_path / "signed.tif", np.full((2, 2), -5, kind))
        with pytest.raises(ImageError, match="signed pixels have no defined range"):
            read_image(tmp_path / "signed.tif")


@pytest.mark.parametrize(("bits", "byteorder"), [(16, "<"), (16, ">"), (8, "<")])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_tiff_forms_of_colour_are_right_or_refused(
    tmp_path: Path, bits: int, byteorder: Any, planar: bool, compression: str | None
) -> None:
    colour = np.random.default_rng(0).integers(0, 2**bits, (5, 6, 3)).astype(f"u{bits // 8}")
    stored = colour.transpose(2, 0, 1) if planar else colour
    form = "separate" if planar else "contig"
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=form, compression=compression, byteorder=byteorder
    )
    if bits == 16 and planar and compression is None:  # Pillow would return other colours
        assert "16-bit TIFF with separate planes" in failure(tmp_path / "a.tif")
        with pytest.raises(ImageError, match="16-bit TIFF with separate planes"):
            read_size(tmp_path / "a.tif")
        return
    difference = read_image(tmp_path / "a.tif").astype(float) - colour * (255 / (2**bits - 1))
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_whose_zero_is_white_is_not_a_negative(tmp_path: Path, bits: int) -> None:
    grey = np.array([[0, 1, 2**bits - 2, 2**bits - 1]], f"u{bits // 8}")
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="miniswhite")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 254 if bits == 8 else 255, bits == 8, 0]


def test_12_bit_grey_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((1, 2), np.uint16), photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["BitsPerSample"].overwrite(12)
        (offset,) = file.pages[0].dataoffsets
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + 3] = b"\xff\xf8\x00"  # 4095 and 2048
    (tmp_path / "a.tif").write_bytes(content)
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 128]


def test_pictures_are_converted_strip_by_strip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [
        Image.fromarray(BLOCKS),
        Image.fromarray(BLOCKS).quantize(8),
        Image.fromarray(BLOCKS).convert("L"),
        Image.fromarray(np.dstack([BLOCKS, BLOCKS[:, :, 0]])),
        Image.fromarray(BLOCKS[:, :, 0].astype(np.uint16) * 257),
    ]
    for number, picture in enumerate(pictures):
        path = save(tmp_path / f"{number}.png", picture, **({"transparency": 2} if picture.mode == "P" else {}))
        whole = read_image(path)
        with monkeypatch.context() as patch:
            patch.setattr(images, "_STRIP", 100)
            assert np.array_equal(read_image(path), whole)


def test_too_little_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", BLOCKS)
    for error in (MemoryError(), OSError("out of memory error when reading image file")):
        with monkeypatch.context() as patch:
            patch.setattr(images, "_to_rgb", Mock(side_effect=error))
            assert failure(path).startswith("not enough memory to read this picture")


def test_avif_pictures_are_read(tmp_path: Path) -> None:
    if "AVIF" not in Image.SAVE:
        pytest.skip("requires Pillow with AVIF")
    path = save(tmp_path / "a.avif", BLOCKS, quality=95)
    assert np.abs(read_image(path)[MIDDLES].astype(int) - COLOURS).max() <= 12
    assert read_size(path) == (48, 32)


def test_the_error_for_avif_without_a_decoder_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(99))
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    assert failure(tmp_path / "a.avif").startswith("an AVIF picture: install Pillow 11.3")


@pytest.mark.parametrize("brand", ["heic", "heix", "mif1", "hevc"])
def test_the_error_for_heic_without_a_decoder_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brand: str
) -> None:
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftyp" + brand.encode() + b"\0\0\0\0mif1heic" + bytes(99))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert "pip install inception-rcnn[heic]" in failure(tmp_path / "a.HEIC")


def test_raw_files_are_not_read_as_their_preview(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", BLOCKS)
    assert "raw files of cameras" in failure(path.rename(path.with_suffix(".CR2")))
    tifffile.imwrite(tmp_path / "b.tif", BLOCKS, photometric="rgb", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    assert "raw files of cameras" in failure(tmp_path / "b.tif")
    (tmp_path / "c.jp2").write_bytes(b"\0\0\0\x0cjP  " + bytes(99))
    assert "JPEG 2000" in failure(tmp_path / "c.jp2")
    assert np.array_equal(read_image(save(tmp_path / "d.nef", BLOCKS, format="PNG")), BLOCKS)


def cmyk_blocks() -> Image.Image:
    """Returns BLOCKS in CMYK with the maximal black component. RGB is (1 - ink) (1 - black)."""
    blocks = BLOCKS.astype(int)
    light = blocks.max(axis=2, keepdims=True)
    inks = np.concatenate([255 - blocks * 255 // light, 255 - light], axis=2)
    return Image.fromarray(inks.astype(np.uint8), "CMYK")


def test_cmyk_tiff_files_are_read(tmp_path: Path) -> None:
    assert np.array_equal(read_image(save(tmp_path / "a.tif", cmyk_blocks())), BLOCKS)


def test_cmyk_jpeg_files_of_adobe_are_inverted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", cmyk_blocks(), quality=95)
    assert b"Adobe" in path.read_bytes()[:200]
    pixels = read_image(path)
    assert_valid(pixels)
    assert np.abs(pixels[MIDDLES].astype(int) - COLOURS).max() <= 8


def test_ycck_jpeg_files_of_photoshop_are_read(tmp_path: Path) -> None:
    # The Y, Cb and Cr of red encode full cyan without magenta and yellow; 255 encodes no black.
    stored = np.array([[[76, 85, 255, 255]]], np.uint8).repeat(16, 0).repeat(16, 1)
    path = save(tmp_path / "a.jpg", Image.fromarray(255 - stored, "CMYK"), quality=100)
    data = path.read_bytes()
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    path.write_bytes(data[:transform] + b"\2" + data[transform + 1 :])
    assert read_image(path)[8, 8].tolist() == [1, 255, 255]


CAMERA = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3  # all pixels differ


def save_with_orientation(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if path.suffix == ".jpg":
        return save(path, np.kron(CAMERA, np.ones((16, 16, 1), np.uint8)), exif=exif, quality=95)
    return save(path, CAMERA, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_the_exif_orientation_is_applied_once(tmp_path: Path, name: str, orientation: int) -> None:
    path = save_with_orientation(tmp_path / name, orientation)
    stored = Image.fromarray(CAMERA)
    stored.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    pixels = read_image(path)
    assert read_size(path) == pixels.shape[1::-1]
    assert_valid(pixels)
    if name == "a.jpg":
        assert np.abs(pixels[8::16, 8::16].astype(int) - upright).max() <= 8
    else:
        assert np.array_equal(pixels, upright)


def test_orientation_6_rotates_the_picture_clockwise(tmp_path: Path) -> None:
    pixels = read_image(save_with_orientation(tmp_path / "a.png", 6))
    assert pixels.shape == (6, 4, 3)
    assert pixels[0, -1].tolist() == CAMERA[0, 0].tolist()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_pictures_with_damaged_exif_data_are_read(tmp_path: Path, exif: bytes) -> None:
    assert read_image(save(tmp_path / "a.jpg", BLOCKS, exif=exif)).shape == BLOCKS.shape


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_undefined_orientations_change_nothing(tmp_path: Path, orientation: int) -> None:
    assert np.array_equal(read_image(save_with_orientation(tmp_path / "a.png", orientation)), CAMERA)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif", "a.mpo"])
def test_the_first_picture_of_a_file_is_read(tmp_path: Path, name: str) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    path = tmp_path / name
    options: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
    first.save(path, save_all=True, append_images=[second], **options)
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) == 2
    assert np.abs(read_image(path)[8, 8].astype(int) - (255, 0, 0)).max() <= 2


def test_the_format_is_recognised_by_content_and_not_by_suffix(tmp_path: Path) -> None:
    path = save(tmp_path / "n02105855_2933.png", BLOCKS)
    assert np.array_equal(read_image(path.rename(path.with_suffix(".JPEG"))), BLOCKS)
    assert np.array_equal(read_image(save(tmp_path / "none", BLOCKS, format="BMP")), BLOCKS)


def test_paths_may_contain_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    folder = tmp_path / "Schöne Fotos 日本"
    folder.mkdir()
    assert np.array_equal(read_image(save(folder / "кот № 1.png", BLOCKS)), BLOCKS)


def failure(path: Path, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path, **options)
    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert str(path) not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif", "a.gif"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / name, noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    assert "damaged" in failure(path)


@pytest.mark.parametrize(
    "data", [b"not a picture at all, just text\n", b"\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\0" * 5000]
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(data)
    assert failure(path) == "not a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC picture, or damaged"


def test_postscript_is_refused(tmp_path: Path) -> None:
    assert "not a JPEG" in failure(save(tmp_path / "a.jpg", BLOCKS, format="EPS"))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert failure(tmp_path / "a.jpg") == "the file is empty (0 bytes)"


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert failure(tmp_path / "nowhere.jpg") == os.strerror(2)
    assert failure(tmp_path) == "a folder, not a file"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert failure(tmp_path / "a.jpg") == "not a regular file"


def test_max_pixels_is_the_largest_number_of_pixels_that_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", BLOCKS)
    assert read_image(path, max_pixels=32 * 48).shape == (32, 48, 3)
    reason = failure(path, max_pixels=32 * 48 - 1)
    assert "48 x 32 = 1,536 pixels, more than the limit of 1,535" in reason
    assert "--max-pixels" in reason


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [15_000, 60_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = png(tmp_path / "bomb.png", 8, 0, [[0]], side)
    data = bytearray(path.read_bytes())
    data[20:24] = struct.pack(">I", side)  # the height; the checksum of the header follows
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    assert "--max-pixels" in failure(path)


def test_the_limit_can_exceed_the_limit_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow warns above this number of pixels and refuses pictures above twice the number.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = save(tmp_path / "a.png", BLOCKS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path, max_pixels=2000).shape == BLOCKS.shape


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif", "a.gif"])
def test_damaged_files_give_a_picture_or_an_image_error(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    intact = save(tmp_path / name, BLOCKS).read_bytes()
    damaged_path = tmp_path / f"damaged-{name}"
    refused = 0
    for _ in range(150):
        data = np.frombuffer(intact, np.uint8).copy()
        places = rng.integers(0, min(len(data), 400), rng.integers(1, 8))
        data[places] = rng.integers(0, 256, len(places))
        damaged_path.write_bytes(data.tobytes()[: rng.integers(len(data) // 2, len(data) + 1)])
        try:
            assert_valid(read_image(damaged_path, max_pixels=1_000_000))
        except ImageError:
            refused += 1
    assert refused > 0


def test_photographs_are_read_as_by_pillow(shared: Path) -> None:
    paths = sorted((shared / "data" / "imagenet-samples").glob("*.JPEG"))[::20]
    assert len(paths) == 20
    for path in paths:
        with Image.open(path) as picture:
            assert np.array_equal(read_image(path), np.asarray(ImageOps.exif_transpose(picture).convert("RGB")))


def test_a_url_is_read_like_a_file(bucket: str, tmp_path: Path) -> None:
    assert np.array_equal(read_image(f"{bucket}/red.png"), np.full((2, 3, 3), (255, 0, 0)))
    path = save(tmp_path / "a.png", BLOCKS)
    assert np.array_equal(read_image(path.as_uri()), BLOCKS)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/nowhere.png", "No such file"),
        ("/b.png", "0 bytes"),
        ("/a.JPG", "not a JPEG"),
        ("/red.png", "more than the limit"),
    ],
)
def test_the_error_for_a_url_names_the_url(bucket: str, name: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(bucket + name, max_pixels=5)
    assert caught.value.path == bucket + name


def test_an_unknown_protocol_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        read_image("gopher://host/a.png")


@pytest.mark.parametrize("name", ["RGB", "L", "RGBA", "CMYK", "P"])
def test_a_picture_in_memory_is_converted_like_its_file(tmp_path: Path, name: str) -> None:
    picture = Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)).convert(name)
    file = tmp_path / "a.tif"
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(file, exif=exif)
    with Image.open(BytesIO(file.read_bytes())) as opened:  # from a path, Pillow 13 reads turned TIFF files wrongly
        np.testing.assert_array_equal(to_rgb(opened), read_image(file))
    with file.open("rb") as stream:
        np.testing.assert_array_equal(read_image(stream), read_image(file))


def test_arrays_become_rgb() -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    assert to_rgb(image) is image
    mirrored = to_rgb(image[:, ::-1])
    assert mirrored.flags.c_contiguous
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    for grey in (image[:, :, 0], image[:, :, :1]):
        np.testing.assert_array_equal(to_rgb(grey), np.repeat(image[:, :, :1], 3, axis=2))
    alpha = np.concatenate([image, np.full((4, 6, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(to_rgb(alpha), image)
    alpha[:, :, 3] = 0
    assert (to_rgb(alpha) == 255).all()


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 6, 3), np.float32), r"expected uint8 RGB \[H, W, 3\] or a PIL picture, got ndarray of float32"),
        (np.zeros((4, 6, 2), np.uint8), r"got ndarray of uint8 \[4, 6, 2\]"),
        (np.zeros((1, 4, 6, 3), np.uint8), r"\[1, 4, 6, 3\]"),
        (np.zeros((0, 6, 3), np.uint8), "no pixels"),
        (None, "got NoneType"),
        ("text", "got str"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(picture: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        to_rgb(picture)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_an_upload_that_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(ImageError, match="picture: "):
        read_image(BytesIO(content))
