"""Draws the pictures and texts that every runtime gets, in the size that a checkpoint takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.today.given import FITTED, PICTURES, TEXTS, Given
from sigrun.tokens import Tokenizer
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.verify.inputs import OTHER_TEXTS
from sigrun_exporters.verify.pictures import captions, drawings


def draw(checkpoint: Path) -> Given:
    """The built-in scenes of the verification, squashed to the model's square, and their captions with others."""
    opened = open_checkpoint(str(checkpoint))
    assert opened.tokenizer is not None
    side = opened.preprocessing.height
    scenes = [
        np.asarray(scene.picture.resize((side, side), Image.Resampling.BICUBIC), np.uint8)
        for scene in drawings()[: PICTURES + FITTED]
    ]
    texts = [*captions(), *OTHER_TEXTS][: TEXTS + FITTED]
    ids = Tokenizer(opened.tokenizer).encode(texts).ids.astype(np.int64)
    return Given(
        np.stack(scenes[:PICTURES]),
        tuple(texts[:TEXTS]),
        ids[:TEXTS],
        np.stack(scenes[PICTURES:]),
        ids[TEXTS:],
    )
