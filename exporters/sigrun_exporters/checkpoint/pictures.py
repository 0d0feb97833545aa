"""How each layout says what becomes of a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sigrun.errors import ArtifactError, CheckpointError
from sigrun.pixels import Preprocessing
from sigrun_exporters.checkpoint.config import Config
from sigrun_recipes import ImageTower

PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
HALF = (0.5, 0.5, 0.5)
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_HUGGINGFACE = {  # where one is not given it is as here
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_center_crop": False,
    "do_pad": False,
    "rescale_factor": 1 / 255,
}


def from_huggingface(config: Config, tower: ImageTower) -> Preprocessing:
    """``preprocessor_config.json`` of transformers' SiglipImageProcessor."""
    kind = config.data.get("image_processor_type", "SiglipImageProcessor")
    if kind not in ("SiglipImageProcessor", "SiglipImageProcessorFast"):
        raise config.fail("image_processor_type", f"is {kind!r}; Sigrun does what SiglipImageProcessor does")
    size = config.data.get("size")
    if (
        not isinstance(size, dict)
        or size.get("height") != tower.image_size
        or size.get("width") != tower.image_size
    ):
        raise config.fail(
            "size", f"is {size!r}, but the image tower takes {tower.image_size} x {tower.image_size}"
        )
    config.must_be(_HUGGINGFACE)
    resample = config.data.get("resample", 3)
    if type(resample) is not int or resample not in PILLOW_FILTERS:
        raise config.fail(
            "resample",
            f"is {resample!r}; known are {', '.join(f'{i} ({n})' for i, n in PILLOW_FILTERS.items())}",
        )
    return _made(
        config,
        tower,
        mean=config.data.get("image_mean", HALF),
        std=config.data.get("image_std", HALF),
        resample=PILLOW_FILTERS[resample],
    )


def from_openclip(config: Config, tower: ImageTower) -> Preprocessing:
    """``preprocess_cfg`` of an ``open_clip_config.json``; what it leaves out is as in OpenCLIP's PreprocessCfg."""
    config.only(("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"))
    config.must_be({"mode": "RGB"})
    side = tower.image_size
    if config.data.get("size", side) not in (side, [side, side]):
        raise config.fail("size", f"is {config.data['size']!r}, but the image tower takes {side} x {side}")
    mode = config.text("resize_mode", "shortest")
    if mode not in ("squash", "shortest"):
        raise config.fail("resize_mode", f"is {mode!r}; Sigrun does 'squash' and 'shortest'")
    resample = config.text("interpolation", "bicubic")
    return _made(
        config,
        tower,
        mean=config.data.get("mean", OPENAI_MEAN),
        std=config.data.get("std", OPENAI_STD),
        # OpenCLIP takes "random" as bicubic where it does not train.
        resample="bicubic" if resample == "random" else resample,
        short_side=None if mode == "squash" else side,
    )


def from_timm(config: Config, tower: ImageTower) -> Preprocessing:
    """``pretrained_cfg`` of a timm ``config.json``, as timm prepares pictures that it does not train with."""
    side = tower.image_size
    size = config.data.get("input_size", [3, 224, 224])
    if size != [3, side, side]:
        raise config.fail("input_size", f"is {size!r}, but the image tower takes [3, {side}, {side}]")
    share = config.number("crop_pct", 0.875, 0.1, 1.0001)
    mode = config.data.get("crop_mode") or "center"
    if mode == "squash" and share != 1:
        raise config.fail(
            "crop_mode", f"is 'squash' with crop_pct {share}; Sigrun squashes whole pictures only"
        )
    if mode not in ("squash", "center"):
        raise config.fail("crop_mode", f"is {mode!r}; Sigrun does 'center' and 'squash'")
    return _made(
        config,
        tower,
        mean=config.data.get("mean") or IMAGENET_MEAN,
        std=config.data.get("std") or IMAGENET_STD,
        resample=config.data.get("interpolation") or "bicubic",
        short_side=math.floor(side / share) if mode == "center" else None,
    )


def _made(
    config: Config, tower: ImageTower, *, short_side: int | None = None, **fields: Any
) -> Preprocessing:
    data: Mapping[str, Any] = {
        "height": tower.image_size,
        "width": tower.image_size,
        "geometry": "squash" if short_side is None else "crop",
        "short_side": short_side,
        **fields,
    }
    try:
        return Preprocessing.from_json(data)
    except ArtifactError as error:
        raise CheckpointError(f"{config.where}: {error.message}") from error
