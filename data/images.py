"""Picture files to arrays: ``read_image`` gives upright 8-bit RGB for whatever people keep in their folders.

JPEG, PNG, WebP, BMP, TIFF and GIF are told by their content, not by their names. Nothing else is opened:
other decoders (PostScript among them) have no business with untrusted files.
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
"""Suffixes, in lower case, of the files that a folder of pictures is searched for."""

MAX_PIXELS = 178_956_970  # the size from which on Pillow too takes a picture for a decompression bomb

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations that exchange width and height

_Pixels = npt.NDArray[np.uint8]


class ImageError(ValueError):
    """A file that cannot be read as a picture.

    Attributes:
        path: the file, or its URL.
        reason: what is wrong with it, without the name of the file.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_image(source: str | Path, max_pixels: int = MAX_PIXELS) -> _Pixels:
    """Reads a picture file as upright 8-bit RGB.

    The EXIF orientation is applied, transparent pixels are laid over white, of an animation or a file of many
    pages the first picture is taken, 16-bit values are scaled by 255 / 65535 (colour: within one level of that),
    CMYK is converted without a colour profile (in JPEG files it is taken to be inverted, as Adobe writes it and
    as browsers read it).

    Args:
        source: the file, or an URL that fsspec reads ("s3://bucket/a.jpg").
        max_pixels: a picture with more pixels is refused before it is decoded.

    Returns:
        uint8 [H, W, 3], C-contiguous, writeable.

    Raises:
        ImageError: no such file, not a picture, truncated or damaged, too large, or with pixels that have no
            definite range (32-bit float or integer).
    """
    path = source if isinstance(source, str) and is_url(source) else Path(source)
    # Pillow has a limit of its own, for the whole process. It is raised where ours is higher, never lowered.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    with _opened(path, max_pixels) as picture:
        picture.load()
        return _upright(_rgb(picture, path), _orientation(picture))


def read_size(source: str | Path) -> tuple[int, int]:
    """Width and height of the picture that `read_image` would make of a file.

    Only the header is read, but for TIFF; an orientation that a PNG has behind its pixels is not seen.

    Raises:
        ImageError: no such file, or not a picture.
    """
    path = source if isinstance(source, str) and is_url(source) else Path(source)
    with _opened(path, MAX_PIXELS) as picture:
        if picture.format == "TIFF":
            picture.load()  # Pillow turns these itself, some versions before they are loaded and some after
        width, height = picture.size
        if picture.format == "PNG" and "exif" not in picture.info:  # asking would decode it
            return width, height
        return (height, width) if _orientation(picture) in _TURNED else (width, height)


@contextmanager
def _opened(path: Path | str, max_pixels: int) -> Iterator[Image.Image]:
    """A picture of at most `max_pixels`, not decoded yet; whatever fails while it is open is an `ImageError`."""
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
    except Exception as error:  # on damaged files decoders raise whatever comes: SyntaxError, struct.error, KeyError...
        if isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno)
        else:
            reason = f"damaged or truncated: {error or type(error).__name__}"
        raise ImageError(path, reason) from error


def _open(path: Path | str) -> BinaryIO:
    if isinstance(path, str):
        try:
            content = read_remote(path)
        except FileNotFoundError as error:  # of most protocols without an error number
            raise ImageError(path, os.strerror(errno.ENOENT)) from error
        except Exception as error:  # every protocol has errors of its own
            raise ImageError(path, f"cannot be fetched: {error or type(error).__name__}") from error
        if not content:
            raise ImageError(path, "the file is empty (0 bytes)")
        return BytesIO(content)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ImageError(path, "a folder, not a file" if path.is_dir() else "not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "the file is empty (0 bytes)")
    return open(path, "rb")


def _too_large(size: str, max_pixels: int) -> str:
    return f"{size}, more than the limit of {max_pixels:,}; raise it with --max-pixels if you trust the file"


def _rgb(picture: Image.Image, path: Path | str) -> _Pixels:
    """The pixels of a loaded picture, uint8 [H, W, 3], not yet upright."""
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and picture.format == "PNG"):  # Pillow's own conversion cuts at 255
        wide = np.asarray(picture).astype(np.uint32)  # [H, W]
        grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        grey[wide == picture.info.get("transparency", -1)] = 255
        return np.repeat(grey[:, :, None], 3, axis=2)
    if mode in ("I", "F"):
        kind = "integer" if mode == "I" else "float"
        raise ImageError(path, f"32-bit {kind} pixels have no definite range; save it with 8 or 16 bits per channel")
    if picture.has_transparency_data:
        return _over_white(np.asarray(picture.convert("RGBA")))
    if mode != "RGB":
        picture = picture.convert("RGB")
    return np.array(picture)


def _over_white(rgba: _Pixels) -> _Pixels:
    colour, alpha = rgba[:, :, :3].astype(np.uint16), rgba[:, :, 3:].astype(np.uint16)
    # 255 * 255 + 127 still fits 16 bits.
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation 1..8; 1 where there is none, and where damaged EXIF data would cost the picture."""
    try:
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:
        return 1


def _upright(pixels: _Pixels, orientation: int) -> _Pixels:
    """Undoes an EXIF orientation (EXIF 2.3, section 4.6.4): 1..4 keep the sides, 5..8 exchange them."""
    if orientation in _TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
