"""The many ways in which a picture can be bad: each is a PictureError that names it."""

from __future__ import annotations

import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from sigrun.errors import PictureError
from sigrun.pictures import DEFAULT_MAX_PIXELS, open_picture
from tests.picture_files import ARRAY, png, stored

# --- no picture


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
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50, "pillow-heif|HEIF picture: it is damaged"),
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
