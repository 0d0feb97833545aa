"""Pixel values and the settings behind them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from sigrun.errors import ArtifactError, PictureError
from sigrun.pixels import Preprocessing, open_picture, to_pixels
from tests.real_tokenizer import DATA

SIGLIP = Preprocessing(384, 384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
JSON = {
    "height": 384,
    "width": 384,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "resample": "bicubic",
    "geometry": "squash",
}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 10007 + width).integers(0, 256, (height, width, 3), np.uint8)


def test_shape_type_and_range() -> None:
    pixels = to_pixels(open_picture(noise(50, 70)), SIGLIP)
    assert pixels.shape == (3, 384, 384)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    assert pixels.min() >= -1.0
    assert pixels.max() <= 1.0


def test_black_and_white() -> None:
    for value, expected in ((0, -1.0), (255, 1.0)):
        pixels = to_pixels(open_picture(np.full((9, 9, 3), value, np.uint8)), SIGLIP)
        assert (pixels == expected).all()


def test_a_picture_of_the_right_size_is_only_normalized() -> None:
    settings = Preprocessing(5, 7, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    array = noise(5, 7)
    unit = (array.astype(np.float64) * 0.00392156862745098).astype(np.float32)  # [H, W, 3]
    expected = (unit - np.array(settings.mean, np.float32)) / np.array(settings.std, np.float32)
    found = to_pixels(open_picture(array), settings)
    assert found.tobytes() == np.ascontiguousarray(expected.transpose(2, 0, 1)).tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (2, 65535), (3, 3), (384, 384), (385, 383)])
def test_any_shape_is_squashed(shape: tuple[int, int]) -> None:
    pixels = to_pixels(open_picture(noise(*shape)), SIGLIP)
    assert pixels.shape == (3, 384, 384)
    assert np.isfinite(pixels).all()


def test_nothing_is_cropped() -> None:
    array = np.zeros((100, 400, 3), np.uint8)
    array[:, :100] = 255  # the left quarter is white
    pixels = to_pixels(open_picture(array), SIGLIP)
    assert (pixels[:, :, :90] > 0.9).all()
    assert (pixels[:, :, 102:] < -0.9).all()


def test_channels_are_red_green_blue() -> None:
    array = np.zeros((4, 4, 3), np.uint8)
    array[:, :, 0] = 255
    pixels = to_pixels(open_picture(array), SIGLIP)
    assert (pixels[0] == 1.0).all()
    assert (pixels[1:] == -1.0).all()


def test_height_and_width_are_not_swapped() -> None:
    assert to_pixels(open_picture(noise(8, 8)), Preprocessing(10, 20, (0, 0, 0), (1, 1, 1))).shape == (
        3,
        10,
        20,
    )


def test_only_rgb_is_taken() -> None:
    with pytest.raises(PictureError, match="mode L"):
        to_pixels(Image.new("L", (4, 4)), SIGLIP)


def test_values_are_those_of_transformers() -> None:
    stored = np.load(DATA / "inputs_reference.npz", allow_pickle=False)
    for name in json.loads(str(stored["names"])):
        settings = Preprocessing.from_json(json.loads(str(stored[f"{name}.preprocessing"])))
        found = to_pixels(open_picture(stored[f"{name}.picture"]), settings)
        expected = stored[f"{name}.pixels"]
        assert found.shape == expected.shape
        if stored[f"{name}.picture"].shape[:2] == found.shape[1:]:
            assert found.tobytes() == expected.tobytes(), name  # arithmetic alone: every bit
        else:
            # Another Pillow or processor may round a resize differently. Before 13, Pillow resized tall pictures across
            # first and down second: up to 7 of 255 off in this extreme one.
            steps = 8 if name == "tall" and int(PIL.__version__.split(".")[0]) < 13 else 1
            limit = (steps + 0.01) / 255 / np.array(settings.std, np.float32)[:, None, None]
            assert (np.abs(found - expected) <= limit).all(), name


def test_settings_go_through_json() -> None:
    assert SIGLIP.to_json() == JSON
    assert Preprocessing.from_json(json.loads(json.dumps(SIGLIP.to_json()))) == SIGLIP
    other = Preprocessing(224, 336, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "lanczos")
    assert Preprocessing.from_json(json.loads(json.dumps(other.to_json()))) == other


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "height 0"),
        ({"height": 1e3}, "height"),
        ({"width": True}, "width True"),
        ({"width": 10**9}, "width"),
        ({"width": "384"}, "width"),
        ({"mean": [0.5, 0.5]}, "mean"),
        ({"mean": 0.5}, "mean"),
        ({"mean": [0.5, 0.5, float("nan")]}, "mean"),
        ({"mean": [0.5, 0.5, "0.5"]}, "mean"),
        ({"std": [0.5, 0.0, 0.5]}, "std"),
        ({"std": [0.5, -1, 0.5]}, "std"),
        ({"std": None}, "std"),
        ({"resample": "area"}, "'area'"),
        ({"resample": 3}, "resample 3"),
        ({"resample": ["bicubic"]}, "resample"),
        ({"geometry": "crop"}, "'crop'"),
        ({"antialias": True}, "'antialias'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Preprocessing.from_json(JSON | changes)


@pytest.mark.parametrize("name", JSON)
def test_missing_settings_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match=f"lacks '{name}'"):
        Preprocessing.from_json({key: value for key, value in JSON.items() if key != name})


@pytest.mark.parametrize("value", [None, [], "squash", 3])
def test_settings_are_an_object(value: object) -> None:
    with pytest.raises(ArtifactError, match="not an object"):
        Preprocessing.from_json(value)
