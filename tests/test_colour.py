"""Every picture mode to RGB."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from sigrun.pictures import open_picture
from tests.picture_files import stored

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 256, (height, width, channels), np.uint8)


def pixels(source: Any) -> np.ndarray:
    picture = open_picture(source)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def same(found: np.ndarray, expected: Any, tolerance: int = 0) -> None:
    difference = np.abs(found.astype(np.int16) - np.asarray(expected, np.int16))
    assert difference.max() <= tolerance


def test_rgb_is_left_alone() -> None:
    array = noise(5, 6, 3)
    image = Image.fromarray(array)
    assert open_picture(image) is image
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        same(pixels(stored(kind, image)), array)
    same(pixels(stored("WEBP", image, lossless=True)), array)


def test_jpeg_is_what_pillow_decodes() -> None:
    data = stored("JPEG", Image.fromarray(noise(40, 50, 3)), quality=80)
    with Image.open(BytesIO(data)) as image:
        same(pixels(data), np.asarray(image))


def test_grey() -> None:
    grey = noise(4, 5, 1)[:, :, 0]
    same(pixels(stored("PNG", Image.fromarray(grey))), np.repeat(grey[:, :, None], 3, 2))
    same(pixels(stored("JPEG", Image.fromarray(grey), quality=100)), np.repeat(grey[:, :, None], 3, 2), 4)


def test_one_bit() -> None:
    bits = np.array([[True, False], [False, True]])
    image = Image.fromarray(bits)
    assert image.mode == "1"
    for source in (image, stored("PNG", image), stored("TIFF", image)):
        same(pixels(source), np.repeat((bits * 255)[:, :, None], 3, 2))


def test_palette() -> None:
    image = Image.fromarray(np.array([[RED, GREEN], [BLUE, RED]], np.uint8)).quantize(3)
    assert image.mode == "P"
    for source in (image, stored("PNG", image), stored("GIF", image), stored("BMP", image)):
        same(pixels(source), [[RED, GREEN], [BLUE, RED]])


def test_alpha_is_composited_over_white() -> None:
    array = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 128]]], np.uint8)
    image = Image.fromarray(array)
    expected = [[[200, 100, 0], [255, 255, 255], [227, 177, 127]]]
    for source in (array, image, stored("PNG", image), stored("TIFF", image), image.convert("RGBa")):
        same(pixels(source), expected, 1)
    same(pixels(stored("WEBP", image, lossless=True, exact=True)), expected, 1)


def test_full_opacity_changes_nothing() -> None:
    array = np.concatenate([noise(8, 8, 3), np.full((8, 8, 1), 255, np.uint8)], axis=2)
    same(pixels(array), array[:, :, :3])


def test_grey_with_alpha() -> None:
    image = Image.merge("LA", [Image.new("L", (2, 1), 100), Image.fromarray(np.array([[255, 0]], np.uint8))])
    for source in (image, stored("PNG", image), image.convert("La")):
        same(pixels(source), [[[100] * 3, [255] * 3]])


def test_palette_with_transparency() -> None:
    image = Image.fromarray(np.array([[RED, GREEN]], np.uint8)).quantize(2)
    clear = int(np.asarray(image)[0, 0])
    for kind in ("PNG", "GIF"):
        same(pixels(stored(kind, image, transparency=clear)), [[[255] * 3, GREEN]])
    alphas = bytes(0 if i == clear else 255 for i in range(2))
    same(pixels(stored("PNG", image, transparency=alphas)), [[[255] * 3, GREEN]])
    with_alpha = image.copy()
    with_alpha.info["transparency"] = clear
    same(pixels(with_alpha.convert("PA")), [[[255] * 3, GREEN]])


@pytest.mark.parametrize(
    ("image", "key", "expected"),
    [
        (Image.fromarray(np.array([[RED, GREEN]], np.uint8)), RED, [[[255] * 3, GREEN]]),
        (Image.fromarray(np.array([[7, 9]], np.uint8)), 7, [[[255] * 3, [9] * 3]]),
        (Image.fromarray(np.array([[True, False]])), 0, [[[255] * 3, [255] * 3]]),
    ],
    ids=["RGB", "L", "1"],
)
def test_colour_keys(image: Image.Image, key: Any, expected: Any) -> None:
    same(pixels(stored("PNG", image, transparency=key)), expected)


def test_sixteen_bit_grey_is_scaled() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65407, 65535]], np.uint16)
    expected = np.repeat(np.array([[0, 0, 1, 1, 128, 255, 255]])[:, :, None], 3, 2)
    image = Image.fromarray(values)
    assert image.mode == "I;16"
    for source in (image, stored("PNG", image), stored("TIFF", image)):
        same(pixels(source), expected)
    big = Image.frombytes("I;16B", (7, 1), values.astype(">u2").tobytes())
    same(pixels(big), expected)
    header = b"P5 7 1 65535\n"
    same(pixels(header + values.astype(">u2").tobytes()), expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 257, 65535], [0, 1, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 500_000, 1_000_000], [0, 128, 255]),
        ([2**31 - 1, -(2**31), 0], [255, 0, 128]),
        ([70_000, 70_000, 70_000], [0, 0, 0]),
    ],
)
def test_integers(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    assert image.mode == "I"
    for source in (image, stored("TIFF", image)):
        same(pixels(source)[0, :, 0], expected, 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 5e29, 1e30], [0, 128, 255]),
        ([np.nan, 0.0, 1.0], [0, 0, 255]),
        ([-np.inf, 1.0, np.inf], [255, 255, 255]),
        ([np.nan, np.nan, np.nan], [0, 0, 0]),
        ([-3.0, -3.0, -3.0], [0, 0, 0]),
    ],
)
def test_floats(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    for source in (image, stored("TIFF", image)):
        same(pixels(source)[0, :, 0], expected, 1)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_other_colour_models(mode: str) -> None:
    image = Image.fromarray(
        np.array([[RED, [90, 90, 90], [255, 255, 255]]], np.uint8).repeat(16, 0).repeat(16, 1)
    )
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.applyTransform(image, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    else:
        converted = image.convert(mode)
    assert converted is not None
    same(pixels(converted), np.asarray(image), 6)
    if mode == "CMYK":
        same(pixels(stored("TIFF", converted)), np.asarray(image), 4)
    if mode in ("CMYK", "YCbCr"):
        same(pixels(stored("JPEG", converted, quality=100, subsampling=0)), np.asarray(image), 20)


def swapped_profile() -> bytes:
    """An RGB profile in which red and green have changed places: sRGB with its colorant tags renamed."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")


