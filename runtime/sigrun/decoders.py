"""Picture files to upright RGB pictures.

Files are not trusted: only those of Pillow's decoders are let in that do nothing but decode (no PostScript, no PDF),
sizes are judged by the header before any pixel is decoded, and whatever a decoder raises becomes a PictureError that
names the file. No setting of Pillow's is changed, but that what it logs is not printed unless somebody asks for it.
"""

from __future__ import annotations

import importlib
import logging
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, Final, Literal

from PIL import Image, ImageFile

from sigrun.colour import to_rgb
from sigrun.errors import PictureError

Decode = Literal["exact", "fast"]
DECODES: Final[tuple[Decode, ...]] = ("exact", "fast")

DEFAULT_MAX_PIXELS: Final = 89_478_485  # Pillow's own figure: a quarter of a GiB in RGB
_MAX_SIDE: Final = 1 << 20  # resizing takes 32 bytes a pixel of the longer side, however thin the picture
_ROOM: Final = 2  # a JPEG decoded small keeps at least so many pixels for each that the tower sees

# Format to the Pillow plugin that reads it. HEIF is read by pillow-heif, where that is installed or registered.
_PLUGINS: Final = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "TIFF": "TiffImagePlugin",
    "BMP": "BmpImagePlugin",
    "PPM": "PpmImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "AVIF": "AvifImagePlugin",
    "QOI": "QoiImagePlugin",
}
_READABLE: Final = "Sigrun reads JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, JPEG 2000, AVIF and QOI"
_HEIF_BRANDS: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_ORIENTATION: Final = 0x0112  # EXIF tag
_TILE_WIDTH: Final = 322  # TIFF tags
_TILE_LENGTH: Final = 323
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING: Final = tuple(_TURNS[i] for i in (5, 6, 7, 8))  # width and height change places
_MIRRORED: Final = (
    _TURNS[2],
    _TURNS[3],
    _TURNS[7],
    _TURNS[8],
)  # the left edge becomes the right or lower one
_UPENDED: Final = (
    _TURNS[3],
    _TURNS[4],
    _TURNS[6],
    _TURNS[7],
)  # the upper edge becomes the lower or right one

# What Pillow's decoders raise when they stumble; their messages speak of buffers and drivers.
_GARBLED: Final = (SyntaxError, LookupError, TypeError, AttributeError, EOFError, struct.error)

Box = tuple[float, float, float, float]  # left, upper, right, lower
_Decoder = Callable[[BinaryIO, str], ImageFile.ImageFile]


@dataclass(frozen=True, slots=True)
class Rules:
    """What is decoded, and how.

    Attributes:
        max_pixels: pictures of more pixels are refused before they are decoded.
        decode: ``fast`` lets a JPEG decode to a half, a quarter or an eighth of its size where ``least`` allows it.
        least: width and height, of the upright picture, that the tower makes of it; without, everything is decoded
            at full size.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    decode: Decode = "exact"
    least: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A picture that was read.

    Attributes:
        image: mode RGB, upright.
        box: the part of ``image`` that is the picture, where it was decoded small: a fraction of a pixel at an edge
            may lie outside the picture.
        note: what its owner may want to know, in words: that the file holds more frames than were taken.
    """

    image: Image.Image
    box: Box | None = None
    note: str | None = None


def decode(stream: BinaryIO, name: str, rules: Rules) -> Opened:
    """Decode a picture file.

    Raises:
        PictureError: it is no picture of a kind that is read, too large, or damaged.
    """
    prefix = stream.read(16)
    if not prefix:
        raise PictureError(f"{name} is empty (0 bytes)")
    kind, decoder = _decoder_for(prefix, name)
    if kind == "GIF":
        check_size(name, _gif_size(stream), rules.max_pixels)
    try:
        stream.seek(0)
        image = decoder(stream, "")
    except Exception as error:
        raise PictureError(f"{name} is no readable {kind} picture: {_reason(error)}") from error
    check_size(name, image.size, rules.max_pixels)
    if kind == "TIFF":
        check_size(name, _tile_size(image), rules.max_pixels)
    box = _decode_small(image, rules.least) if kind == "JPEG" and rules.decode == "fast" else None
    opened = finish(image, name, box)
    picture = opened.image.copy() if opened.image is image else opened.image  # let go of the file
    return Opened(picture, opened.box, _more_than_taken(image, kind))


