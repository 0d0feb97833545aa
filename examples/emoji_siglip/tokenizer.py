"""A SentencePiece tokenizer in the manner of SigLIP's, trained on the captions.

Unigram pieces with byte fallback; ids 0 <pad>, 1 </s>, 2 <unk>; texts are padded to 64 with id 1. The slow
SiglipTokenizer of transformers reads `spiece.model`; `tokenizer.json` describes the same to `tokenizers`.
"""

from __future__ import annotations

import base64
import json
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.emoji_siglip.concepts import Captions, Concept, canonical

if TYPE_CHECKING:
    from transformers import SiglipTokenizer

CONTEXT = 64
VOCABULARY = 2000


def train_tokenizer(concepts: list[Concept], captions: Captions, folder: Path) -> Path:
    """Train the pieces on canonicalised captions, evaluation captions weighing most; deterministic."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "captions.txt"
    lines = [canonical(concept.caption) for concept in concepts] * 3 + captions.texts
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "spiece"),
        model_type="unigram",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    model = folder / "spiece.model"
    proto = read_pieces(model)
    for name in ("input", "model_prefix"):  # the folder it was trained in
        proto.trainer_spec.ClearField(name)
    model.write_bytes(proto.SerializeToString(deterministic=True))
    return model


def read_pieces(model: Path) -> Any:
    """A SentencePiece model as its protobuf message."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    return proto


def write_tokenizer_files(model: Path, folder: Path) -> None:
    """Write the four tokenizer files as Google's folder has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.read_bytes())
    token: dict[str, Any] = {"lstrip": True, "normalized": False, "rstrip": True, "single_word": False}
    end, unknown = {"content": "</s>", **token}, {"content": "<unk>", **token}
    _write(folder / "special_tokens_map.json", {"eos_token": end, "pad_token": end, "unk_token": unknown})
    _write(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {"1": {**end, "special": True}, "2": {**unknown, "special": True}},
            "additional_special_tokens": [],
            "clean_up_tokenization_spaces": True,
            "do_lower_case": True,
            "eos_token": "</s>",
            "model_input_names": ["input_ids"],
            "model_max_length": CONTEXT,
            "pad_token": "</s>",
            "processor_class": "SiglipProcessor",
            "sp_model_kwargs": {},
            "tokenizer_class": "SiglipTokenizer",
            "unk_token": "<unk>",
        },
    )
    _write(folder / "tokenizer.json", fast_tokenizer(folder / "spiece.model"))


def fast_tokenizer(model: Path) -> dict[str, Any]:
    """The same tokenizer for the `tokenizers` library: lower-case, no punctuation, single spaces, unigram."""
    proto = read_pieces(model)
    special = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True}
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode("ascii")
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    punctuation = "[" + "".join("\\" + mark for mark in string.punctuation) + "]"
    return {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": CONTEXT, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": CONTEXT},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 1,
            "pad_type_id": 0,
            "pad_token": "</s>",
        },
        "added_tokens": [{"id": 1, "content": "</s>", **special}, {"id": 2, "content": "<unk>", **special}],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Lowercase"},
                {"type": "Replace", "pattern": {"Regex": punctuation}, "content": ""},
                {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
                {"type": "Strip", "strip_left": True, "strip_right": True},
                {"type": "Precompiled", "precompiled_charsmap": charsmap},
            ],
        },
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                end,
                {"Sequence": {"id": "B", "type_id": 0}},
                end,
            ],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "vocab": [[piece.piece, piece.score] for piece in proto.pieces],
            "byte_fallback": True,
        },
    }


def open_tokenizer(folder: Path) -> SiglipTokenizer:
    """transformers' own SiglipTokenizer on the files of `folder`."""
    from transformers import SiglipTokenizer

    return SiglipTokenizer.from_pretrained(folder)


def encode(tokenizer: SiglipTokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids, padded to the full context as SigLIP was trained."""
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with two spaces, as transformers does."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
