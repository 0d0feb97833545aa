"""Pictures from wherever they come, upright, and of an animation the first frame."""

from __future__ import annotations

import io
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from sigrun.errors import PictureError
from sigrun.pictures import open_picture
from tests.picture_files import ARRAY, stored


class Unseekable(io.RawIOBase):
    """A pipe."""

    def __init__(self, data: bytes) -> None:
        self._inner = BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._inner.readinto(buffer)


# --- where pictures come from


def test_every_source(tmp_path: Path) -> None:
    data = stored()
    path = tmp_path / "ein Bild ü.png"
    path.write_bytes(data)
    prefixed = BytesIO(b"skipped" + data)
    prefixed.seek(7)
    sources: list[Any] = [path, str(path), data, bytearray(data), memoryview(data), BytesIO(data), prefixed]
    sources += [Unseekable(data), io.BufferedReader(Unseekable(data)), ARRAY, Image.fromarray(ARRAY)]
    for source in sources:
        picture = open_picture(source)
        assert picture.mode == "RGB"
        assert (np.asarray(picture) == ARRAY).all()
    with path.open("rb") as stream:
        assert (np.asarray(open_picture(stream)) == ARRAY).all()


def test_the_file_is_let_go(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"):
        path = tmp_path / f"picture.{kind.lower()}"
        path.write_bytes(stored(kind))
        picture = open_picture(path)
        path.rename(tmp_path / "moved")  # fails on Windows while the file is open
        (tmp_path / "moved").unlink()
        picture.resize((3, 3))


@pytest.mark.parametrize(
    ("shape", "channels"), [((20, 30), 0), ((20, 30, 1), 1), ((20, 30, 3), 3), ((20, 30, 4), 4)]
)
def test_arrays(shape: tuple[int, ...], channels: int) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    if channels == 4:
        array[:, :, 3] = 255
    expected = array[:, :, :3] if channels >= 3 else np.repeat(array.reshape(20, 30, 1), 3, axis=2)
    assert (np.asarray(open_picture(array)) == expected).all()
    assert (np.asarray(open_picture(array[::-2, 3:])) == expected[::-2, 3:]).all()
    assert (np.asarray(open_picture(np.asfortranarray(array))) == expected).all()


def test_an_array_is_not_shared() -> None:
    array = ARRAY.copy()
    picture = open_picture(array)
    array[:] = 0
    assert (np.asarray(picture) == ARRAY).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint16), "uint16"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((4, 4), object), "object"),
        (np.zeros((3, 20, 30), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros(4, np.uint8), r"\(4,\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "nothing in it"),
        (np.zeros((), np.uint8), r"\(\)"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(PictureError, match=message) as caught:
        open_picture(array)
    assert "<array>" in caught.value.message


@pytest.mark.parametrize("source", [None, 3, [ARRAY], {"path": "a.png"}, object()])
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(PictureError, match="is not a picture"):
        open_picture(source)


# --- which way is up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    data = stored(kind, exif=exif, **options)
    with Image.open(BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
        upright = open_picture(image)  # a Pillow image that nobody has turned yet
    found = open_picture(data)
    assert found.size == ((20, 30) if orientation > 4 else (30, 20))
    for picture in (found, upright, open_picture(found), open_picture(upright)):
        assert (np.asarray(picture) == expected).all()


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_senseless_orientation_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert (np.asarray(open_picture(stored(exif=exif))) == ARRAY).all()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0" + b"\xff" * 50, b"garbage"])
def test_damaged_exif_is_ignored(exif: bytes) -> None:
    assert (np.asarray(open_picture(stored(exif=exif))) == ARRAY).all()


def test_the_given_image_stays_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(BytesIO(stored(exif=exif))) as image:
        open_picture(image)
        assert image.size == (30, 20)
        assert image.getexif()[0x0112] == 6
        assert "exif" in image.info


# --- animations


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = stored(kind, frames[0], save_all=True, append_images=frames[1:], **options)
    assert (np.asarray(open_picture(data)) == [255, 0, 0]).all()


def test_an_image_stands_where_its_owner_left_it() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime")]
    with Image.open(BytesIO(stored("GIF", frames[0], save_all=True, append_images=frames[1:]))) as image:
        image.seek(1)
        assert (np.asarray(open_picture(image)) == [0, 255, 0]).all()
