"""Every kind of picture with what becomes of it: the table of docs/pictures.md, and what a test holds it against.

``python -m tests.picture_kinds`` prints the table.
"""

from __future__ import annotations

import base64
import importlib.util
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.picture_files import chunk, png, stored
from tests.test_colour import swapped_profile

LEFT, RIGHT = (210, 40, 30), (20, 60, 200)
WHITE = (255, 255, 255)
GREYS = (77, 180)


@dataclass(frozen=True)
class Kind:
    """One kind of picture.

    Attributes:
        name, outcome: a line of the table.
        make: a source, whose picture is 16 × 8, its left half of one colour, its right half of another.
        colours: these two, once it is read; None where it is refused.
        tolerance: how far they may be off.
        note: what is said of it.
        error: part of what is said where it is refused.
    """

    name: str
    outcome: str
    make: Callable[[], Any]
    colours: tuple[tuple[int, int, int], tuple[int, int, int]] | None = (LEFT, RIGHT)
    tolerance: int = 0
    note: str | None = None
    error: str = ""


def halves(left: Any, right: Any, dtype: Any = np.uint8) -> NDArray[Any]:
    """[8, 16] or [8, 16, channels]"""
    row = np.array([left] * 8 + [right] * 8, dtype)
    return np.stack([row] * 8)


def image(left: Any = LEFT, right: Any = RIGHT) -> Image.Image:
    return Image.fromarray(halves(left, right))


def grey(value: int) -> tuple[int, int, int]:
    return (value, value, value)


