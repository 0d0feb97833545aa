"""Templates and their ensembles against OpenCLIP, with transformers' embeddings of the bundled model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun import Siglip
from sigrun.templates import IMAGENET_80
from tests import checkpoints, libraries

pytestmark = pytest.mark.reference

NAMES = ["red apple", "owl", "Fire Engine!", "sailboat"]


def test_the_templates_are_openclips() -> None:
    libraries.open_clip()
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    assert tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES) == IMAGENET_80


def test_an_ensemble_is_openclips_zero_shot_classifier(emoji_f32: Path) -> None:
    """OpenCLIP's own code over transformers' text tower, all in torch."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    libraries.open_clip()
    from open_clip import build_zero_shot_classifier

    tokenizer = transformers.SiglipTokenizer.from_pretrained(checkpoints.EMOJI)
    text_model = transformers.SiglipModel.from_pretrained(checkpoints.EMOJI).eval()

    class Model:
        """What OpenCLIP asks of a model."""

        def encode_text(self, ids: Any, normalize: bool) -> Any:
            assert normalize
            return torch.nn.functional.normalize(text_model.get_text_features(input_ids=ids), dim=-1)

    def tokenize(texts: list[str]) -> Any:
        return tokenizer(texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt")[
            "input_ids"
        ]

    theirs = build_zero_shot_classifier(Model(), tokenize, NAMES, IMAGENET_80).T.numpy()
    with Siglip.load(emoji_f32, compute="exact") as model:
        ours = model.label_set(NAMES, templates=IMAGENET_80).embeddings.vectors
        plain = model.label_set(NAMES).embeddings.vectors
    assert np.abs(ours - theirs).max() < 2e-6
    assert np.abs(plain - theirs).max() > 1e-2  # so the comparison could have failed
