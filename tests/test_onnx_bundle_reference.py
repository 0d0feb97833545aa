"""The folders for other hosts under those hosts: tokenizers, transformers and optimum."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from sigrun import Siglip
from sigrun.canonical import canonicalise
from sigrun.spm import NORMAL, model_proto
from sigrun.tokens import Tokenizer, TokenizerSpec
from sigrun_exporters.onnx_bundle import write_hub
from sigrun_exporters.onnx_bundle.tokenizer_json import tokenizer_json
from sigrun_recipes import load
from tests.bundles import Export, exported
from tests.checkpoints import EMOJI, gemma_json, gemma_spec

pytestmark = [
    pytest.mark.reference,
    pytest.mark.filterwarnings("ignore"),  # what optimum, torch and transformers warn of among themselves
]

LINES = [
    *(
        "red apple",
        "a fire engine",
        "owl",
        "x " * 90,
        "naïve café",
        "日本語のテキスト",
        "ﬁne ligature",
        "①②③ ½",
    ),
    *(
        "a\u200bb",
        "emoji 🍎 here",
        "ångström",
        "straße",
        "ωmega σασ",
        "ｆｕｌｌ ｗｉｄｔｈ",
        "한국어",
        "नमस्ते",
        "i̇stanbul",
    ),
    *("i̇stanbul", "zero\u00a0width", "tab\tin", "1 2 3", "e\u0301clair"),
]
RAW = ["Red Apple!", "don't", "  two   spaces ", "semi;colon, comma", "ÅNGSTRÖM", "a_b", "50% off (now)"]


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    with exported(EMOJI, load("q4_k_m"), tmp_path_factory.mktemp("emoji")) as export:
        yield export


@pytest.fixture(scope="module")
def folder(emoji: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emoji.hub(tmp_path_factory.mktemp("hub") / "emoji")


@pytest.fixture(scope="module")
def spec(emoji: Export) -> TokenizerSpec:
    assert emoji.tokenizer is not None
    return emoji.tokenizer


def drawing() -> Image.Image:
    return Image.open(EMOJI.parent / "heldout" / "demo" / "owl.png").convert("RGB")


def random_lines(count: int) -> list[str]:
    """Canonical lines of letters, signs and pictures of many scripts, without combining marks."""
    rng = np.random.default_rng(3)
    ranges = [
        (0x20, 0x7F),
        (0xA0, 0x250),
        (0x370, 0x600),
        (0x900, 0x1000),
        (0x2010, 0x3400),
        (0x1F300, 0x1FB00),
    ]
    lines = []
    while len(lines) < count:
        spans = rng.integers(0, len(ranges), rng.integers(1, 40))
        text = "".join(" " if rng.random() < 0.2 else chr(rng.integers(*ranges[i])) for i in spans)
        text = "".join(c for c in text if unicodedata.category(c)[0] != "M")
        if canonical := canonicalise(text, "hf"):
            lines.append(canonical)
    return lines


@pytest.mark.parametrize("source", ["fixed", "random"])
def test_tokenizer_json_gives_sentencepieces_ids(spec: TokenizerSpec, source: str) -> None:
    from tokenizers import Tokenizer as Theirs

    theirs = Theirs.from_str(tokenizer_json(spec).decode("utf-8"))
    lines = [canonicalise(t, "hf") for t in LINES + RAW] if source == "fixed" else random_lines(3000)
    expected = Tokenizer(spec).encode(lines).ids
    for line, ids in zip(lines, expected.tolist(), strict=True):
        assert theirs.encode(line).ids == ids, ascii(line)


def test_tokenizer_json_makes_ordinary_texts_canonical(spec: TokenizerSpec) -> None:
    from tokenizers import Tokenizer as Theirs

    theirs = Theirs.from_str(tokenizer_json(spec).decode("utf-8"))
    for text, ids in zip(RAW, Tokenizer(spec).encode(RAW).ids.tolist(), strict=True):
        assert theirs.encode(text).ids == ids, text


def gemma_lines() -> list[str]:
    """Texts in lower case with what SigLIP 2's tokenizer keeps: punctuation, line ends, runs of spaces, its symbols."""
    rng = np.random.default_rng(5)
    parts = [
        *"abcdefghijklmnopqrstuvwxyz",
        *" .,;:!?-_/<>()[]{}0123456789",
        "é",
        "日",
        "本",
        "🍎",
        "\n",
        "\n\n",
        "  ",
    ]
    parts += [
        "   ",
        "         ",
        "<h1>",
        "<table>",
        "[@bos@]",
        "<unused0>",
        "the ",
        "picture ",
        "of ",
        "\t",
        "▁",
    ]
    lines = ["".join(parts[i] for i in rng.integers(0, len(parts), rng.integers(1, 60))) for _ in range(2000)]
    lines += [canonicalise(text, "lower") for text in LINES + RAW]
    return [line for line in lines if line.strip()]


