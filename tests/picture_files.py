"""Small picture files, made in memory."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

ARRAY = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def stored(kind: str = "PNG", image: Image.Image | None = None, **options: Any) -> bytes:
    """A picture as the bytes of a file; without ``image`` it is ARRAY."""
    buffer = BytesIO()
    (image or Image.fromarray(ARRAY)).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
