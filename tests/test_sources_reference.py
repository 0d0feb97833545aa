"""Every layout of checkpoint against the library that it is of: pixels, token ids, embeddings, scores.

Each model is made and saved by its library with seeded random weights, exported by us as f32, and run by our runtime.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun import Siglip
from sigrun.canonical import canonicalise
from sigrun.pixels import to_pixels
from sigrun_exporters.checkpoint import Checkpoint, open_checkpoint, timm_towers
from sigrun_exporters.checkpoint.config import Config
from sigrun_exporters.checkpoint.huggingface import read_architecture as read_huggingface
from sigrun_exporters.checkpoint.huggingface import source_name, source_shape
from sigrun_exporters.checkpoint.openclip import read_architecture, text_place
from sigrun_exporters.checkpoint.weights import Place
from sigrun_exporters.export import export
from sigrun_recipes import Architecture, TensorSpec, known, load
from tests import libraries
from tests.checkpoints import EMOJI, GEMMA, ROOT
from tests.conftest import UNVERIFIED
from tests.libraries import TEXTS, folder_of, pictures, randomise

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-5  # of a unit vector's coordinates
GEMMA_PIECES = 1400
EMOJI_PIECES = 2000


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, arguments in libraries.SMALL.items():
        monkeypatch.setitem(timm_towers.TOWERS, name, arguments)


def exported(folder: Path, out: Path) -> Siglip:
    return Siglip.load(export(open_checkpoint(str(folder)), load("f32"), out, UNVERIFIED).path)


def unit(values: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    array: np.ndarray[Any, np.dtype[np.float32]] = values.detach().numpy()
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def our_pixels(checkpoint: Checkpoint) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.stack([to_pixels(picture, checkpoint.preprocessing) for picture in pictures()])


def our_ids(model: Siglip, texts: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return model._towers.tokenizer().encode(texts).ids


# ---- transformers ----


@pytest.fixture(scope="module", params=["base", "giant-opt", "so400m", "split"])
def siglip2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP 2 folder as transformers saves it: widths that differ between towers, or one file a tensor or two."""
    from transformers import GemmaTokenizerFast, SiglipConfig, SiglipImageProcessor, SiglipModel

    folder = folder_of(tmp_path_factory.mktemp("siglip2"), request.param)
    widths = {"base": (96, 96), "giant-opt": (192, 96), "so400m": (1152, 1152), "split": (96, 96)}[
        request.param
    ]
    sizes = [
        {
            "hidden_size": width,
            "intermediate_size": 4304 if width == 1152 else 4 * width,
            "num_hidden_layers": 1 if width == 1152 else 2,
            "num_attention_heads": 16 if width == 1152 else 3,
        }
        for width in widths
    ]
    config = SiglipConfig(
        vision_config={**sizes[0], "image_size": 64, "patch_size": 16},
        text_config={**sizes[1], "vocab_size": GEMMA_PIECES, "projection_size": widths[0]},
    )
    model = randomise(SiglipModel(config), seed=7)
    shard = {"max_shard_size": "300KB"} if request.param == "split" else {}
    model.save_pretrained(folder, **shard)
    assert (folder / "model.safetensors.index.json").exists() == bool(shard)
    SiglipImageProcessor(size={"height": 64, "width": 64}, resample=2).save_pretrained(folder)
    GemmaTokenizerFast(
        str(GEMMA / "tokenizer.model"),
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_input_names=["input_ids"],
    ).save_pretrained(folder)
    assert (folder / "tokenizer.model").exists()
    return folder