def test_tokenizer_json_gives_sentencepieces_ids_of_siglip_2s_kind() -> None:
    from tokenizers import Tokenizer as Theirs

    spec = gemma_spec()
    theirs = Theirs.from_str(tokenizer_json(spec).decode("utf-8"))
    lines = gemma_lines()
    for line, ids in zip(lines, Tokenizer(spec).encode(lines).ids.tolist(), strict=True):
        assert theirs.encode(line).ids == ids, ascii(line)
    upper = ["A Cat, IN the HALL", "<H1>"]
    for text, ids in zip(upper, Tokenizer(spec).encode(upper).ids.tolist(), strict=True):
        assert theirs.encode(text).ids == ids, text


def test_merges_are_those_that_transformers_lists() -> None:
    """The same pairs; the order differs only where SentencePiece itself has no preference."""
    ours, theirs = (json.loads(data)["model"] for data in (tokenizer_json(gemma_spec()), gemma_json()))
    # transformers writes the byte piece of the tab as the tab itself; by fallback it gets the same id.
    assert ours["vocab"] == {"<0x09>" if piece == "\t" else piece: i for piece, i in theirs["vocab"].items()}
    normal = {p for p, kind in zip(gemma_spec().pieces, gemma_spec().types, strict=True) if kind == NORMAL}
    listed = [merge for merge in theirs["merges"] if "".join(merge) in normal]
    assert sorted(ours["merges"]) == sorted(listed)
    assert ["".join(merge) for merge in ours["merges"]] == ["".join(merge) for merge in listed]


def test_tokenizer_json_is_read_back_by_our_own_reader(spec: TokenizerSpec) -> None:
    """What an export of this folder would make of the file is the tokenizer it came from."""
    from sigrun_exporters.tokenizer import read_tokenizer_json

    again = read_tokenizer_json(
        tokenizer_json(spec), canonicalisation="hf", context=64, eos_id=spec.eos_id, pad_id=spec.pad_id
    )
    assert model_proto(again) == model_proto(spec)


def test_transformers_loads_the_tokenizer_and_the_processor(folder: Path, spec: TokenizerSpec) -> None:
    from transformers import AutoProcessor, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer).__name__ == "SiglipTokenizer"
    texts = LINES + RAW
    found = tokenizer(texts, padding="max_length", truncation=True)["input_ids"]
    assert found == Tokenizer(spec).encode(texts).ids.tolist()
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.image_processor.size == {"height": 60, "width": 60}


