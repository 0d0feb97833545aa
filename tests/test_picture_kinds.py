"""What docs/pictures.md says of every kind of picture is what happens to it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from sigrun.errors import PictureError
from sigrun.pictures import Rules, open_picture, read_picture
from sigrun.pixels import Preprocessing, to_pixels
from tests.checkpoints import ROOT
from tests.picture_files import stored
from tests.picture_kinds import GREYS, KINDS, Kind, grey, halves, image, png16, table, turned

PAGE = (ROOT / "docs" / "pictures.md").read_text("utf-8")


def test_the_page_holds_the_table() -> None:
    assert table() in PAGE, "paste what python -m tests.picture_kinds prints"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_becomes_what_the_page_says(kind: Kind) -> None:
    if kind.name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    source = kind.make()
    if kind.colours is None:
        with pytest.raises(PictureError) as caught:
            read_picture(source, Rules())
        assert kind.error in str(caught.value)
        return
    opened = read_picture(source, Rules())
    assert opened.note == kind.note
    assert opened.image.mode == "RGB"
    values = np.asarray(opened.image).astype(int)
    width = values.shape[1]
    for half, colour in zip(
        (values[:, : -(-width // 2)], values[:, width // 2 :]), kind.colours, strict=True
    ):
        # where the halves meet, formats that lose something blur
        calm = half[:, 1:-1] if kind.tolerance > 2 and width > 2 else half
        assert np.abs(calm - colour).max() <= kind.tolerance
    tower = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
    assert np.isfinite(to_pixels(opened.image, tower, opened.box)).all()


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_turned_pictures_lie_otherwise_in_their_files(orientation: int) -> None:
    """Else following the orientation or not would be the same. Turning upside down alone shows in neither half."""
    lying = Image.fromarray(np.arange(8 * 16, dtype=np.uint8).reshape(8, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert not np.array_equal(np.asarray(open_picture(stored("PNG", lying, exif=exif)))[:, :, 0], lying)
    if orientation != 4:
        with Image.open(BytesIO(turned(orientation))) as raw:
            assert not np.array_equal(np.asarray(raw), np.asarray(image()))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_every_format_named_is_read(kind: str) -> None:
    found = np.asarray(open_picture(stored(kind, image().resize((64, 64), 0)))).astype(int)
    assert np.abs(found[:, :24] - (210, 40, 30)).max() < 12
    assert np.abs(found[:, -24:] - (20, 60, 200)).max() < 12


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_further_frames_are_said_and_single_ones_are_not(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    more = [Image.new("RGB", (16, 8), (0, 60 * i, 0)) for i in range(1, 5)]
    note = read_picture(stored(kind, image(), save_all=True, append_images=more), Rules()).note
    assert note == f"one of 5 {'pages' if kind == 'TIFF' else 'frames'}: the first was taken"
    assert read_picture(stored(kind, image()), Rules()).note is None


def test_a_damaged_second_frame_does_no_harm_to_the_first() -> None:
    more = [Image.effect_noise((16, 8), 80).convert("RGB") for _ in range(5)]
    data = stored("GIF", image(), save_all=True, append_images=more)
    opened = read_picture(data[: len(data) * 2 // 3], Rules())
    assert np.abs(np.asarray(opened.image).astype(int) - np.asarray(image())).max() <= 2
    assert opened.note is not None


def test_a_transparent_value_of_sixteen_bits_is_white() -> None:
    plain = Image.fromarray(halves(77 * 257, 180 * 257, np.uint16))
    values = np.asarray(open_picture(stored("PNG", plain, transparency=77 * 257)))
    assert (values[:, :8] == 255).all()
    assert (values[:, 8:] == 180).all()
    same = png16(0, halves(*(v * 257 for v in GREYS), np.uint16))
    assert (np.asarray(open_picture(same))[:, :8] == grey(77)).all()
