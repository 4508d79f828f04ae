"""Reads picture files as upright 8-bit RGB arrays.

The format (JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC) is recognised by the content of the file, not by its name.
The reader refuses all other formats of Pillow, because decoders such as PostScript are unsafe for untrusted files. AVIF
needs Pillow 11.3 or later; HEIC needs pillow-heif, which the extra `heic` installs.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..runtime.remote import is_url, read_remote

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif"}
)
"""Lower-case suffixes of the pictures that `read_image` reads."""

UNREADABLE_SUFFIXES: frozenset[str] = frozenset(
    {".dng", ".cr2", ".cr3", ".crw", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".jp2", ".j2k", ".jxl"}
)
"""Lower-case suffixes of pictures that `read_image` refuses: raw files of cameras, JPEG 2000 and JPEG XL."""

MAX_PIXELS = 178_956_970  # above this number Pillow raises a DecompressionBombError by default

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
# Tags of TIFF 6.0 and of DNG.
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _PLANAR_CONFIGURATION = 258, 259, 262, 284
_SAMPLE_FORMAT, _DNG_VERSION = 339, 50706
_EXIF_ORIENTATION = 0x0112
_TRANSPOSING = (5, 6, 7, 8)  # orientations that exchange width and height

_STRIP = 2**20  # pixels that are converted at once, which limits the memory beside the decoded picture

_Pixels = npt.NDArray[np.uint8]


def without_suffix(name: str) -> str:
    """Returns the name of a picture, with or without folders, without its picture suffix.

    Other suffixes stay: "frame.0001" and "frame.0002" are different pictures.
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name


