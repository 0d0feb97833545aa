"""Target: pictures of every format that is read."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image, features

from sigrun.errors import PictureError
from sigrun.pictures import Rules, read_picture
from tests.fuzzing import well_refused
from tests.fuzzing.mutate import mutated_bytes
from tests.picture_files import ARRAY, stored

MAX_PIXELS = 250_000


def seeds() -> Iterator[bytes]:
    """Files of every format, with what each of them can hold."""
    picture = Image.fromarray(ARRAY)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"):
        yield stored(kind)
    if features.check("avif"):
        yield stored("AVIF")
    if features.check("jpg_2000"):
        yield stored("JPEG2000")
        yield stored("JPEG2000", picture.convert("L"), no_jp2=True)
    yield _qoi()
    yield stored("PNG", picture.quantize(7), transparency=b"\0\x80")
    yield stored("PNG", picture.convert("I;16"))
    yield stored("PNG", picture, exif=exif, icc_profile=b"\0" * 200)
    yield stored("PNG", picture, save_all=True, append_images=[picture.rotate(90)])
    yield stored("TIFF", picture, compression="tiff_lzw")
    yield stored("TIFF", picture.convert("CMYK"), compression="tiff_adobe_deflate")
    yield stored("TIFF", picture.convert("1"), compression="group4")
    yield stored("TIFF", picture.convert("F"))
    yield stored("TIFF", picture, save_all=True, append_images=[picture], big_tiff=True)
    yield stored("JPEG", picture, exif=exif, comment=b"owl", subsampling=2)
    yield stored("JPEG", picture.convert("CMYK"), progressive=True)
    yield stored("JPEG", picture.resize((320, 200)), progressive=True, restart_marker_rows=1)
    yield stored("GIF", picture, save_all=True, append_images=[Image.new("RGB", (30, 20))], loop=0)
    yield stored("GIF", picture.quantize(5), transparency=2, interlace=1)
    yield stored("WEBP", picture, lossless=True, exif=exif)
    yield stored("WEBP", picture, save_all=True, append_images=[picture.rotate(90)])
    yield stored("BMP", picture.quantize(4))


def _qoi() -> bytes:
    """A QOI file of eight pixels: two written out, the rest a run."""
    head = b"qoif" + (4).to_bytes(4, "big") + (2).to_bytes(4, "big") + b"\x03\x00"
    return head + b"\xfe\x10\x20\x30" + b"\xfe\x40\x50\x60" + b"\xc5" + bytes(7) + b"\x01"


class Pictures:
    """The reader of pictures: a picture, or a PictureError; no warning, nothing printed."""

    name, cap_mib, pace = "picture", 128, 8000

    def __init__(self) -> None:
        self.seeds = list(seeds())
        for seed in self.seeds:
            read_picture(seed, Rules(MAX_PIXELS))

    def sound(self) -> bytes:
        return self.seeds[0]

    def case(self, rng: random.Random) -> bytes:
        seed = rng.choice(self.seeds)
        if rng.random() < 0.1:  # the end of another file, often of another format
            other = rng.choice(self.seeds)
            return seed[: rng.randrange(len(seed))] + other[rng.randrange(len(other)) :]
        return mutated_bytes(seed, rng, front=120)

    def read(self, content: bytes, place: Path) -> bool:
        rules = Rules(MAX_PIXELS, "fast" if len(content) % 2 else "exact", (16, 16))
        said = io.StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(said), warnings.catch_warnings():
                warnings.simplefilter("error")
                opened = read_picture(content, rules)
        except PictureError as error:
            assert "not enough memory" not in error.message
            return well_refused(error, "<bytes>")
        finally:
            assert not said.getvalue(), said.getvalue()
        assert opened.image.mode == "RGB"
        assert np.asarray(opened.image).shape == (opened.image.height, opened.image.width, 3)
        assert opened.image.height * opened.image.width <= MAX_PIXELS
        return True
