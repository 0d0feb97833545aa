"""Pictures from wherever they come, upright and in RGB.

Files are not trusted: only formats whose decoders do nothing but decode are opened (no PostScript, no PDF),
sizes are judged by the header before any pixel is decoded, and whatever a decoder raises becomes a
PictureError that names the file. No setting of Pillow's is changed.
"""

from __future__ import annotations

import importlib
import os
import stat
import struct
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from sigrun.colour import to_rgb
from sigrun.errors import PictureError

Picture = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[Any]

DEFAULT_MAX_PIXELS: Final = 89_478_485  # Pillow's own figure: a quarter of a GiB in RGB
_MAX_SIDE: Final = 1 << 20  # resizing takes 32 bytes a pixel of the longer side, however thin the picture

# Format to the Pillow plugin that reads it. HEIF is read where pillow-heif has registered itself.
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
_REGISTERED: Final = ("HEIF",)
_READABLE: Final = "Sigrun reads JPEG, PNG, WebP, GIF, TIFF, BMP, PPM, JPEG 2000, AVIF and QOI"

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

# What Pillow's decoders raise when they stumble; their messages speak of buffers and drivers.
_GARBLED: Final = (SyntaxError, LookupError, TypeError, AttributeError, EOFError, struct.error)

_Decoder = Callable[[BinaryIO, str], ImageFile.ImageFile]


def open_picture(source: Picture, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Read a picture, turn it upright (EXIF), and convert it to RGB (see :func:`sigrun.colour.to_rgb`).

    Of an animation or a file of several pages the first is taken.

    Args:
        source: a path; the bytes of a file; a binary stream, read from where it stands to its end; a Pillow
            image, which is left as it is; or an array, uint8 [H, W] or [H, W, C] with 1, 3 (RGB) or 4 (RGBA)
            channels.
        max_pixels: refuse pictures of more pixels, before decoding them.

    Returns:
        A picture in mode RGB; ``source`` itself if that is a Pillow image with nothing to change.

    Raises:
        PictureError: the picture cannot be read; the message names the file.
    """
    if isinstance(source, Image.Image):
        return _from_image(source, max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(BytesIO(source), "<bytes>", max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source, max_pixels)
    if hasattr(source, "read"):
        return _from_stream(source, max_pixels)
    raise PictureError(
        f"a {type(source).__name__} is not a picture",
        hint="give a path, bytes, a binary stream, a Pillow image or a uint8 array",
    )


def _from_path(path: str | os.PathLike[str], max_pixels: int) -> Image.Image:
    name = os.fsdecode(os.fspath(path)).encode("utf-8", "backslashreplace").decode("utf-8")
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise PictureError(f"{name} is a directory", hint="name a picture in it")
        if not stat.S_ISREG(mode):
            raise PictureError(f"{name} is not a regular file", hint="open it and give the stream")
        with Path(path).open("rb") as stream:
            return _decode(stream, name, max_pixels)
    except FileNotFoundError as error:
        remote = name.startswith(("http:", "https:", "data:"))
        raise PictureError(
            f"{name} does not exist",
            hint="Sigrun fetches nothing: download it and give the file or its bytes" if remote else None,
        ) from error
    except OSError as error:
        raise PictureError(f"{name} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the path
        raise PictureError(f"{name!a} is not a path: {error}") from error


def _from_stream(stream: Any, max_pixels: int) -> Image.Image:
    label = getattr(stream, "name", None)
    name = label if isinstance(label, str) else "<stream>"
    try:
        data = stream.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise PictureError(f"{name} cannot be read: {error}") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise PictureError(f"{name} is a text stream", hint="open the file in binary mode, 'rb'")
    return _decode(BytesIO(data), name, max_pixels)


def _from_image(image: Image.Image, max_pixels: int) -> Image.Image:
    name = getattr(image, "filename", "") or "<image>"
    name = name if isinstance(name, str) else os.fsdecode(name)
    _check_size(name, image.size, max_pixels)
    return _finish(image, name)


def _from_array(array: NDArray[Any], max_pixels: int) -> Image.Image:
    if array.dtype != np.uint8:
        hint = "scale it to 0-255 and convert it: (array * 255).round().astype(np.uint8) if it holds 0-1"
        raise PictureError(
            f"<array> holds {array.dtype}, whose range is not known; uint8 is wanted", hint=hint
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        raise PictureError(
            f"<array> has the shape {array.shape}; [H, W] or [H, W, C] with 1, 3 or 4 channels is wanted",
            hint="channels come last: array.transpose(1, 2, 0)" if first else None,
        )
    _check_size("<array>", (array.shape[1], array.shape[0]), max_pixels)
    return _finish(Image.fromarray(np.ascontiguousarray(array)), "<array>")


def _decode(stream: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    prefix = stream.read(16)
    if not prefix:
        raise PictureError(f"{name} is empty (0 bytes)")
    kind, decoder = _decoder_for(prefix, name)
    if kind == "GIF":
        _check_size(name, _gif_size(stream), max_pixels)
    try:
        stream.seek(0)
        image = decoder(stream, "")
    except Exception as error:
        raise PictureError(f"{name} is no readable {kind} picture: {_reason(error)}") from error
    _check_size(name, image.size, max_pixels)
    if kind == "TIFF":
        _check_size(name, _tile_size(image), max_pixels)
    picture = _finish(image, name)
    return picture.copy() if picture is image else picture  # let go of the file


def _decoder_for(prefix: bytes, name: str) -> tuple[str, _Decoder]:
    for kind, (decoder, test) in _decoders().items():
        if _accepted(test, prefix):
            return kind, decoder
    for kind in _REGISTERED:
        if kind in Image.OPEN:
            factory, registered_test = Image.OPEN[kind]
            if registered_test is not None and _accepted(registered_test, prefix):
                return kind, factory
    hint = _READABLE
    if prefix[4:8] == b"ftyp":
        hint = "for HEIC, install pillow-heif and call its register_heif_opener()"
    raise PictureError(f"{name} is not a picture of a kind that Sigrun reads", hint=hint)


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


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
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


def _finish(image: Image.Image, name: str) -> Image.Image:
    """Decode, convert and turn; the result carries no metadata that would ask for any of it once more."""
    try:
        image.load()
        turn = _turn(image)  # after load(): TIFF pictures are turned by their decoder
        picture = to_rgb(image)
        if turn is not None:
            picture = picture.transpose(turn)
    except Exception as error:
        raise PictureError(f"{name} cannot be decoded: {_reason(error)}") from error
    if picture is not image:
        picture.info.clear()
    return picture


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(_ORIENTATION)
        return _TURNS.get(orientation) if isinstance(orientation, int) else None
    except Exception:  # damaged EXIF takes no picture down
        return None


def _reason(error: Exception) -> str:
    """What a decoder's exception means to somebody who only has the picture."""
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, _GARBLED):
        return "it is damaged or cut short"
    return str(error) or type(error).__name__
