"""Small checkpoints of every layout, what tests make of them, and the refusals they expect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sigrun import CheckpointError
from sigrun_exporters.checkpoint import open_checkpoint, timm_towers
from sigrun_exporters.export import export
from sigrun_recipes import load
from tests import checkpoints
from tests.conftest import UNVERIFIED

WRITERS: dict[str, Callable[[Path], Path]] = {
    "siglip2": checkpoints.write_siglip2,
    "siglip2-json": lambda folder: checkpoints.write_siglip2(folder, "tokenizer.json"),
    "openclip": checkpoints.write_openclip,
    "timm": checkpoints.write_timm,
}


def small_timm(patch: pytest.MonkeyPatch) -> None:
    """Let timm's towers have small ones among them."""
    for name, arguments in checkpoints.SMALL_TOWERS.items():
        patch.setitem(timm_towers.TOWERS, name, arguments)


def written_in(root: Path) -> dict[str, Path]:
    """A folder of each layout."""
    return {name: write(root / name) for name, write in WRITERS.items()}


def to_f32(folder: Path, out: Path) -> Path:
    return export(open_checkpoint(str(folder)), load("f32"), out, UNVERIFIED).path


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(folder))
    for word in words:
        assert word in str(caught.value)
