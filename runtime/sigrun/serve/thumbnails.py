"""Thumbnails of indexed pictures: made anew from their pixels, so that nothing else of a file is sent."""

from __future__ import annotations

from io import BytesIO
from typing import Final

from PIL import Image

from sigrun.decoders import Rules
from sigrun.pictures import read_picture

SIDE: Final = 320  # pixels of the longer side at most
_QUALITY: Final = 80


def thumbnail(path: str, max_pixels: int) -> bytes:
    """A small JPEG of a picture, upright, without metadata.

    Args:
        path: its file.
        max_pixels: larger ones are refused before they are decoded.

    Raises:
        PictureError: it cannot be read.
    """
    small = read_picture(path, Rules(max_pixels, "fast", (SIDE, SIDE))).image.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    plain = Image.new("RGB", small.size)
    plain.paste(small)
    file = BytesIO()
    plain.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()