def test_a_profile_is_applied() -> None:
    image = Image.fromarray(np.array([[RED, GREEN, BLUE, [255, 255, 255], [10, 200, 30]]], np.uint8))
    expected = [[GREEN, RED, BLUE, [255, 255, 255], [200, 10, 30]]]
    profile = swapped_profile()
    for kind in ("PNG", "TIFF"):
        same(pixels(stored(kind, image, icc_profile=profile)), expected, 2)
    same(pixels(stored("WEBP", image, lossless=True, icc_profile=profile)), expected, 2)
    image.info["icc_profile"] = profile
    same(pixels(image), expected, 2)
    once = open_picture(image)
    assert open_picture(once) is once


def test_a_profile_is_applied_under_alpha_palette_and_grey() -> None:
    profile = swapped_profile()
    array = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    same(pixels(stored("PNG", Image.fromarray(array), icc_profile=profile)), [[GREEN, [255] * 3]], 2)
    palette = Image.fromarray(np.array([[RED, GREEN]], np.uint8)).quantize(2)
    same(pixels(stored("PNG", palette, icc_profile=profile)), [[GREEN, RED]], 2)
    grey = Image.new("L", (2, 1), 77)
    same(pixels(stored("PNG", grey, icc_profile=profile)), [[[77] * 3] * 2], 2)


def test_a_profile_that_is_srgb_changes_no_bit() -> None:
    array = noise(30, 30, 3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same(pixels(stored("PNG", Image.fromarray(array), icc_profile=profile)), array)


@pytest.mark.parametrize("where", [0, 16, 36, 64, 132, 200])
def test_an_invalid_profile_is_ignored(where: int) -> None:
    profile = bytearray(swapped_profile())
    profile[where : where + 4] = b"\xff" * 4
    array = noise(3, 3, 3)
    image = Image.fromarray(array)
    found = pixels(stored("TIFF", image, icc_profile=bytes(profile)))
    assert found.shape == array.shape
    if where in (16, 36):  # the colour space, the signature
        same(found, array)


@pytest.mark.parametrize("profile", [b"", b"x", b"\0" * 128, b"no profile at all" * 20])
def test_what_is_no_profile_is_ignored(profile: bytes) -> None:
    array = noise(3, 3, 3)
    image = Image.fromarray(array)
    image.info["icc_profile"] = profile
    same(pixels(image), array)


def test_a_profile_of_another_kind_is_ignored() -> None:
    image = Image.fromarray(noise(3, 3, 3)).convert("CMYK")
    image.info["icc_profile"] = swapped_profile()
    same(pixels(image), np.asarray(image.convert("RGB")))
