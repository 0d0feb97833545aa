"""Pictures from wherever they come, upright and in RGB."""

from __future__ import annotations

import os
import stat
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sigrun import data_uri
from sigrun.decoders import DEFAULT_MAX_PIXELS, Decode, Opened, Rules, check_size, decode, finish
from sigrun.errors import PictureError

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "Decode",
    "Opened",
    "Picture",
    "Rules",
    "open_picture",
    "read_picture",
    "settled",
]

Picture = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[Any]

_LONGEST_NAME: Final = 300  # characters of a path in a message


def open_picture(source: Picture, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Read a picture, turn it upright (EXIF), and convert it to RGB (see :func:`sigrun.colour.to_rgb`).

    Of an animation or a file of several pages the first is taken.

    Args:
        source: a path; a data URI, which is a string that begins with ``data:``; the bytes of a file; a binary stream,
            read from where it stands to its end; a Pillow image, which is left as it is; or an array, uint8 [H, W] or
            [H, W, C] with 1, 3 (RGB) or 4 (RGBA) channels.
        max_pixels: refuse pictures of more pixels, before decoding them.

    Returns:
        A picture in mode RGB; ``source`` itself if that is a Pillow image with nothing to change.

    Raises:
        PictureError: the picture cannot be read; the message names the file.
    """
    return read_picture(source, Rules(max_pixels)).image


def read_picture(source: Picture, rules: Rules) -> Opened:
    """As :func:`open_picture`, by any rules, and with what there is to say of the picture.

    Raises:
        PictureError: the picture cannot be read; the message names the file.
    """
    if isinstance(source, Image.Image):
        return _from_image(source, rules.max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, rules.max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode(BytesIO(source), "<bytes>", rules)
    if isinstance(source, str) and data_uri.is_data_uri(source):
        return decode(BytesIO(data_uri.data_uri_bytes(source)), data_uri.NAME, rules)
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source, rules)
    if hasattr(source, "read"):
        return _from_stream(source, rules)
    raise PictureError(
        f"{'None' if source is None else f'an object of type {type(source).__name__}'} is not a picture",
        hint="give a path, a data URI, bytes, a binary stream, a Pillow image or a uint8 array",
    )


def settled(source: Picture) -> bool:
    """Whether a source says the same whenever it is read, and so may be read later and on another thread.

    Paths, data URIs and bytes do. Streams move, images and arrays may be changed by their owner.
    """
    return isinstance(source, (str, os.PathLike, bytes))


def _from_path(path: str | os.PathLike[str], rules: Rules) -> Opened:
    name = os.fsdecode(os.fspath(path)).encode("utf-8", "backslashreplace").decode("utf-8")
    shown = name if len(name) <= _LONGEST_NAME else f"{name[:60]}… ({len(name)} characters)"
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise PictureError(f"{shown} is a directory", hint="name a picture in it")
        if not stat.S_ISREG(mode):
            raise PictureError(f"{shown} is not a regular file", hint="open it and give the stream")
        with Path(path).open("rb") as stream:
            return decode(stream, shown, rules)
    except FileNotFoundError as error:
        remote = name.startswith(("http:", "https:"))
        raise PictureError(
            f"{shown} does not exist",
            hint="Sigrun fetches nothing: download it and give the file or its bytes" if remote else None,
        ) from error
    except OSError as error:
        hint = (
            "a picture in base64 is given as a data URI: data:image/png;base64,…" if shown != name else None
        )
        raise PictureError(f"{shown} cannot be read: {error.strerror or error}", hint=hint) from error
    except ValueError as error:  # a NUL in the path
        raise PictureError(f"{shown!a} is not a path: {error}") from error


def _from_stream(stream: Any, rules: Rules) -> Opened:
    label = getattr(stream, "name", None)
    name = label if isinstance(label, str) else "<stream>"
    try:
        data = stream.read()
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise PictureError(f"{name} cannot be read: {error}") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise PictureError(f"{name} is a text stream", hint="open the file in binary mode, 'rb'")
    return decode(BytesIO(data), name, rules)


def _from_image(image: Image.Image, max_pixels: int) -> Opened:
    name = getattr(image, "filename", "") or "<image>"
    name = name if isinstance(name, str) else os.fsdecode(name)
    check_size(name, image.size, max_pixels)
    return finish(image, name)


def _from_array(array: NDArray[Any], max_pixels: int) -> Opened:
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
    check_size("<array>", (array.shape[1], array.shape[0]), max_pixels)
    return finish(Image.fromarray(np.ascontiguousarray(array)), "<array>")