class ImageError(ValueError):
    """A file cannot be read as a picture.

    Attributes:
        path: the file, or its URL.
        reason: the cause, without the name of the file.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_image(source: str | Path | BinaryIO, max_pixels: int = MAX_PIXELS) -> _Pixels:
    """Reads a picture file as upright 8-bit RGB.

    - The EXIF orientation is applied.
    - Transparent pixels are blended with white.
    - The first picture of an animation or a multi-page file is read.
    - 16-bit values are scaled by 255 / 65535; colour values may differ from this by one level.
    - CMYK is converted without a colour profile. CMYK values in JPEG files are assumed to be inverted, as Adobe writes
      them and as browsers read them.

    Args:
        source: the file, a URL that fsspec reads ("s3://bucket/a.jpg"), or an open binary file, such as an upload.
        max_pixels: pictures with more pixels are refused before they are decoded.

    Returns:
        uint8 [H, W, 3], C-contiguous, writeable.

    Raises:
        ImageError: the file does not exist, is not a picture, is truncated, damaged or too large, its pixels have no
            defined range (32-bit float or integer), its decoder is not installed, or memory runs out.
    """
    return _read(source, max_pixels, None)


def read_reduced(source: str | Path, side: int, max_pixels: int = MAX_PIXELS) -> _Pixels:
    """Reads a picture like `read_image`, but large JPEG files at a half, a quarter or an eighth of their size.

    A large photograph is then read several times faster.

    Args:
        source, max_pixels: see `read_image`.
        side: the longer side of the result has at least twice this number of pixels, if the picture has as many.

    Returns, Raises: see `read_image`.
    """
    return _read(source, max_pixels, 2 * side)


def _read(source: str | Path | BinaryIO, max_pixels: int, least_side: int | None) -> _Pixels:
    path = source if not isinstance(source, str | Path) or is_url(source) else Path(source)
    # Pillow has its own limit for the whole process. A `max_pixels` above this limit increases it.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    with _opened(path, max_pixels) as picture:
        if least_side is not None:
            scale = least_side / max(picture.size)
            width, height = picture.size
            picture.draft(None, (math.ceil(width * scale), math.ceil(height * scale)))
        picture.load()
        return _apply_orientation(_to_rgb(picture, _name(path)), _orientation(picture))


def to_rgb(picture: np.ndarray | Image.Image) -> _Pixels:
    """Converts a picture in memory to upright 8-bit RGB, as `read_image` converts a file.

    Args:
        picture: a PIL picture; or an array, uint8: RGB [H, W, 3] (returned as it is if it is C-contiguous), RGB and
            alpha [H, W, 4], or grey [H, W] or [H, W, 1]. OpenCV's arrays are BGR: give `frame[:, :, ::-1]`.

    Returns:
        uint8 [H, W, 3], C-contiguous.

    Raises:
        ImageError: the picture has no pixels, its pixels have another type or shape, or its file is damaged.
    """
    if isinstance(picture, Image.Image):
        name = getattr(picture, "filename", "") or "picture"
        with _as_image_errors(name):
            picture.load()
            if picture.format == "TIFF":
                _check_tiff(picture, name)
            return _apply_orientation(_to_rgb(picture, name), _orientation(picture))
    pixels = np.asarray(picture)
    shape = pixels.shape
    if pixels.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,), (4,)):
        got = f"{type(picture).__name__} of {pixels.dtype} {list(shape)}"
        raise ImageError("picture", f"expected uint8 RGB [H, W, 3] or a PIL picture, got {got}")
    if not pixels.size:
        raise ImageError("picture", f"it has no pixels: {list(shape)}")
    if shape[2:] == (4,):
        return _blend_with_white(pixels)
    if shape[2:] != (3,):
        pixels = np.repeat(pixels.reshape(*shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(pixels)


def read_size(source: str | Path) -> tuple[int, int]:
    """Returns the width and the height of the picture that `read_image` would return.

    Only the header is read, except for TIFF files. An EXIF orientation that a PNG file stores after its pixels is
    ignored.

    Raises:
        ImageError: the file does not exist or is not a picture.
    """
    path = source if isinstance(source, str) and is_url(source) else Path(source)
    with _opened(path, MAX_PIXELS) as picture:
        if picture.format == "TIFF":
            picture.load()  # Pillow itself applies the orientation: some versions in open(), other versions in load()
        width, height = picture.size
        if picture.format == "PNG" and "exif" not in picture.info:  # getexif() would decode the pixels
            return width, height
        return (height, width) if _orientation(picture) in _TRANSPOSING else (width, height)


@contextmanager
def _opened(source: Path | str | BinaryIO, max_pixels: int) -> Iterator[Image.Image]:
    """Opens a picture of at most `max_pixels` without decoding it; turns errors in the block into an ImageError."""
    path = _name(source)
    with (
        _as_image_errors(path, max_pixels),
        _open(source) as file,
        Image.open(file, formats=_formats(file, path)) as picture,
    ):
        if picture.format == "TIFF":
            _check_tiff(picture, path)
        width, height = picture.size
        if width * height > max_pixels:
            raise ImageError(path, _too_large(f"{width} x {height} = {width * height:,} pixels", max_pixels))
        yield picture


@contextmanager
def _as_image_errors(path: Path | str, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turns the errors of decoders in the block into an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, _too_large("far too many pixels", max_pixels)) from error
    except UnidentifiedImageError as error:
        if _has_unreadable_suffix(path):
            raise ImageError(path, _CONVERT) from error
        reason = "not a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC picture, or damaged"
        raise ImageError(path, reason) from error
    except Exception as error:  # Decoders raise many types of errors for damaged files: SyntaxError, struct.error ...
        if isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno)
        elif isinstance(error, MemoryError) or "out of memory" in str(error):
            reason = "not enough memory to read this picture; --max-pixels refuses large pictures"
        else:
            reason = f"damaged or truncated: {error or type(error).__name__}"
        raise ImageError(path, reason) from error


def _name(source: Path | str | BinaryIO) -> Path | str:
    """What messages call a picture."""
    return source if isinstance(source, str | Path) else "picture"


def _open(path: Path | str | BinaryIO) -> BinaryIO:
    if not isinstance(path, str | Path):
        content = path.read()
        if not content:
            raise ImageError(_name(path), "the file is empty (0 bytes)")
        return BytesIO(content)
    if isinstance(path, str):
        try:
            content = read_remote(path)
        except FileNotFoundError as error:  # most protocols leave its errno empty
            raise ImageError(path, os.strerror(errno.ENOENT)) from error
        except Exception as error:  # each protocol has its own types of errors
            raise ImageError(path, f"cannot be fetched: {error or type(error).__name__}") from error
        if not content:
            raise ImageError(path, "the file is empty (0 bytes)")
        return BytesIO(content)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would block forever
        raise ImageError(path, "a folder, not a file" if os.path.isdir(path) else "not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "the file is empty (0 bytes)")
    return open(path, "rb")


_CONVERT = "raw files of cameras, JPEG 2000 and JPEG XL are not read; convert it to JPEG, PNG or TIFF"


def _has_unreadable_suffix(path: Path | str) -> bool:
    return os.path.splitext(path)[1].lower() in UNREADABLE_SUFFIXES


def _formats(file: BinaryIO, path: Path | str) -> tuple[str, ...]:
    """Returns the formats of Pillow that the file may have, and loads the decoders of AVIF and HEIC.

    Raises:
        ImageError: the file is in AVIF or HEIC, and there is no decoder.
    """
    head = file.read(64)
    file.seek(0)
    brand = head[8:12]
    if head[4:8] != b"ftyp" or brand not in (*_AVIF_BRANDS, *_HEIC_BRANDS):
        return _FORMATS
    if brand in _AVIF_BRANDS or any(other in head[16:] for other in _AVIF_BRANDS):
        Image.init()
        if "AVIF" not in Image.OPEN:
            raise ImageError(path, "an AVIF picture: install Pillow 11.3 or later, or convert it to JPEG")
        return ("AVIF",)
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        remedy = "pip install inception-rcnn[heic], or convert it to JPEG"
        raise ImageError(path, f"a HEIC picture, which needs pillow-heif: {remedy}") from error
    register_heif_opener()
    return ("HEIF",)


def _check_tiff(picture: Image.Image, path: Path | str) -> None:
    """Raises an ImageError for TIFF files of which Pillow would return other pixels than the file means."""
    tags: Mapping[int, Any] = picture.tag_v2  # type: ignore[attr-defined]
    if _DNG_VERSION in tags or _has_unreadable_suffix(path):  # Pillow would read the preview.
        raise ImageError(path, _CONVERT)
    if 2 in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1)):
        raise ImageError(path, "signed pixels have no defined range; save it with unsigned pixels of 8 or 16 bits")
    is_wide = any(bits > 8 for bits in _bits_per_sample(picture))
    if is_wide and tags.get(_PLANAR_CONFIGURATION) == 2 and tags.get(_COMPRESSION, 1) == 1:
        problem = "16-bit TIFF with separate planes and without compression is not read"
        raise ImageError(path, f"{problem}; save it with interleaved channels or with 8 bits per channel")


def _bits_per_sample(picture: Image.Image) -> tuple[int, ...]:
    bits = picture.tag_v2.get(_BITS_PER_SAMPLE, 1)  # type: ignore[attr-defined]
    return bits if isinstance(bits, tuple) else (bits,)


def _too_large(size: str, max_pixels: int) -> str:
    return f"{size}, more than the limit of {max_pixels:,}; if you trust the file, raise the limit with --max-pixels"


def _to_rgb(picture: Image.Image, path: Path | str) -> _Pixels:
    """Converts a loaded picture to uint8 RGB [H, W, 3] without applying the EXIF orientation."""
    # Pillow's conversion would clip 16-bit values at 255.
    is_wide = picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG")
    if picture.mode in ("I", "F") and not is_wide:
        kind = "integer" if picture.mode == "I" else "float"
        raise ImageError(path, f"32-bit {kind} pixels have no defined range; save it with 8 or 16 bits per channel")
    largest, is_negative = 65535, False
    if is_wide and picture.format == "TIFF":
        largest = 2 ** max(_bits_per_sample(picture)) - 1
        is_negative = picture.tag_v2.get(_PHOTOMETRIC) == 0  # type: ignore[attr-defined]  # 0: white is zero
    width, height = picture.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(_STRIP // width, 1)
    for top in range(0, height, rows):
        strip = picture if rows >= height else picture.crop((0, top, width, min(top + rows, height)))
        if is_wide:
            grey = _narrow(np.asarray(strip), largest, picture.info.get("transparency", -1))
            pixels[top : top + rows] = (255 - grey if is_negative else grey)[:, :, None]
        elif picture.has_transparency_data:
            pixels[top : top + rows] = _blend_with_white(np.asarray(strip.convert("RGBA")))
        else:
            pixels[top : top + rows] = np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))
    return pixels


def _narrow(wide: npt.NDArray[Any], largest: int, transparent: int) -> _Pixels:
    """Scales grey values [H, W] of 0..largest to 0..255. Transparent pixels become white."""
    scaled = (wide.astype(np.uint32) * 255 + largest // 2) // largest
    return np.where(wide == transparent, 255, scaled).astype(np.uint8)


def _blend_with_white(rgba: _Pixels) -> _Pixels:
    colour, alpha = rgba[:, :, :3].astype(np.uint16), rgba[:, :, 3:].astype(np.uint16)
    # The largest sum, 255 * 255 + 127, fits into 16 bits.
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    """Returns the EXIF orientation 1..8; 1 if it is missing or the EXIF data are damaged."""
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        return 1


def _apply_orientation(pixels: _Pixels, orientation: int) -> _Pixels:
    """Makes a picture upright. Orientations 5..8 exchange width and height (EXIF 2.3, section 4.6.4)."""
    if orientation in _TRANSPOSING:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
