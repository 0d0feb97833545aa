"""Our side of the comparisons with transformers, OpenCLIP and timm, and the tensors that checkpoints must hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sigrun import Siglip
from sigrun.pixels import to_pixels
from sigrun_exporters.checkpoint import Checkpoint, open_checkpoint
from sigrun_exporters.checkpoint.weights import Place
from sigrun_exporters.export import export
from sigrun_recipes import Architecture, TensorSpec, load
from tests.conftest import UNVERIFIED
from tests.libraries import pictures


def exported(folder: Path, out: Path) -> Siglip:
    return Siglip.load(export(open_checkpoint(str(folder)), load("f32"), out, UNVERIFIED).path)


def unit(values: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    array: np.ndarray[Any, np.dtype[np.float32]] = values.detach().numpy()
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def our_pixels(checkpoint: Checkpoint) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.stack([to_pixels(picture, checkpoint.preprocessing) for picture in pictures()])


def our_ids(model: Siglip, texts: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return model._towers.tokenizer().encode(texts).ids


def shapes(
    architecture: Architecture, place: Callable[[TensorSpec], Place], left_out: tuple[str, ...] = ()
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this architecture must hold."""
    places = [place(spec) for spec in architecture.tensors() if not spec.name.startswith(left_out or "-")]
    return {there.name: there.shape for there in places}


def on_meta(make: Any) -> Any:
    import torch

    with torch.device("meta"):
        return make()