def test_transformers_loads_a_tokenizer_of_siglip_2s_kind(emoji: Export, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_hub(tmp_path, emoji.manifest, emoji.plan, emoji.store, gemma_spec(), graphs=emoji.graphs)
    assert (tmp_path / "tokenizer.model").is_file()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert type(tokenizer).__name__ == "GemmaTokenizerFast"
    lines = [*gemma_lines(), "A Cat, IN the HALL"]
    found = tokenizer(lines, padding="max_length", truncation=True)
    assert found["input_ids"] == Tokenizer(gemma_spec()).encode(lines).ids.tolist()


def test_optimum_scores_as_the_runtime_does(emoji: Export, folder: Path) -> None:
    from optimum.onnxruntime import ORTModelForZeroShotImageClassification
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, use_fast=False)
    labels = ["owl", "red apple", "bear"]
    inputs = processor(text=labels, images=[drawing()] * 2, padding="max_length", return_tensors="pt")
    with Siglip.load(emoji.gguf, compute="exact") as model:
        expected = {s.label: s.logit for s in model.classify(drawing(), labels)}
    for where in ({}, {"subfolder": "onnx"}, {"use_io_binding": True}):
        model = ORTModelForZeroShotImageClassification.from_pretrained(
            folder, file_name="model_q4.onnx", **where
        )
        logits = model(**inputs).logits_per_image
        assert logits.shape == (2, 3)
        for row in logits.tolist():
            assert row == pytest.approx([expected[label] for label in labels], abs=1e-4)


def test_the_pipeline_gives_the_runtimes_probabilities(emoji: Export, folder: Path) -> None:
    from optimum.onnxruntime import ORTModelForZeroShotImageClassification, pipeline
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, use_fast=False)
    model = ORTModelForZeroShotImageClassification.from_pretrained(folder, file_name="model_q4.onnx")
    classify = pipeline(
        "zero-shot-image-classification",
        model=model,
        tokenizer=processor.tokenizer,
        image_processor=processor.image_processor,
    )
    labels = ["owl", "red apple", "bear"]
    found = classify(drawing(), candidate_labels=labels, hypothesis_template="{}")
    with Siglip.load(emoji.gguf, compute="exact") as runtime:
        expected = runtime.classify(drawing(), labels)
    assert [r["label"] for r in found] == [s.label for s in expected]
    assert [r["score"] for r in found] == pytest.approx([s.probability for s in expected], abs=1e-5)


def test_each_tower_gives_what_transformers_towers_give(tmp_path: Path) -> None:
    """Both outputs of both towers, unquantized, by name."""
    import torch
    from transformers import AutoTokenizer, SiglipModel

    with exported(EMOJI, load("f32"), tmp_path / "out") as export:
        folder = export.hub(tmp_path / "hub")
    theirs = SiglipModel.from_pretrained(EMOJI).eval()
    pixels = torch.randn(3, 3, 60, 60, generator=torch.Generator().manual_seed(0))
    ids = AutoTokenizer.from_pretrained(folder)(
        ["an owl", "x " * 90], padding="max_length", truncation=True, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        expected: dict[str, Any] = {
            "vision_model": theirs.vision_model(pixels),
            "text_model": theirs.text_model(ids),
        }
    for name, inputs in (("vision_model", {"pixel_values": pixels}), ("text_model", {"input_ids": ids})):
        session = ort.InferenceSession(folder / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        outputs = ["pooler_output", "last_hidden_state"]
        found = session.run(outputs, {key: value.numpy() for key, value in inputs.items()})
        for output, values in zip(outputs, found, strict=True):
            right = expected[name][output].numpy()
            assert values.shape == right.shape
            assert np.abs(values - right).max() < 1e-4 * np.abs(right).max(), (name, output)


def test_the_config_makes_the_model_that_transformers_knows(folder: Path) -> None:
    from transformers import AutoConfig

    ours, theirs = AutoConfig.from_pretrained(folder), AutoConfig.from_pretrained(EMOJI)
    assert type(ours) is type(theirs)
    for part in ("vision_config", "text_config"):
        found, expected = getattr(ours, part).to_dict(), getattr(theirs, part).to_dict()
        different = {key for key in expected if found.get(key) != expected[key]}
        assert different <= {"eos_token_id"}
