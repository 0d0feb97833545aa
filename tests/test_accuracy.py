"""A trained model, drawings it never saw, and what quantizing does to its answers.

The oracle is transformers: its embeddings of every held-out drawing lie in ``reference.npz``, made by
``examples/emoji_siglip/make_reference.py`` (``make test-reference`` makes them again and compares).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.emoji_accuracy import CHECKPOINT, EXAMPLE, Figures, accuracy, drawings, evaluate
from sigrun import Siglip
from sigrun.artifact import Artifact
from sigrun.pixels import open_picture, to_pixels

REFERENCE = np.load(EXAMPLE / "reference.npz")
STATED = json.loads((EXAMPLE / "reference.json").read_text("utf-8"))
SHEET = REFERENCE["sheet_image_embeds"].astype(np.float32)


def within_q4_k_m_bounds(figures: Figures, exact: Figures) -> bool:
    """What 4-bit weights may cost here. Seen: 0.9 points of top-1, cosines of 0.9975 on average, 0.987 at worst."""
    return (
        figures.top1 > exact.top1 - 0.02
        and figures.top5 > exact.top5 - 0.02
        and figures.mean_cosine > 0.996
        and figures.worst_cosine > 0.98
        and figures.mean_text_cosine > 0.99
        and figures.probability_error < 0.002
        and figures.right_probability_error < 0.05
    )


@pytest.fixture(scope="module")
def exact(emoji_f32: Path) -> tuple[Figures, np.ndarray]:
    return evaluate(emoji_f32, SHEET, None)


def test_the_reference_is_of_this_checkpoint() -> None:
    digest = hashlib.sha256((CHECKPOINT / "model.safetensors").read_bytes()).hexdigest()
    assert STATED["checkpoint_sha256"] == digest, "run examples/emoji_siglip/make_reference.py"


def test_f32_gives_the_embeddings_of_transformers(emoji_f32: Path) -> None:
    with Siglip.load(emoji_f32, compute="exact") as model:
        images = model.embed_images(drawings()[0]).vectors
        assert np.abs(images - SHEET).max() < 1e-5
        captions = [c for c in STATED["captions"] if c]
        rows = [i for i, c in enumerate(STATED["captions"]) if c]
        texts = model.embed_texts(captions)
        assert np.abs(texts.vectors - REFERENCE["text_embeds"][rows]).max() < 1e-5
        assert np.array_equal(model._towers.tokenizer().encode(captions).ids, REFERENCE["input_ids"][rows])


def test_pixels_are_those_of_transformers(emoji_f32: Path) -> None:
    with Artifact.open(emoji_f32) as artifact:
        preprocessing = artifact.manifest.preprocessing
    for name, expected in zip(STATED["pixel_values_of"], REFERENCE["pixel_values"], strict=True):
        picture = open_picture(EXAMPLE / "heldout" / "demo" / f"{name}.png")
        assert np.array_equal(to_pixels(picture, preprocessing), expected)


def test_f32_classifies_as_transformers_does(exact: tuple[Figures, np.ndarray]) -> None:
    figures, _ = exact
    assert figures.pictures == STATED["sheet"]["pictures"] > 1000
    # One picture more or less may change hands between two names that tie to the last bit.
    assert figures.top1 == pytest.approx(STATED["sheet"]["top1"], abs=1.1 / figures.pictures)
    assert figures.top5 == pytest.approx(STATED["sheet"]["top5"], abs=1.1 / figures.pictures)
    assert figures.top1 > 0.6, "the bundled model is not the trained one"


def test_q4_k_m_keeps_the_answers(emoji_q4: Path, exact: tuple[Figures, np.ndarray]) -> None:
    figures, _ = evaluate(emoji_q4, SHEET, exact[1])
    assert within_q4_k_m_bounds(figures, exact[0]), figures


@pytest.mark.parametrize(
    "tensor", ["v.blk.1.ffn_down.weight", "v.head.attn_v.weight", "t.blk.0.attn_out.weight"]
)
def test_the_bounds_see_one_spoiled_matrix(
    emoji_q4: Path, exact: tuple[Figures, np.ndarray], monkeypatch: pytest.MonkeyPatch, tensor: str
) -> None:
    """One matrix of the 46, stored as zeros: the bounds above must not be wide enough to hide it."""
    stored = Artifact.data

    def spoiled(artifact: Artifact, name: str) -> np.ndarray:
        data = stored(artifact, name)
        return np.zeros_like(data) if name == tensor else data

    monkeypatch.setattr(Artifact, "data", spoiled)
    figures, _ = evaluate(emoji_q4, SHEET, exact[1])
    assert not within_q4_k_m_bounds(figures, exact[0]), figures


def test_accuracy_counts_by_hand() -> None:
    matrix = np.array(
        [[3, 1, 2], [9, 5, 1], [0, 1, 1]], np.float32
    )  # right; second; tie, which counts as wrong
    assert accuracy(matrix) == (1 / 3, 1.0)
