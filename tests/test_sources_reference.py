"""SigLIP 2 in transformers' layout against the library that it is of: pixels, token ids, embeddings, scores.

Each model is made and saved by its library with seeded random weights, exported by us as f32, and run by our runtime.
"""

from __future__ import annotations

import gzip
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun.canonical import canonicalise
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.checkpoint.huggingface import read_architecture as read_huggingface
from sigrun_exporters.checkpoint.huggingface import source_name, source_shape
from sigrun_exporters.checkpoint.weights import Place
from sigrun_recipes import Architecture, TensorSpec, known
from tests.checkpoints import GEMMA
from tests.libraries import TEXTS, folder_of, pictures, randomise
from tests.sources_reference import exported, on_meta, our_ids, our_pixels, shapes, unit

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-5  # of a unit vector's coordinates
GEMMA_PIECES = 1400


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

        theirs = on_meta(lambda c=config: SiglipModel(c)).state_dict()
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