def png16(kind: int, values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a channel: kind 0 is grey, 2 RGB, 6 RGBA."""
    height, width = values.shape[:2]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def turned(orientation: int) -> bytes:
    """A PNG stored so that it is upright only once the orientation was followed."""
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return stored("PNG", image() if undo is None else image().transpose(undo), exif=exif)


def palette(**options: Any) -> bytes:
    return stored("PNG", image().quantize(2), **options)


def clear_palette() -> bytes:
    quantized = image().quantize(2)
    return stored("PNG", quantized, transparency=int(np.asarray(quantized)[0, 0]))


def cmyk(**options: Any) -> bytes:
    return stored("TIFF", image().convert("CMYK"), **options)


def inks() -> bytes:
    """CMYK, the left half full of the first ink, the right half bare; by its profile that ink is red."""
    return stored(
        "TIFF", Image.fromarray(halves((255, 0, 0, 0), (0, 0, 0, 0)), "CMYK"), icc_profile=red_ink()
    )


def red_ink() -> bytes:
    """A CMYK profile (ICC version 2, one lut8Type) in which any colour is sRGB's red, and no ink white."""
    white, black, red = (
        bytes((255, 128, 128)),
        bytes((0, 128, 128)),
        bytes((139, 209, 198)),
    )  # Lab, as lut8Type stores it, at D50
    same = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut = (
        b"mft1\0\0\0\0"
        + bytes((4, 3, 2, 0))
        + matrix
        + same * 4
        + (white + black)
        + (red + black) * 7
        + same * 3
    )
    tag = b"A2B0" + struct.pack(">II", 144, len(lut))
    header = struct.pack(">I4sI4s4s4s", 144 + len(lut), b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + struct.pack(">I", 1) + tag + lut


def heic() -> bytes:
    """A HEIC file, or what looks like one where there is nothing to make it with."""
    if importlib.util.find_spec("pillow_heif") is None:
        return b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    made = BytesIO()
    importlib.import_module("pillow_heif").from_pillow(image().resize((64, 64), 0)).save(made, quality=100)
    return made.getvalue()


def lab() -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image(), *profiles, outputMode="LAB")
    assert converted is not None
    return converted


def frames(kind: str, count: int) -> bytes:
    options = {"lossless": True} if kind == "WEBP" else {}
    more = [Image.new("RGB", (16, 8), (0, i, 0)) for i in range(1, count)]
    return stored(kind, image(), save_all=True, append_images=more, **options)


def uri() -> str:
    return "data:image/png;base64," + base64.b64encode(stored("PNG", image())).decode()


def mpo() -> bytes:
    return stored(
        "MPO", image(), save_all=True, append_images=[Image.new("RGB", (16, 8))], quality=95, subsampling=0
    )


def photo(**options: Any) -> bytes:
    return stored("JPEG", image(), quality=95, subsampling=0, **options)


KINDS = [
    Kind("JPEG", "read", photo, tolerance=4),
    Kind("JPEG, progressive", "read", lambda: photo(progressive=True), tolerance=4),
    Kind("JPEG of several pictures (MPO)", "the first, which is the picture itself", mpo, tolerance=4),
    Kind("JPEG cut short, be it by a byte", "refused", lambda: photo()[:-1], None, error="truncated"),
    Kind("PNG", "read", lambda: stored("PNG", image())),
    Kind(
        "PNG, GIF, WebP, TIFF cut short within the pixels",
        "refused",
        lambda: stored("PNG", Image.effect_noise((64, 64), 50))[:-1000],
        None,
        error="cannot be decoded",
    ),
    Kind("WebP, lossless", "read", lambda: stored("WEBP", image(), lossless=True)),
    Kind("WebP, lossy", "read", lambda: stored("WEBP", image(), quality=95), tolerance=12),
    Kind(
        "AVIF",
        "read where Pillow can (its wheels can)",
        lambda: stored("AVIF", image(), quality=100),
        tolerance=6,
    ),
    Kind(
        "HEIC",
        "read where pillow-heif is installed, else refused",
        heic,
        (LEFT, RIGHT) if importlib.util.find_spec("pillow_heif") else None,
        12,
        error="pillow-heif",
    ),
    Kind("TIFF, BMP, PPM, QOI, GIF", "read", lambda: stored("BMP", image())),
    Kind("JPEG 2000", "read", lambda: stored("JPEG2000", image())),
    *[Kind(f"EXIF orientation {i}", "turned upright", lambda i=i: turned(i)) for i in range(1, 9)],
    Kind("grey", "as RGB", lambda: stored("PNG", image(*GREYS)), (grey(77), grey(180))),
    Kind(
        "1 bit",
        "black and white",
        lambda: stored("PNG", Image.fromarray(halves(False, True, bool))),
        (grey(0), WHITE),
    ),
    Kind("palette", "its colours", palette),
    Kind("palette with a transparent colour", "white there", clear_palette, (WHITE, RIGHT), 1),
    Kind("alpha", "over white", lambda: stored("PNG", image((*LEFT, 0), (*RIGHT, 255))), (WHITE, RIGHT)),
    Kind(
        "grey with alpha",
        "over white",
        lambda: stored("PNG", Image.merge("LA", [image(77, 77), image(0, 255)])),
        (WHITE, grey(77)),
    ),
    Kind(
        "16-bit grey",
        "scaled, not clipped: 65535 becomes 255",
        lambda: png16(0, halves(77 * 257, 180 * 257, np.uint16)),
        (grey(77), grey(180)),
    ),
    Kind(
        "16-bit RGB",
        "scaled, to within 1 of 255",
        lambda: png16(2, halves([257 * v for v in LEFT], [257 * v for v in RIGHT], np.uint16)),
        tolerance=1,
    ),
    Kind(
        "16-bit RGB with alpha",
        "scaled, over white",
        lambda: png16(
            6, halves([257 * v for v in LEFT] + [0], [257 * v for v in RIGHT] + [65535], np.uint16)
        ),
        (WHITE, RIGHT),
        1,
    ),
    Kind(
        "32-bit integers",
        "as 8 or 16 bits if all fit, else stretched from the lowest to the highest",
        lambda: Image.fromarray(halves(-1000, 10**6, np.int32)),
        (grey(0), WHITE),
    ),
    Kind(
        "float (TIFF)",
        "as 0 to 1 or 0 to 255 if all fit, else stretched from the lowest to the highest",
        lambda: stored("TIFF", Image.fromarray(halves(0.2, 1.0, np.float32))),
        (grey(51), WHITE),
    ),
    Kind("CMYK without a profile", "converted as Pillow does", cmyk, tolerance=1),
    Kind("CMYK with a profile", "through its profile to sRGB", inks, ((255, 0, 0), WHITE), 3),
    Kind(
        "RGB or grey with a profile",
        "through it to sRGB; a profile that is sRGB in effect changes no bit",
        lambda: stored("PNG", image(), icc_profile=swapped_profile()),
        ((40, 210, 30), (60, 20, 200)),
        2,
    ),
    Kind(
        "a profile that is damaged or of another kind",
        "ignored",
        lambda: stored("PNG", image(), icc_profile=b"no profile at all" * 20),
    ),
    Kind("YCbCr, HSV", "converted", lambda: image().convert("YCbCr"), tolerance=2),
    Kind(
        "1 × 1 pixels",
        "read, and stretched like any other",
        lambda: Image.new("RGB", (1, 1), LEFT),
        (LEFT, LEFT),
    ),
    Kind(
        "1 × 5000 pixels",
        "read; squashed like any other, but refused by models that crop",
        lambda: Image.new("RGB", (1, 5000), LEFT),
        (LEFT, LEFT),
    ),
    Kind(
        "more than 89 million pixels",
        "refused by the header; max_pixels raises it",
        lambda: png(30_000, 30_000),
        None,
        error="max_pixels",
    ),
    Kind("Lab", "converted", lab, tolerance=3),
    Kind(
        "animation (GIF, PNG, WebP, AVIF)",
        "the first frame, which a note says",
        lambda: frames("PNG", 12),
        note="one of 12 frames: the first was taken",
    ),
    Kind(
        "TIFF of several pages",
        "the first page, which a note says",
        lambda: frames("TIFF", 3),
        note="one of 3 pages: the first was taken",
    ),
    Kind("Pillow image", "as it is, at the frame where it stands; never written to", image),
    Kind("array, uint8 [H, W, 3]", "RGB", lambda: halves(LEFT, RIGHT)),
    Kind(
        "array, uint8 [H, W, 4]", "RGB over white", lambda: halves((*LEFT, 0), (*RIGHT, 255)), (WHITE, RIGHT)
    ),
    Kind("array, uint8 [H, W] or [H, W, 1]", "grey", lambda: halves(*GREYS), (grey(77), grey(180))),
    Kind(
        "array of another type",
        "refused: its range is not known",
        lambda: halves(LEFT, RIGHT, np.float32),
        None,
        error="uint8 is wanted",
    ),
    Kind(
        "array, channels first",
        "refused, with the way to turn it",
        lambda: halves(LEFT, RIGHT).transpose(2, 0, 1),
        None,
        error="transpose",
    ),
    Kind("data URI", "read", uri),
    Kind("bytes", "read", lambda: stored("PNG", image())),
    Kind("binary stream", "read from where it stands to its end", lambda: BytesIO(stored("PNG", image()))),
    Kind("text stream", "refused", lambda: StringIO("a"), None, error="binary mode"),
    Kind("URL", "refused: nothing is fetched", lambda: "https://example.org/a.png", None, error="download"),
    Kind(
        "SVG, PostScript, PDF",
        "refused: they are programs",
        lambda: b"%!PS-Adobe-3.0",
        None,
        error="not a picture",
    ),
    Kind("empty file", "refused", lambda: b"", None, error="is empty"),
]


def table() -> str:
    """The table of docs/pictures.md."""
    return "\n".join(["| kind | outcome |", "|---|---|", *(f"| {k.name} | {k.outcome} |" for k in KINDS)])


if __name__ == "__main__":
    print(table())
