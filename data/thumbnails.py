"""Small JPEG copies of pictures for web pages."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

from PIL import Image

from .images import MAX_PIXELS, read_reduced

LONGER_SIDE = 320  # pixels
_QUALITY = 75  # with 320 pixels, a photograph takes some 15 kB


def thumbnail(source: str | Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """Returns a JPEG file of the upright picture. Its longer side has at most `LONGER_SIDE` pixels.

    Args:
        source, max_pixels: see `images.read_image`.

    Raises:
        ImageError: see `images.read_image`.
    """
    picture = Image.fromarray(read_reduced(source, LONGER_SIDE, max_pixels))
    picture.thumbnail((LONGER_SIDE, LONGER_SIDE))
    stream = BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return stream.getvalue()


def data_url(jpeg: bytes) -> str:
    """Returns a URL that contains the JPEG file."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