def test_siglip2_of_transformers(siglip2: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, SiglipImageProcessor, SiglipModel

    model = SiglipModel.from_pretrained(siglip2).eval()
    pixels = SiglipImageProcessor.from_pretrained(siglip2)(pictures(), return_tensors="pt")["pixel_values"]
    # This version of transformers leaves it to its callers to lower-case texts for SigLIP 2.
    ids = AutoTokenizer.from_pretrained(siglip2)(
        [text.lower() for text in TEXTS],
        padding="max_length",
        truncation=True,
        max_length=64,
        return_tensors="pt",
    )["input_ids"]
    with torch.no_grad():
        theirs = model(input_ids=ids, pixel_values=pixels)
    checkpoint = open_checkpoint(str(siglip2))
    assert np.array_equal(our_pixels(checkpoint), pixels.numpy())
    with exported(siglip2, tmp_path) as ours:
        assert ours.info.manifest.canonicalisation == "lower"
        assert np.array_equal(our_ids(ours, TEXTS), ids.numpy())
        assert np.abs(ours.embed_images(pictures()).vectors - unit(theirs.image_embeds)).max() < TOLERANCE
        assert np.abs(ours.embed_texts(TEXTS).vectors - unit(theirs.text_embeds)).max() < TOLERANCE
        scores = ours.score(ours.embed_images(pictures()[:1]), ours.label_set(TEXTS))[0]
        for score in scores:
            logit = float(theirs.logits_per_image[0, TEXTS.index(score.label)])
            assert score.logit == pytest.approx(logit, abs=1e-4)


def test_known_models_have_the_tensors_of_transformers() -> None:
    from transformers import SiglipConfig, SiglipModel

    for known_model in known():
        architecture = known_model.architecture
        image, text = architecture.image, architecture.text
        assert image is not None
        assert text is not None
        sizes = [
            {
                "hidden_size": tower.width,
                "intermediate_size": tower.mlp,
                "num_hidden_layers": tower.layers,
                "num_attention_heads": tower.heads,
            }
            for tower in (image, text)
        ]
        config = SiglipConfig(
            vision_config={**sizes[0], "image_size": image.image_size, "patch_size": image.patch_size},
            text_config={
                **sizes[1],
                "vocab_size": text.vocabulary,
                "max_position_embeddings": text.context,
                "projection_size": text.projection,
            },
        )

        def place(spec: TensorSpec, architecture: Architecture = architecture) -> Place:
            shape = source_shape(spec, architecture.tower(spec.tower))
            return Place(source_name(spec)[0], shape)

        theirs = _meta(lambda c=config: SiglipModel(c)).state_dict()
        expected = {n: tuple(v.shape) for n, v in theirs.items() if not n.endswith("position_ids")}
        assert shapes(architecture, place) | {"logit_scale": (1,), "logit_bias": (1,)} == expected
        assert read_huggingface(config.to_dict(), "config.json") == architecture


# ---- Gemma's tokenizer ----


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' tokenizer from tokenizer.json alone, as OpenCLIP's folders have it."""
    from transformers import AutoTokenizer

    folder = folder_of(tmp_path_factory.mktemp("gemma"), "json")
    (folder / "tokenizer.json").write_bytes(gzip.decompress((GEMMA / "tokenizer.json.gz").read_bytes()))
    shutil.copy(GEMMA / "tokenizer_config.json", folder)
    return AutoTokenizer.from_pretrained(folder)


def texts_for_gemma() -> list[str]:
    """Joined words with symbols of the vocabulary, and characters of many scripts; none with a control piece."""
    rng = np.random.default_rng(11)
    words = [
        "the",
        "a",
        "Cat",
        "model",
        "x",
        "yy",
        "naïve",
        "Café",
        "日本",
        "語",
        "123",
        "😀",
        "The.Dog,",
        "'quoted'",
        "don't",
        "ΣΟΦΟΣ",
        "İstanbul",
    ]
    words += [
        "\n\n",
        "\t",
        "\n",
        "<start_of_turn>",
        "<mask>",
        "<table>",
        "</table>",
        "[@BOS@]",
        "<h1>",
        "<unused1>",
    ]
    texts = [
        str(rng.choice([" ", "", "  ", "\n", "     "])).join(rng.choice(words, rng.integers(1, 30)))
        for _ in range(1500)
    ]
    for _ in range(500):
        codes = [rng.integers(32, 127), rng.integers(32, 0x500), rng.integers(0x1F300, 0x1F700), 10, 32, 32]
        drawn = rng.choice(np.array(codes), rng.integers(1, 80))
        texts.append("".join(map(chr, drawn)))
    texts += ["#" * 200, " " * 70 + "x", "\n" * 50 + "x", "A", " A", "A "]
    return [text for text in texts if text.strip()]


@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.json"])
def test_gemma_ids_are_those_of_transformers(file: str, gemma: Any) -> None:
    from sigrun.tokens import Tokenizer
    from tests.checkpoints import gemma_spec

    texts = texts_for_gemma()
    theirs = gemma(
        [canonicalise(text, "lower") for text in texts],
        padding="max_length",
        truncation=True,
        max_length=64,
        return_tensors="np",
    )["input_ids"]
    assert np.array_equal(Tokenizer(gemma_spec(file)).encode(texts).ids, theirs)


def test_lower_is_the_lowercase_of_the_tokenizers_library() -> None:
    """Which is what transformers' Siglip2Tokenizer puts before Gemma's tokenizer."""
    from tokenizers.normalizers import Lowercase

    lowercase = Lowercase()
    for code in range(0x110000):
        # Letters that this Python does not know yet may be known to the library.
        if not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code)) != "Cn":
            assert canonicalise(chr(code), "lower") == lowercase.normalize_str(chr(code))
    for text in ("ΣΟΦΟΣ Σ.Σ aΣ", "  A_b!\n"):
        assert canonicalise(text, "lower") == lowercase.normalize_str(text)


# ---- OpenCLIP ----


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
        theirs = _meta(
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


def shapes(
    architecture: Architecture, place: Callable[[TensorSpec], Place], left_out: tuple[str, ...] = ()
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this architecture must hold."""
    places = [place(spec) for spec in architecture.tensors() if not spec.name.startswith(left_out or "-")]
    return {there.name: there.shape for there in places}


def _meta(make: Any) -> Any:
    import torch

    with torch.device("meta"):
        return make()


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


# ---- timm ----


@pytest.fixture(scope="module", params=["so400m", "tanh", "squash", "arguments"])
def tower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm folder as timm saves it for the hub."""
    timm = libraries.timm()
    from timm.models import save_for_hf

    folder = folder_of(tmp_path_factory.mktemp("timm"), request.param)
    name, side, overlay, arguments = {
        "so400m": ("vit_so400m_patch14_siglip_56", 56, {"crop_pct": 0.9}, {}),
        "tanh": ("vit_small_patch16_siglip_64", 64, {"crop_pct": 0.9, "interpolation": "bilinear"}, {}),
        "squash": ("vit_small_patch16_siglip_64", 64, {"crop_pct": 1.0, "crop_mode": "squash"}, {}),
        "arguments": (
            "vit_base_patch16_siglip_224",
            80,
            {"crop_pct": 1.0},
            {"img_size": 80, "depth": 1, "num_heads": 6, "embed_dim": 384, "act_layer": "gelu_tanh"},
        ),
    }[request.param]
    model = timm.create_model(
        name,
        num_classes=0,
        pretrained_cfg_overlay={
            "input_size": (3, side, side),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 0,
            "architecture": name,
            "interpolation": "bicubic",
            **overlay,
        },
        **arguments,
    )
    save_for_hf(randomise(model, seed=4), str(folder), safe_serialization=True)
    return folder


def test_timm(tower: Path, tmp_path: Path) -> None:
    import torch

    timm = libraries.timm()
    model = timm.create_model(f"local-dir:{tower}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    pixels = torch.stack([transform(picture) for picture in pictures()])
    with torch.no_grad():
        expected, hidden = unit(model(pixels)), model.forward_features(pixels).numpy()
    checkpoint = open_checkpoint(str(tower))
    assert checkpoint.tokenizer is None
    assert checkpoint.scoring is None
    assert np.array_equal(our_pixels(checkpoint), pixels.numpy())
    with exported(tower, tmp_path) as ours:
        assert np.abs(ours.embed_images(pictures()).vectors - expected).max() < TOLERANCE
        ours_hidden = ours._session("image").run(pixels.numpy(), "last_hidden_state")
        assert np.abs(ours_hidden - hidden).max() < 2e-4 * np.abs(hidden).max()


def test_the_table_of_towers_is_timms() -> None:
    timm = libraries.timm()
    names = [n for n in timm.list_models("vit_*siglip*") if "gap" not in n and n not in libraries.SMALL]
    assert sorted(names) == sorted(n for n in timm_towers.TOWERS if n not in libraries.SMALL)
    for name in names:
        model = _meta(lambda name=name: timm.create_model(name))
        known = timm_towers.TOWERS[name]
        assert model.global_pool == "map"
        assert isinstance(model.attn_pool.mlp.act, type(model.blocks[0].mlp.act))
        found = {
            "img_size": model.patch_embed.img_size[0],
            "patch_size": model.patch_embed.patch_size[0],
            "embed_dim": model.embed_dim,
            "depth": len(model.blocks),
            "num_heads": model.blocks[0].attn.num_heads,
            "act_layer": {"GELU": "gelu", "GELUTanh": "gelu_tanh"}[type(model.blocks[0].mlp.act).__name__],
        }
        assert found == {key: known[key] for key in found}, name
        image = timm_towers.named_tower(Config({"name": name}, name), "name")
        ours = shapes(Architecture(image, None), lambda spec, image=image: timm_towers.place(spec, image))
        assert ours == {n: tuple(v.shape) for n, v in model.state_dict().items()}
        assert model.norm.eps == model.attn_pool.norm.eps == timm_towers.EPS


# ---- the published tokenizer, in OpenCLIP's hands ----


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
