"""Importance against forward hooks in transformers' own model: every linear layer, the MAP head's among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sigrun.tokens import Tokenizer
from sigrun_exporters.calibration import read_calibration
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.checkpoint.huggingface import source_name
from sigrun_exporters.collect import collect
from sigrun_exporters.reference import Reference
from tests import checkpoints

pytestmark = pytest.mark.reference

PICTURES = 30
TEXTS = [f"a picture of {number} red apples" for number in range(20)]
Squares = dict[str, list[NDArray[np.float64]]]


@pytest.fixture(scope="module", params=["tiny", "emoji"])
def folder(request: pytest.FixtureRequest, tiny: Path) -> Path:
    return tiny if request.param == "tiny" else checkpoints.EMOJI


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import SiglipModel

    return SiglipModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def data(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with edges and plains, and captions."""
    root = tmp_path_factory.mktemp("calibration")
    rng = np.random.default_rng(2)
    for number in range(PICTURES):
        small = Image.fromarray(rng.integers(0, 256, (rng.integers(2, 9), 5, 3), np.uint8))
        small.resize((80, 70)).save(root / f"{number:02}.png")
    (root / "captions.txt").write_text("\n".join(TEXTS), "utf-8")
    return root


def watch(model: Any) -> Squares:
    """Squares of the rows that each linear module multiplies, by the module's name, from now on."""
    import torch

    seen: Squares = {}

    def add(name: str, rows: Any) -> None:
        flat = rows.detach().double().reshape(-1, rows.shape[-1])
        seen.setdefault(name, []).append(flat.numpy() ** 2)

    def attention(module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """torch's MultiheadAttention calls no module for its projections: what it does, done again."""
        queries, tokens = (*inputs, *keywords.values())[:2]
        add("head.attn_q", queries)
        add("head.attn_k", tokens)
        add("head.attn_v", tokens)
        weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
        q, k, v = (
            (x @ w.T + b).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
            for x, w, b in zip((queries, tokens, tokens), weights, biases, strict=True)
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        add("head.attn_out", mixed.transpose(1, 2).flatten(2))

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.MultiheadAttention):
            module.register_forward_pre_hook(attention, with_kwargs=True)
        elif isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda m, inputs, name=name: add(name, inputs[0]))
    return seen


def test_mean_squares_are_those_of_forward_hooks(
    folder: Path, theirs: Any, data: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import SiglipImageProcessor, SiglipTokenizer

    seen = watch(theirs)
    pictures = [Image.open(path) for path in sorted(data.glob("*.png"))]
    pixels = SiglipImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")["pixel_values"]
    tokens = SiglipTokenizer.from_pretrained(folder)(
        TEXTS, padding="max_length", truncation=True, max_length=64, return_tensors="pt"
    )
    with torch.no_grad():
        theirs.vision_model(pixels)
        theirs.text_model(tokens["input_ids"])
    checkpoint = open_checkpoint(str(folder))
    calibration = read_calibration(data, data / "captions.txt", print)
    ours = collect(checkpoint, calibration, tmp_path / "state", note=print).squares
    linear = [t for t in checkpoint.architecture.tensors() if t.kind == "linear"]
    assert set(ours) == {t.name for t in linear}
    for spec in linear:
        module = source_name(spec)[0].removesuffix(".weight")
        if spec.name.startswith("v.head.attn_"):
            module = spec.name.removeprefix("v.").removesuffix(".weight")
        expected = np.concatenate(seen[module]).mean(axis=0)
        found = ours[spec.name].sums / ours[spec.name].rows
        np.testing.assert_allclose(
            found, expected, rtol=1e-4, atol=1e-8 * expected.max(), err_msg=f"{spec.name}, {module}"
        )


def test_embeddings_are_theirs(folder: Path, theirs: Any) -> None:
    import torch

    checkpoint = open_checkpoint(str(folder))
    reference = Reference(checkpoint)
    size = checkpoint.preprocessing.width
    pixels = np.random.default_rng(0).uniform(-1, 1, (PICTURES, 3, size, size)).astype(np.float32)
    ids = Tokenizer(checkpoint.tokenizer).encode(TEXTS).ids
    with torch.no_grad():
        images = theirs.vision_model(torch.from_numpy(pixels)).pooler_output
        texts = theirs.text_model(torch.from_numpy(ids)).pooler_output
    for found, expected in ((reference.images(pixels), images), (reference.texts(ids), texts)):
        unit = torch.nn.functional.normalize(expected, dim=-1).numpy()
        assert np.abs(found - unit).max() < 2e-6
