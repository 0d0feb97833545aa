"""Pictures from wherever they come, and the many ways in which they can be bad."""

from __future__ import annotations

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from sigrun.errors import PictureError
from sigrun.pictures import DEFAULT_MAX_PIXELS, open_picture

ARRAY = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def stored(kind: str = "PNG", image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = BytesIO()
    (image or Image.fromarray(ARRAY)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


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


# --- bad files


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="does not exist") as caught:
        open_picture(tmp_path / "none.png")
    assert "none.png" in caught.value.message


def test_urls_are_not_fetched() -> None:
    with pytest.raises(PictureError, match="download it"):
        open_picture("https://example.org/cat.jpg")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="is a directory"):
        open_picture(tmp_path)


def test_nul_in_a_path() -> None:
    with pytest.raises(PictureError, match="not a path"):
        open_picture("a\0b.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PictureError, match="not a regular file"):
        open_picture(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\0", "not a picture"),
        (b"hello, world", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),  # PostScript is a program
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50, "pillow-heif"),
        (b"\x89PNG\r\n\x1a\n", "no readable PNG picture: it is damaged or cut short"),
        (b"\xff\xd8\xff", "no readable JPEG picture: it is damaged or cut short"),
        (b"GIF89a", "nothing in it"),
        (b"BM" + b"\0" * 60, "BMP"),
    ],
)
def test_no_picture(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for source, name in ((data, "<bytes>"), (path, str(path)), (BytesIO(data), "<stream>")):
        with pytest.raises(PictureError, match=message) as caught:
            open_picture(source)
        assert name in caught.value.message


def test_a_stream_is_named_where_it_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "empty.png"
    path.touch()
    with path.open("rb") as stream, pytest.raises(PictureError, match=r"empty\.png"):
        open_picture(stream)


def test_heic_is_read_where_a_decoder_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def accepts(prefix: bytes) -> bool:
        return prefix[4:12] == b"ftypheic"

    def decoder(stream: Any, name: str | bytes = "") -> Image.Image:
        assert stream.read(4) == b"\0\0\0\x18"  # from the beginning
        return Image.fromarray(ARRAY)

    monkeypatch.setitem(Image.OPEN, "HEIF", (decoder, accepts))
    assert (np.asarray(open_picture(b"\0\0\0\x18ftypheic\0\0\0\0")) == ARRAY).all()


def test_threads() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [
        stored("JPEG", exif=exif),
        stored("PNG"),
        stored("GIF"),
        stored("WEBP"),
        b"none",
        png(30_000, 30_000),
    ] * 20

    def work(data: bytes) -> bytes:
        try:
            return open_picture(data).tobytes()
        except PictureError as error:
            return error.message.encode()

    expected = [work(data) for data in files]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, files)) == expected


def test_text_and_closed_streams() -> None:
    with pytest.raises(PictureError, match="text stream"):
        open_picture(io.StringIO("a"))  # type: ignore[arg-type]
    closed = BytesIO(stored())
    closed.close()
    with pytest.raises(PictureError, match="cannot be read"):
        open_picture(closed)


def test_an_image_whose_file_is_closed() -> None:
    stream = BytesIO(stored())
    image = Image.open(stream)
    stream.close()
    with pytest.raises(PictureError, match="<image>"):
        open_picture(image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(kind: str, share: float, tmp_path: Path) -> None:
    data = stored(kind)
    path = tmp_path / "cut.img"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PictureError, match=r"cut\.img"):
        open_picture(path)


# --- size


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (30_000, 30_000, "900 million"),
        (2**31 - 1, 2**31 - 1, "million"),
        (2**31 - 1, 1, "million"),
        (50_000_000, 1, "no side may exceed"),
        (0, 5, "PNG|nothing in it"),
    ],
)
def test_absurd_sizes_are_refused_by_the_header(width: int, height: int, message: str) -> None:
    with pytest.raises(PictureError, match=message) as caught:
        open_picture(png(width, height))
    assert "<bytes>" in caught.value.message


def test_pixel_cap() -> None:
    assert open_picture(stored(), max_pixels=600).size == (30, 20)
    for source in (stored(), ARRAY, Image.fromarray(ARRAY), BytesIO(stored("GIF"))):
        with pytest.raises(PictureError, match="max_pixels"):
            open_picture(source, max_pixels=599)


def test_a_higher_cap_outdoes_pillows() -> None:
    # between Pillow's warning and its error, and beyond both: the pictures are cut short, but not refused for size
    for width in (10_000, 20_000):
        with pytest.raises(PictureError, match="cannot be decoded"):
            open_picture(png(width, 10_000), max_pixels=10**9)


def test_a_gif_frame_larger_than_its_canvas() -> None:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 12_000, 12_000, 0) + b"\x02\x02\x4c\x01\0;"
    for extension in (b"", b"!\xf9\x04\0\0\0\0\0", b"!\xfe\x03abc\x02de\0"):
        data = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0x80, 0, 0) + b"\0" * 6 + extension + frame
        with pytest.raises(PictureError, match="144 million"):
            open_picture(data)


def test_a_tiff_tile_larger_than_its_picture() -> None:
    tags = [(256, 4, 16), (257, 4, 16), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1)]
    tags += [(322, 4, 12_000), (323, 4, 12_000), (324, 4, 8), (325, 4, 4)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4
    with pytest.raises(PictureError, match="144 million"):
        open_picture(data)


def test_pillows_settings_are_left_alone() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID))
    open_picture(stored())
    with pytest.raises(PictureError):
        open_picture(png(30_000, 30_000))
    assert before[:2] == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert before[0] == DEFAULT_MAX_PIXELS


# --- bytes that nobody meant


SEEDS = [
    *(stored(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM")),
    stored("PNG", Image.fromarray(ARRAY).quantize(7), transparency=b"\0\x80"),
    stored("PNG", Image.fromarray(ARRAY).convert("I;16")),
    stored("TIFF", Image.fromarray(ARRAY), compression="tiff_lzw"),
    stored("TIFF", Image.fromarray(ARRAY).convert("CMYK"), compression="tiff_adobe_deflate"),
    stored("JPEG", Image.fromarray(ARRAY).convert("CMYK"), progressive=True),
    stored("GIF", Image.fromarray(ARRAY), save_all=True, append_images=[Image.new("RGB", (30, 20))]),
]


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_damaged_bytes(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        where = data.draw(
            st.one_of(st.integers(0, min(len(content), 200) - 1), st.integers(0, len(content) - 1))
        )
        content[where] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(1, len(content))) :]
    try:
        picture = open_picture(bytes(content), max_pixels=1_000_000)
    except PictureError as error:
        assert "<bytes>" in error.message
        return
    assert picture.mode == "RGB"
    assert np.asarray(picture).shape == (picture.height, picture.width, 3)


@given(st.sampled_from([seed[:12] for seed in SEEDS]), st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_bytes_after_a_good_beginning(prefix: bytes, rest: bytes) -> None:
    try:
        assert open_picture(prefix + rest, max_pixels=1_000_000).mode == "RGB"
    except PictureError as error:
        assert "<bytes>" in error.message
