"""preprocess.onnx against Pillow, which the runtime prepares pictures with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

from sigrun import CheckpointError
from sigrun.pixels import Preprocessing, to_pixels
from sigrun_exporters.onnx_bundle.preprocess import preprocess_model

HALF = (0.5, 0.5, 0.5)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MOST_OFF = {"bicubic": 0.005, "bilinear": 0.07}
"""Share of values that may be one step of 255 off. Bilinear weights are often even fractions, whose sums end on a half
that one side rounds up and the other down; so do those of a picture of few values."""
MOST_OFF_EVEN = 0.08
SIZES = [  # height, width
    *[(1, 1), (1, 7), (7, 1), (2, 2), (3, 900), (900, 3), (1, 3000), (3000, 1)],
    *[(60, 60), (61, 59), (59, 61), (60, 384), (384, 60), (30, 50), (100, 700), (700, 100)],
    *[(384, 384), (400, 380), (1080, 1920), (1920, 1080), (2000, 1000), (3000, 4000)],
]
Bytes = NDArray[np.uint8]


def session(preprocessing: Preprocessing) -> ort.InferenceSession:
    model = preprocess_model(preprocessing)
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def levels(pixels: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pixel values of mean and deviation one half as the bytes they came from."""
    return np.rint((pixels.astype(np.float64) * 0.5 + 0.5) * 255).astype(np.int64)


def run(graph: ort.InferenceSession, picture: Bytes) -> NDArray[np.float32]:
    values: NDArray[np.float32] = graph.run(None, {"picture": picture})[0]
    return values


def columns_first(picture: Bytes, side: int, kind: Image.Resampling) -> NDArray[np.int64]:
    """Pillow's resizing with its order fixed, which varies with version and shape: columns, then rows."""
    narrow = Image.fromarray(picture).resize((side, len(picture)), kind)
    return np.asarray(narrow.resize((side, side), kind)).astype(np.int64).transpose(2, 0, 1)


def rows_first(picture: Bytes, side: int, kind: Image.Resampling) -> NDArray[np.int64]:
    low = Image.fromarray(picture).resize((picture.shape[1], side), kind)
    return np.asarray(low.resize((side, side), kind)).astype(np.int64).transpose(2, 0, 1)


def noise(height: int, width: int) -> Bytes:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), np.uint8)


def edges(height: int, width: int) -> Bytes:
    """Black and white with hard edges: the filter overshoots and must be cut off at both ends."""
    y, x = np.mgrid[:height, :width]
    black = ((x // 5 + y // 7) % 2).astype(np.uint8) * 255
    return np.stack([black, 255 - black, np.where(x % 2, black, 128).astype(np.uint8)], -1)


@pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
@pytest.mark.parametrize("side", [60, 384])
def test_resizing_is_pillows(resample: Any, side: int) -> None:
    graph = session(Preprocessing(side, side, HALF, HALF, resample))
    kind = FILTERS[resample]
    for height, width in SIZES:
        for picture, most in (
            (noise(height, width), MOST_OFF[resample]),
            (edges(height, width), MOST_OFF_EVEN),
        ):
            ours = levels(run(graph, picture)[0])
            off = np.abs(ours - columns_first(picture, side, kind))
            assert off.max() <= 1, (height, width)
            assert (off > 0).mean() <= most, (height, width)


def test_many_sizes() -> None:
    graph = session(Preprocessing(48, 48, HALF, HALF))
    rng = np.random.default_rng(1)
    total = off_by_one = more = 0
    for _ in range(300):
        height, width = (int(n) for n in np.exp(rng.uniform(0, np.log(600), 2)) + 0.5)
        picture = noise(height, width)
        off = np.abs(levels(run(graph, picture)[0]) - columns_first(picture, 48, Image.Resampling.BICUBIC))
        assert off.max() <= 2, (height, width)
        total += off.size
        off_by_one += int((off > 0).sum())
        more += int((off > 1).sum())
    assert off_by_one / total <= 3e-4
    assert more / total <= 3e-6


def test_the_installed_pillow_resizes_in_one_of_two_orders() -> None:
    """What :func:`columns_first` is to Pillow: its order up to version 12, and for wide pictures still."""
    kind = Image.Resampling.BICUBIC
    for height, width in SIZES:
        picture = noise(height, width)
        whole = np.asarray(Image.fromarray(picture).resize((60, 60), kind)).transpose(2, 0, 1)
        orders = [columns_first(picture, 60, kind)]
        if height > width:
            orders.append(rows_first(picture, 60, kind))
        assert any(np.array_equal(whole, order) for order in orders), (height, width)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(HALF, HALF), ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))],
)
def test_values_are_the_runtimes_bit_for_bit(mean: Any, std: Any) -> None:
    """Where nothing is resized, nothing differs at all."""
    preprocessing = Preprocessing(40, 40, mean, std)
    picture = noise(40, 40)
    picture[0, :, 0] = np.arange(40)
    expected = to_pixels(Image.fromarray(picture), preprocessing)
    assert np.array_equal(run(session(preprocessing), picture)[0], expected)


def test_a_wide_tower() -> None:
    preprocessing = Preprocessing(30, 70, HALF, HALF)
    picture = noise(90, 200)
    expected = to_pixels(Image.fromarray(picture), preprocessing)
    off = np.abs(levels(run(session(preprocessing), picture)[0]) - levels(expected))
    assert off.max() <= 1
    assert (off > 0).mean() <= MOST_OFF["bicubic"]


@pytest.mark.parametrize(
    ("height", "width"), [(50, 50), (50, 99), (51, 100), (64, 64), (70, 90), (200, 333), (1, 5), (480, 640)]
)
def test_crop(height: int, width: int) -> None:
    preprocessing = Preprocessing(48, 44, HALF, HALF, geometry="crop", short_side=50)
    picture = noise(height, width)
    expected = to_pixels(Image.fromarray(picture), preprocessing)
    off = np.abs(levels(run(session(preprocessing), picture)[0]) - levels(expected))
    assert off.max() <= 1
    assert (off > 0).mean() <= MOST_OFF["bicubic"]


@pytest.mark.parametrize("height", [51, 77, 100, 333])
def test_crop_of_tall_pictures_starts_in_the_same_row(height: int) -> None:
    """A picture that needs no resizing in either direction after the fact: 50 wide, its middle 48 x 44 taken."""
    preprocessing = Preprocessing(48, 44, HALF, HALF, geometry="crop", short_side=50)
    picture = noise(height, 50)
    expected = to_pixels(Image.fromarray(picture), preprocessing)
    assert np.array_equal(run(session(preprocessing), picture)[0], expected)


@pytest.mark.parametrize("resample", ["nearest", "lanczos"])
def test_filters_that_onnx_lacks_are_refused_by_name(resample: Any) -> None:
    with pytest.raises(CheckpointError, match=resample) as caught:
        preprocess_model(Preprocessing(60, 60, HALF, HALF, resample))
    assert "gguf" in str(caught.value)


def test_equal_settings_give_equal_bytes(tmp_path: Path) -> None:
    preprocessing = Preprocessing(60, 60, HALF, HALF)
    first, second = (preprocess_model(preprocessing).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
