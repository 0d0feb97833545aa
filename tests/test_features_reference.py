"""Patch features against transformers on the bundled model: its last hidden state, after the last layer norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sigrun import Siglip
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_recipes import load
from tests import checkpoints
from tests.conftest import UNVERIFIED

pytestmark = pytest.mark.reference


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(2)
    return [
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in ((60, 60), (90, 41), (7, 300))
    ]


def test_features_are_the_last_hidden_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    import torch
    from transformers import SiglipImageProcessor, SiglipVisionModel

    folder: Any = checkpoints.EMOJI
    theirs = SiglipVisionModel.from_pretrained(folder).eval()
    pixels = SiglipImageProcessor.from_pretrained(folder)(pictures(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = theirs(pixels, output_hidden_states=True)
        normed = theirs.vision_model.post_layernorm(output.hidden_states[-1])
    assert torch.equal(output.last_hidden_state, normed)  # what "last" means
    path = export(open_checkpoint(str(folder)), load("f32"), tmp_path_factory.mktemp("m"), UNVERIFIED).path
    with Siglip.load(path, compute="exact") as model:
        found = model.embed_images([pictures()[0], b"broken", *pictures()[1:]], features=True)
        rows = list(model.iter_images(pictures(), features=True))
        plain = model.embed_images(pictures())
    assert found.features is not None
    assert plain.features is None
    assert found.features.dtype == np.float32
    assert found.features.shape == (4, *output.last_hidden_state.shape[1:])
    assert np.isnan(found.features[1]).all()
    expected = output.last_hidden_state.numpy()
    good = found.features[[0, 2, 3]]
    assert np.abs(good - expected).max() < 2e-5 * np.abs(expected).max()
    assert np.abs(good - output.hidden_states[-1].numpy()).max() > 0.1  # the tolerance tells the two apart
    np.testing.assert_array_equal(found.vectors[[0, 2, 3]], plain.vectors)
    np.testing.assert_allclose(
        np.stack([r.features for r in rows if r.features is not None]), good, atol=2e-5
    )
