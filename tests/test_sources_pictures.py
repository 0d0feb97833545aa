"""Cropped pictures, which timm's checkpoints ask for; squashed ones are tests/test_pixels.py's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sigrun.errors import ArtifactError, PictureError
from sigrun.pixels import Preprocessing, to_pixels

HALF = (0.5, 0.5, 0.5)


def crop(side: int, short_side: int, **more: Any) -> Preprocessing:
    return Preprocessing(side, side, HALF, HALF, geometry="crop", short_side=short_side, **more)


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("size", "whole", "corner"),
    [
        ((40, 40), (20, 20), (2, 2)),
        ((80, 40), (40, 20), (12, 2)),
        ((40, 81), (20, 40), (2, 12)),
        ((41, 100), (20, 48), (2, 16)),  # 48.78 is cut to 48
        ((10, 15), (20, 30), (2, 7)),
        ((3, 1), (60, 20), (22, 2)),
    ],
)
def test_the_shorter_side_is_made_to_fit_and_the_middle_is_taken(
    size: tuple[int, int], whole: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = picture(*size)
    left, top = corner
    by_hand = image.resize(whole, Image.Resampling.BICUBIC).crop((left, top, left + 16, top + 16))
    expected = (np.asarray(by_hand, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
    found = to_pixels(image, crop(16, 20))
    assert found.shape == (3, 16, 16)
    assert np.abs(found - expected).max() < 1e-6


def test_a_half_is_rounded_to_even() -> None:
    """(21 - 16) / 2 = 2.5 becomes 2, (23 - 16) / 2 = 3.5 becomes 4."""
    image = picture(21, 23)
    assert np.array_equal(to_pixels(image, crop(16, 21)), to_pixels(image.crop((2, 4, 18, 20)), crop(16, 16)))


def test_pictures_too_narrow_to_crop_are_refused() -> None:
    with pytest.raises(PictureError, match="1 x 60000 is too long and narrow"):
        to_pixels(Image.new("RGB", (1, 60000)), crop(16, 20))


def test_settings_go_through_json() -> None:
    settings = crop(16, 20)
    assert Preprocessing.from_json(settings.to_json()) == settings
    assert settings.in_words() == "shorter side made 20, then the middle 16 x 16 cropped"
    assert Preprocessing(16, 20, HALF, HALF).in_words() == "squashed to 20 x 16"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_side": None}, "geometry 'crop' and short_side None"),
        ({"geometry": "squash"}, "geometry 'squash' and short_side 20"),
        ({"short_side": 15}, "shorter side is 15"),
        ({"short_side": 10**6}, "short_side"),
        ({"short_side": True}, "short_side"),
        ({"geometry": "pad"}, "'pad'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    data: dict[str, Any] = {**crop(16, 20).to_json()}
    with pytest.raises(ArtifactError, match=message):
        Preprocessing.from_json(data | changes)