def check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Raise PictureError if a picture is empty or too large."""
    width, height = size
    if width < 1 or height < 1:
        raise PictureError(f"{name} is {width} × {height} pixels: there is nothing in it")
    if width * height > max_pixels:
        raise PictureError(
            f"{name} is {width} × {height} pixels, {width * height / 1e6:.0f} million; at most "
            f"{max_pixels / 1e6:.0f} million are accepted",
            hint="make it smaller, or raise max_pixels if you trust it",
        )
    if max(width, height) > _MAX_SIDE:
        raise PictureError(f"{name} is {width} × {height} pixels; no side may exceed {_MAX_SIDE}")


def finish(image: Image.Image, name: str, box: Box | None = None) -> Opened:
    """Decode, convert and turn; the result carries no metadata that would ask for any of it once more."""
    try:
        image.load()
        turn = _turn(image)  # after load(): TIFF pictures are turned by their decoder
        picture = to_rgb(image)
        if turn is not None:
            box = None if box is None else _turned(box, picture.size, turn)
            picture = picture.transpose(turn)
    except Exception as error:
        raise PictureError(f"{name} cannot be decoded: {_reason(error)}") from error
    if picture is not image:
        picture.info.clear()
    return Opened(picture, box)


def _decoder_for(prefix: bytes, name: str) -> tuple[str, _Decoder]:
    for kind, (decoder, test) in _decoders().items():
        if _accepted(test, prefix):
            return kind, decoder
    heif = _heif_decoder(prefix) if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS else None
    if heif is not None:
        return "HEIF", heif
    hint = "for HEIC, install pillow-heif" if prefix[4:8] == b"ftyp" else _READABLE
    raise PictureError(f"{name} is not a picture of a kind that Sigrun reads", hint=hint)


def _heif_decoder(prefix: bytes) -> _Decoder | None:
    """What somebody registered with Pillow for HEIF, else what an installed pillow-heif has."""
    if "HEIF" in Image.OPEN:
        registered, test = Image.OPEN["HEIF"]
        if test is None or _accepted(test, prefix):
            return registered
    try:
        decoder: _Decoder = importlib.import_module("pillow_heif").HeifImageFile
    except (ImportError, AttributeError, OSError):
        return None
    return decoder


def _accepted(test: Callable[[bytes], Any], prefix: bytes) -> bool:
    try:
        answer = test(prefix)
    except IndexError:  # a file of one or two bytes
        return False
    return bool(answer) and not isinstance(
        answer, str
    )  # a text says why this Pillow cannot decode the format


@cache
def _decoders() -> dict[str, tuple[_Decoder, Callable[[bytes], Any]]]:
    """The formats of _PLUGINS, each with its decoder and the test on a file's first 16 bytes."""
    found: dict[str, tuple[_Decoder, Callable[[bytes], Any]]] = {}
    # What Pillow finds wrong it raises, and logs too, which without a handler would be printed.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    for kind, module in _PLUGINS.items():
        try:
            plugin = importlib.import_module(f"PIL.{module}")
        except ImportError:
            continue  # an older or smaller Pillow
        if kind in Image.OPEN:
            factory, test = Image.OPEN[kind]
            if kind == "JPEG":
                factory = plugin.JpegImageFile  # the registered one goes on to parse multi-picture files
            if test is not None:
                found[kind] = factory, test
    return found


def _gif_size(stream: BinaryIO) -> tuple[int, int]:
    """Width and height of a GIF's first picture with its canvas, from the headers.

    Pillow enlarges the canvas to hold the picture while it opens the file, hence before its size can be asked for.
    """
    stream.seek(6)
    head = stream.read(7).ljust(7, b"\0")
    width, height = int.from_bytes(head[0:2], "little"), int.from_bytes(head[2:4], "little")
    if head[4] & 0x80:
        stream.seek(3 << ((head[4] & 7) + 1), os.SEEK_CUR)  # the palette
    while (mark := stream.read(1)) not in (b"", b";"):
        if mark == b"!":
            stream.read(1)
            while length := stream.read(1)[:1]:  # blocks of up to 255 bytes, the last one empty
                if length == b"\0":
                    break
                stream.seek(length[0], os.SEEK_CUR)
        elif mark == b",":
            box = stream.read(8).ljust(8, b"\0")
            x, y, w, h = (int.from_bytes(box[i : i + 2], "little") for i in (0, 2, 4, 6))
            return max(width, x + w), max(height, y + h)
    return width, height


def _tile_size(image: Any) -> tuple[int, int]:
    """Width and height of a TIFF's tiles, which may be larger than the picture; (1, 1) if it has none."""
    width, height = (image.tag_v2.get(tag) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    return (width, height) if isinstance(width, int) and isinstance(height, int) else (1, 1)


def _decode_small(image: Any, least: tuple[int, int] | None) -> Box | None:
    """Ask a JPEG's decoder for as small a picture as leaves _ROOM times ``least``; None where that is its full size."""
    if least is None:
        return None
    width, height = least[::-1] if _turn(image) in _LYING else least
    full = image.size
    drafted = image.draft(None, (_ROOM * width, _ROOM * height))
    return drafted[1] if drafted is not None and image.size != full else None


def _turned(box: Box, size: tuple[int, int], turn: Image.Transpose) -> Box:
    """Where a box, which begins at the upper left corner of a picture, lies after the picture was turned."""
    (width, height), (_, _, right, lower) = size, box
    x = (width - right, width) if turn in _MIRRORED else (0, right)
    y = (height - lower, height) if turn in _UPENDED else (0, lower)
    if turn in _LYING:
        x, y = y, x
    return float(x[0]), float(y[0]), float(x[1]), float(y[1])


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(_ORIENTATION)
        return _TURNS.get(orientation) if isinstance(orientation, int) else None
    except Exception:  # damaged EXIF takes no picture down
        return None


def _more_than_taken(image: Any, kind: str) -> str | None:
    """A note on the further frames of a file; this moves the decoder, so the picture must be out of it by now."""
    try:
        if not getattr(image, "is_animated", False):
            return None
        count: int | None = image.n_frames
    except Exception:  # a further frame is damaged: that is no fault of the first
        count = None
    parts = "pages" if kind == "TIFF" else "pictures" if kind == "HEIF" else "frames"
    return f"one of {count or 'several'} {parts}: the {'main one' if kind == 'HEIF' else 'first'} was taken"


def _reason(error: Exception) -> str:
    """What a decoder's exception means to somebody who only has the picture."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, _GARBLED):
        return "it is damaged or cut short"
    return str(error) or type(error).__name__
