"""OpenCLIP's layout against the library that it is of: pixels, token ids, embeddings, scores.

Each model is made and saved by its library with seeded random weights, exported by us as f32, and run by our runtime.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun.canonical import canonicalise
from sigrun_exporters.checkpoint import open_checkpoint, timm_towers
from sigrun_exporters.checkpoint.config import Config
from sigrun_exporters.checkpoint.openclip import read_architecture, text_place
from sigrun_recipes import Architecture, known
from tests import libraries
from tests.checkpoints import EMOJI, GEMMA, ROOT
from tests.libraries import TEXTS, folder_of, pictures, randomise
from tests.sources_reference import exported, on_meta, our_ids, our_pixels, shapes

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-5  # of a unit vector's coordinates
GEMMA_PIECES = 1400
EMOJI_PIECES = 2000


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, arguments in libraries.SMALL.items():
        monkeypatch.setitem(timm_towers.TOWERS, name, arguments)


def openclip_config(kind: str) -> dict[str, Any]:
    """A model of OpenCLIP in the manner of one it publishes, small."""
    text: dict[str, Any] = {
        "context_length": 64,
        "vocab_size": EMOJI_PIECES,
        "hf_tokenizer_name": "timm/made-up",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 192,
        "heads": 3,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    }
    tower, side = "vit_small_patch16_siglip_64", 64
    if kind == "so400m":  # ViT-SO400M-14-SigLIP: 16 tokens, GELU itself in both towers
        text |= {"context_length": 16, "width": 1152, "heads": 16, "layers": 1, "mlp_ratio": 3.7362}
        tower, side = "vit_so400m_patch14_siglip_56", 56
    elif kind == "siglip2":
        text |= {"vocab_size": GEMMA_PIECES, "act_kwargs": {"approximate": "tanh"}}
    elif kind == "siglip2-giant":  # towers of two widths
        text |= {
            "vocab_size": GEMMA_PIECES,
            "act_kwargs": {"approximate": "tanh"},
            "width": 96,
            "mlp_ratio": 3.7362,
        }
    elif kind == "i18n":  # no head
        del text["proj_bias"]
        text |= {"proj_type": "none"}
    width = libraries.SMALL[tower]["embed_dim"]
    return {
        "embed_dim": width,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": side,
            "timm_model_name": tower,
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": text,
    }


@pytest.fixture(scope="module", params=["so400m", "base", "siglip2", "siglip2-giant", "i18n"])
def openclip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OpenCLIP folder as OpenCLIP saves it for the hub."""
    open_clip = libraries.open_clip()
    from open_clip.push_to_hf_hub import save_for_hf
    from open_clip.tokenizer import SigLipTokenizer

    root = tmp_path_factory.mktemp("openclip")
    folder, config = folder_of(root, request.param), openclip_config(request.param)
    (root / "made-up.json").write_text(json.dumps(config))
    open_clip.add_model_config(root / "made-up.json")
    model = open_clip.create_model(
        "made-up",
        force_preprocess_cfg={
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    )
    # What OpenCLIP made its own tokenizer files with: it knows Gemma's by the name of the file.
    if "siglip2" in request.param:
        shutil.copy(GEMMA / "tokenizer.model", root / "gemma.model")
        tokenizer = SigLipTokenizer(str(root / "gemma.model"))
    else:
        shutil.copy(EMOJI / "spiece.model", root / "made-up.model")
        tokenizer = SigLipTokenizer(str(root / "made-up.model"))
    save_for_hf(randomise(model, seed=9), tokenizer, config, str(folder), safe_serialization=True)
    (folder / "tokenizer.model").unlink(missing_ok=True)  # the published folders hold tokenizer.json alone
    (folder / "spiece.model").unlink(missing_ok=True)
    if request.param in ("so400m", "i18n"):  # as the published files have it, made with another transformers
        content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        content["pre_tokenizer"]["prepend_scheme"] = "always"
        (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    return folder


def test_openclip(openclip: Path, tmp_path: Path) -> None:
    import torch

    library = libraries.open_clip()
    model, preprocess = library.create_model_from_pretrained(f"local-dir:{openclip}")
    tokenize = library.get_tokenizer(f"local-dir:{openclip}")
    pixels = torch.stack([preprocess(picture) for picture in pictures()])
    ids = tokenize([*TEXTS, "naïve café &amp; mÃ¼sli", "&lt;eos&gt;"])
    with torch.no_grad():
        images, texts, scale, bias = model.eval()(pixels, ids)
    checkpoint = open_checkpoint(str(openclip))
    assert np.array_equal(our_pixels(checkpoint), pixels.numpy())
    with exported(openclip, tmp_path) as ours:
        listed = [*TEXTS, "naïve café &amp; mÃ¼sli", "&lt;eos&gt;"]
        assert np.array_equal(our_ids(ours, listed), ids.numpy())
        embedded = ours.embed_images(pictures())
        assert np.abs(embedded.vectors - images.numpy()).max() < TOLERANCE
        assert np.abs(ours.embed_texts(listed).vectors - texts.numpy()).max() < TOLERANCE
        expected = (images @ texts.T * scale + bias).detach().numpy()
        found = ours.score(embedded, ours.label_set(listed))
        for row, scores in enumerate(found):
            for score in scores:
                assert score.logit == pytest.approx(float(expected[row, listed.index(score.label)]), abs=1e-4)


def test_every_siglip_of_openclip_is_understood() -> None:
    """The configs of the library's own models, less the tower that takes pictures of any shape."""

    library = libraries.open_clip()
    from open_clip.model import CustomTextCLIP

    names = [n for n in library.list_models() if "SigLIP" in n and "naflex" not in n]
    assert len(names) >= 26
    for name in names:
        architecture = read_architecture(Config(library.get_model_config(name), name, "model_cfg"))
        assert architecture.image is not None
        assert architecture.text is not None
        config = library.get_model_config(name)
        theirs = on_meta(
            lambda c=config: CustomTextCLIP(
                c["embed_dim"], c["vision_cfg"], c["text_cfg"], init_logit_bias=-10
            )
        )
        block, act = theirs.text.transformer.resblocks[0], theirs.visual.trunk.blocks[0].mlp.act
        image, without_head = architecture.image, theirs.text.text_projection is None
        ours = shapes(
            architecture,
            lambda spec, image=image: (
                timm_towers.place(spec, image, "visual.trunk.") if spec.tower == "image" else text_place(spec)
            ),
            left_out=("t.head.",) if without_head else (),
        )
        state = theirs.state_dict()
        assert ours | {"logit_scale": (), "logit_bias": ()} == {n: tuple(v.shape) for n, v in state.items()}
        assert theirs.context_length == architecture.text.context
        assert block.attn.num_heads == architecture.text.heads
        assert block.ln_1.eps == architecture.text.eps
        assert (block.mlp.gelu.approximate == "tanh") == (architecture.text.activation == "gelu_tanh")
        assert (type(act).__name__ == "GELUTanh") == (architecture.image.activation == "gelu_tanh")


def test_known_models_are_of_the_sizes_that_openclip_knows() -> None:
    """OpenCLIP has the same checkpoints, but for GELU; its 378 pixels make as many patches as 384."""

    library = libraries.open_clip()
    sizes = {"base": "B", "large": "L", "so400m": "SO400M", "giant-opt": "gopt"}
    listed = known()
    assert len(listed) >= 25
    for model in listed:
        match = re.fullmatch(
            r"google/(siglip2?)-([a-z0-9-]+)-patch(\d+)-(\d+)(-i18n|-multilingual)?", model.repo
        )
        assert match is not None, model.repo
        series, size, patch, side, many = match.groups()
        name = f"ViT-{sizes[size]}-{patch}-{'SigLIP2' if series == 'siglip2' else 'SigLIP'}"
        name += "-i18n" if many else ""
        name += "" if side == "224" else f"-{side}"
        if name == "ViT-SO400M-14-SigLIP2-384":
            name = "ViT-SO400M-14-SigLIP2-378"
        theirs = read_architecture(Config(library.get_model_config(name), name, "model_cfg"))
        image, text = theirs.image, theirs.text
        assert image is not None
        assert text is not None
        assert model.architecture == Architecture(
            replace(image, activation="gelu_tanh", image_size=int(side)),
            replace(text, activation="gelu_tanh"),
        )
        ours = model.architecture.image
        assert ours is not None
        assert (ours.grid, ours.patch_size) == (image.grid, int(patch))


def test_the_published_tokenizer_gives_openclips_ids(tmp_path: Path) -> None:
    """The tokenizer of SO400M, c4_en, by its ``tokenizer.json`` alone, as OpenCLIP's folders have it."""
    from sigrun.tokens import Tokenizer
    from tests.real_tokenizer import real_spec, tokenizer_json

    libraries.open_clip()
    from open_clip.tokenizer import HFTokenizer

    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json())
    settings = {
        "tokenizer_class": "T5TokenizerFast",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "extra_ids": 0,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    theirs = HFTokenizer(str(tmp_path), context_length=64, clean="canonicalize")
    cases = json.loads((GEMMA.parent / "tokenizer_cases.json").read_text("utf-8"))["cases"]
    words = (ROOT / "LICENSE").read_text("utf-8").split("\n")
    texts = [t for t in [*TEXTS, *(case["query"] for case in cases), *words] if canonicalise(t, "openclip")]
    ours = Tokenizer(real_spec("openclip")).encode(texts).ids
    assert np.array_equal(ours, theirs(texts).numpy())
