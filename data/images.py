"""Reads picture files as upright 8-bit RGB arrays.

The format (JPEG, PNG, WebP, BMP, TIFF or GIF) is recognised by the content of the file, not by its name. The reader
refuses all other formats of Pillow, because decoders such as PostScript are unsafe for untrusted files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ..runtime.remote import is_url, read_remote

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
)
"""Lower-case suffixes of the files that count as pictures in a folder."""

MAX_PIXELS = 178_956_970  # above this number Pillow raises a DecompressionBombError by default

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_EXIF_ORIENTATION = 0x0112
_TRANSPOSING = (5, 6, 7, 8)  # orientations that exchange width and height

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


def read_image(source: str | Path, max_pixels: int = MAX_PIXELS) -> _Pixels:
    """Reads a picture file as upright 8-bit RGB.

    - The EXIF orientation is applied.
    - Transparent pixels are blended with white.
    - The first picture of an animation or a multi-page file is read.
    - 16-bit values are scaled by 255 / 65535; colour values may differ from this by one level.
    - CMYK is converted without a colour profile. CMYK values in JPEG files are assumed to be inverted, as Adobe writes
      them and as browsers read them.

    Args:
        source: the file, or a URL that fsspec reads ("s3://bucket/a.jpg").
        max_pixels: pictures with more pixels are refused before they are decoded.

    Returns:
        uint8 [H, W, 3], C-contiguous, writeable.

    Raises:
        ImageError: the file does not exist, is not a picture, is truncated, damaged or too large, or its pixels have
            no defined range (32-bit float or integer).
    """
    path = source if isinstance(source, str) and is_url(source) else Path(source)
    # Pillow has its own limit for the whole process. A `max_pixels` above this limit increases it.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    with _opened(path, max_pixels) as picture:
        picture.load()
        return _apply_orientation(_to_rgb(picture, path), _orientation(picture))


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
def _opened(path: Path | str, max_pixels: int) -> Iterator[Image.Image]:
    """Opens a picture of at most `max_pixels` without decoding it; turns errors in the block into an ImageError."""
    try:
        with _open(path) as file, Image.open(file, formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError(path, _too_large(f"{width} x {height} = {width * height:,} pixels", max_pixels))
            yield picture
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(path, _too_large("far too many pixels", max_pixels)) from error
    except UnidentifiedImageError as error:
        raise ImageError(path, "not a JPEG, PNG, WebP, BMP, TIFF or GIF picture, or damaged") from error
    except Exception as error:  # Decoders raise many types of errors for damaged files: SyntaxError, struct.error ...
        if isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno)
        else:
            reason = f"damaged or truncated: {error or type(error).__name__}"
        raise ImageError(path, reason) from error


def _open(path: Path | str) -> BinaryIO:
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
        raise ImageError(path, "a folder, not a file" if path.is_dir() else "not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "the file is empty (0 bytes)")
    return open(path, "rb")


def _too_large(size: str, max_pixels: int) -> str:
    return f"{size}, more than the limit of {max_pixels:,}; if you trust the file, raise the limit with --max-pixels"


def _to_rgb(picture: Image.Image, path: Path | str) -> _Pixels:
    """Converts a loaded picture to uint8 RGB [H, W, 3] without applying the EXIF orientation."""
    mode = picture.mode
    # Pillow's conversion would clip 16-bit values at 255.
    if mode.startswith("I;16") or (mode == "I" and picture.format == "PNG"):
        wide = np.asarray(picture).astype(np.uint32)  # [H, W]
        grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        grey[wide == picture.info.get("transparency", -1)] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("I", "F"):
        kind = "integer" if mode == "I" else "float"
        raise ImageError(path, f"32-bit {kind} pixels have no defined range; save it with 8 or 16 bits per channel")
    if picture.has_transparency_data:
        return _blend_with_white(np.asarray(picture.convert("RGBA")))
    if mode != "RGB":
        picture = picture.convert("RGB")
    return np.array(picture)


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
