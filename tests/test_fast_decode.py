"""JPEG files decoded small: how far the pixels move, and that nothing else does.

The figures in docs/pictures.md are printed by ``python -m tests.test_fast_decode``.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sigrun import Siglip
from sigrun.decoders import Rules
from sigrun.errors import PictureError
from sigrun.pictures import read_picture
from sigrun.pixels import Preprocessing, to_pixels
from tests.picture_files import stored
from tests.test_colour import swapped_profile

# Values of 0 to 255 as they are: differences are those of 8-bit pixels.
SIDE = 96
SQUASH = Preprocessing(SIDE, SIDE, (0.0,) * 3, (1 / 255,) * 3)
CROP = Preprocessing(84, 84, (0.0,) * 3, (1 / 255,) * 3, geometry="crop", short_side=SIDE)
SIZES = [(1000, 750), (750, 1000), (800, 800), (511, 389), (401, 1600), (385, 387), (1537, 1543)]
MEAN, WORST = 1.0, 12.0  # of 255; measured: 0.89 and 10, where a little more than twice the size is left


def photo(width: int, height: int) -> Image.Image:
    """Something with the statistics of a photograph: 1/f detail, correlated channels, hard edges."""
    rng = np.random.default_rng(width * 10_000 + height)
    spread = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spread[0, 0] = np.inf

    def detail() -> NDArray[np.float64]:
        spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / spread**1.1
        values: NDArray[np.float64] = np.fft.irfft2(spectrum, (height, width))
        return values / values.std()

    light, warm, green = detail(), detail(), detail()
    rgb = np.stack([light + 0.4 * warm, light - 0.2 * warm + 0.2 * green, light - 0.5 * green], -1) * 45 + 120
    y, x = np.mgrid[:height, :width]
    for _ in range(30):
        across, down, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.02, 0.15)
        disc = (x - across) ** 2 + (y - down) ** 2 < (radius * min(width, height)) ** 2
        rgb[disc] = 0.3 * rgb[disc] + 0.7 * rng.uniform(0, 255, 3)
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))


def pixels(data: Any, way: Any, preprocessing: Preprocessing = SQUASH) -> NDArray[np.float32]:
    opened = read_picture(data, Rules(decode=way, least=preprocessing.least))
    return to_pixels(opened.image, preprocessing, opened.box)


def moved(data: bytes, preprocessing: Preprocessing = SQUASH) -> tuple[float, float]:
    """Mean and worst distance of fast from exact pixels, of 255."""
    apart = np.abs(pixels(data, "fast", preprocessing) - pixels(data, "exact", preprocessing))
    return float(apart.mean()), float(apart.max())


def decoded_at(data: bytes, preprocessing: Preprocessing = SQUASH) -> tuple[int, int]:
    return read_picture(data, Rules(decode="fast", least=preprocessing.least)).image.size


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("preprocessing", [SQUASH, CROP], ids=["squash", "crop"])
@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 75, "progressive": True}], ids=str)
def test_pixels_move_little(size: tuple[int, int], preprocessing: Preprocessing, options: Any) -> None:
    data = stored("JPEG", photo(*size), **options)
    assert decoded_at(data, preprocessing) != size
    mean, worst = moved(data, preprocessing)
    assert 0 < mean < MEAN
    assert worst < WORST


@pytest.mark.parametrize(
    ("size", "divisor"),
    [((383, 900), 1), ((384, 900), 2), ((900, 767), 2), ((900, 768), 4), ((2000, 1536), 8), ((9000, 383), 1)],
)
def test_twice_the_towers_size_is_left(size: tuple[int, int], divisor: int) -> None:
    data = stored("JPEG", Image.new("RGB", size))
    assert decoded_at(data) == tuple(-(-side // divisor) for side in size)
    if divisor == 1:
        assert moved(data) == (0, 0)


def test_a_tower_that_is_not_square() -> None:
    wide = Preprocessing(50, 200, (0.0,) * 3, (1 / 255,) * 3)
    assert decoded_at(stored("JPEG", Image.new("RGB", (800, 200))), wide) == (400, 100)
    assert decoded_at(stored("JPEG", Image.new("RGB", (200, 800))), wide) == (200, 800)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side in the file
    assert decoded_at(stored("JPEG", Image.new("RGB", (200, 800)), exif=exif), wide) == (400, 100)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_with_the_edge_that_was_filled_up(orientation: int) -> None:
    """Sides of 8 n + 1 leave seven eighths of a small pixel outside the picture: on the side where it then lies."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = photo(801, 1601)
    data = stored("JPEG", upright, quality=95, exif=exif)
    opened = read_picture(data, Rules(decode="fast", least=SQUASH.least))
    assert opened.box is not None
    turned = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    width, height = turned.size
    assert opened.box[2] - opened.box[0] == width / 4
    assert opened.box[3] - opened.box[1] == height / 4
    assert opened.image.size == (-(-width // 4), -(-height // 4))
    straight = moved(stored("JPEG", upright, quality=95))[0]
    assert moved(data)[0] == pytest.approx(straight, rel=0.05)


def test_other_colours() -> None:
    image = photo(800, 600)
    inverted = Image.fromarray(255 - np.asarray(image))
    cmyk = Image.merge("CMYK", [*inverted.split(), Image.new("L", image.size, 20)])
    for data in (
        stored("JPEG", image.convert("L")),
        stored("JPEG", cmyk),
        stored("JPEG", image, subsampling=0),
        stored("JPEG", image, icc_profile=swapped_profile()),
    ):
        assert decoded_at(data) == (400, 300)
        mean, worst = moved(data)
        assert mean < MEAN
        assert worst < WORST


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_other_formats_are_read_as_ever(kind: str) -> None:
    assert moved(stored(kind, photo(500, 400))) == (0, 0)
    assert decoded_at(stored(kind, photo(500, 400))) == (500, 400)


def test_pillow_images_are_left_alone() -> None:
    with Image.open(BytesIO(stored("JPEG", photo(500, 400)))) as image:
        assert read_picture(image, Rules(decode="fast", least=(4, 4))).image.size == (500, 400)


def test_without_a_size_nothing_is_decoded_small() -> None:
    assert read_picture(stored("JPEG", photo(500, 400)), Rules(decode="fast")).image.size == (500, 400)


def test_the_cap_is_on_the_whole_picture() -> None:
    with pytest.raises(PictureError, match="at most 0 million"):
        read_picture(stored("JPEG", photo(500, 400)), Rules(199_999, "fast", (4, 4)))


def test_a_file_cut_short_is_still_an_error() -> None:
    data = stored("JPEG", photo(800, 600))
    with pytest.raises(PictureError, match="cannot be decoded"):
        read_picture(data[: len(data) // 2], Rules(decode="fast", least=SQUASH.least))


def test_a_model_decodes_as_it_was_loaded(emoji_q4: Path) -> None:
    data = stored("JPEG", photo(500, 400))
    found = {}
    for way in ("exact", "fast"):
        with Siglip.load(emoji_q4, compute="exact", decode=way, threads=1) as model:
            rules = model._eyes([]).rules
            assert (rules.decode, rules.least) == (way, (60, 60))
            found[way] = model.embed_images([data, stored("PNG")]).vectors
    assert found["exact"][0] @ found["fast"][0] > 0.99
    assert (found["exact"][0] != found["fast"][0]).any()
    np.testing.assert_allclose(found["exact"][1], found["fast"][1], atol=2e-6)


def main() -> None:
    """Print how far the pixels of a tower of 384 x 384 move."""
    tower = Preprocessing(384, 384, (0.0,) * 3, (1 / 255,) * 3)
    print("| picture | decoded at | mean | worst |\n|---|---|---|---|")
    for width, height in [(8000, 6000), (6000, 4000), (4000, 3000), (3072, 3072), (1600, 1600), (1920, 1080)]:
        data = stored("JPEG", photo(width, height), quality=90)
        small, (mean, worst) = decoded_at(data, tower), moved(data, tower)
        print(f"| {width} × {height} | {small[0]} × {small[1]} | {mean:.2f} | {worst:.0f} |")


if __name__ == "__main__":
    main()
