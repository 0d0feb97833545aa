"""A tokenizer as a ``tokenizer.json`` of the ``tokenizers`` library, which transformers.js and others read."""

from __future__ import annotations

import base64
import json
import string
from typing import Any

from sigrun.canonical import canonicalise
from sigrun.spm import CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, TokenizerSpec

_SPACE = "\u2581"
_NEVER = -1e6  # the score of a piece that is never chosen


def tokenizer_json(spec: TokenizerSpec) -> bytes:
    """The file's content. Equal tokenizers give equal bytes.

    Texts that are canonical already give the ids that :class:`sigrun.tokens.Tokenizer` gives, padded and cut
    alike, but for a flaw of the library: of a character that the pieces' own normalization replaces, it drops the
    combining marks. Other texts are made canonical as far as the library can: ``hf`` and ``lower`` but for rare
    characters whose small form differs; ``openclip`` without its mending of mojibake and HTML entities.
    """
    end = {"id": spec.pieces[spec.eos_id], "type_id": 0}
    unigram = spec.kind == "unigram"
    metaspace = _metaspace(spec)
    content: dict[str, Any] = {
        "version": "1.0",
        "truncation": {
            "direction": "Right",
            "max_length": spec.context,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": {
            "strategy": {"Fixed": spec.context},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": spec.pad_id,
            "pad_type_id": 0,
            "pad_token": spec.pieces[spec.pad_id],
        },
        "added_tokens": _added_tokens(spec),
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(spec)},
        "pre_tokenizer": metaspace if unigram else None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": end}],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": end},
                {"Sequence": {"id": "B", "type_id": 0}},
                {"SpecialToken": end},
            ],
            "special_tokens": {end["id"]: {"id": end["id"], "ids": [spec.eos_id], "tokens": [end["id"]]}},
        },
        "decoder": metaspace if unigram else _BPE_DECODER,
        "model": _unigram(spec) if unigram else _bpe(spec),
    }
    return (json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8")


def _metaspace(spec: TokenizerSpec) -> dict[str, Any]:
    return {
        "type": "Metaspace",
        "replacement": _SPACE,
        "prepend_scheme": "always" if spec.add_dummy_prefix else "never",
        # Where no piece spans a space, words can be cut one by one.
        "split": not any(_SPACE in piece.lstrip(_SPACE) for piece in spec.pieces),
    }


def _unigram(spec: TokenizerSpec) -> dict[str, Any]:
    rated = zip(spec.pieces, spec.scores.tolist(), spec.types.tolist(), strict=True)
    return {
        "type": "Unigram",
        "unk_id": spec.unk_id,
        "vocab": [[piece, _NEVER if kind == UNUSED else score] for piece, score, kind in rated],
        "byte_fallback": spec.byte_fallback,
    }


def _bpe(spec: TokenizerSpec) -> dict[str, Any]:
    """SentencePiece merges the neighbours whose joint piece scores best; here every pair is listed, best first."""
    ids = {piece: i for i, piece in enumerate(spec.pieces)}
    kinds, scores = spec.types.tolist(), spec.scores.tolist()
    merges: list[list[str]] = []
    for i in sorted((i for i, kind in enumerate(kinds) if kind == NORMAL), key=lambda i: (-scores[i], i)):
        piece = spec.pieces[i]
        pairs = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        found = [(ids[left], ids[right]) for left, right in pairs if left in ids and right in ids]
        merges += [[spec.pieces[left], spec.pieces[right]] for left, right in sorted(found)]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": spec.pieces[spec.unk_id],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": spec.byte_fallback,
        "ignore_merges": False,
        "vocab": ids,
        "merges": merges,
    }


_BPE_DECODER: dict[str, Any] = {
    "type": "Sequence",
    "decoders": [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ],
}


def _added_tokens(spec: TokenizerSpec) -> list[dict[str, Any]]:
    """Marks, which no text spells, and pieces that are taken whole wherever a text spells them."""
    kinds = spec.types.tolist()
    special = {i for i, kind in enumerate(kinds) if kind in (CONTROL, UNKNOWN)} | {spec.eos_id, spec.pad_id}
    whole = {
        i for i, kind in enumerate(kinds) if kind == USER_DEFINED and _is_canonical(spec, spec.pieces[i])
    }
    strips = spec.kind == "unigram"  # as SigLIP's file has it
    return [
        {
            "id": i,
            "content": spec.pieces[i],
            "single_word": False,
            "lstrip": strips and i in special,
            "rstrip": strips and i in special,
            "normalized": i not in special,
            "special": i in special,
        }
        for i in sorted(special | whole)
    ]


def _is_canonical(spec: TokenizerSpec, piece: str) -> bool:
    """Whether a canonical text can hold the piece; the library would change the others and find them by mistake."""
    how = (
        "hf" if spec.canonicalisation == "openclip" else spec.canonicalisation
    )  # keeps no more, and needs no ftfy
    text = piece.replace(_SPACE, " ")
    return canonicalise(text, how) == text


def _normalizers(spec: TokenizerSpec) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if spec.canonicalisation == "openclip":
        steps.append(_replace({"String": "_"}, " "))
    if spec.canonicalisation != "none":
        steps.append({"type": "Lowercase"})
    if spec.canonicalisation in ("hf", "openclip"):
        punctuation = "".join(f"\\{c}" for c in string.punctuation)
        steps += [
            _replace({"Regex": f"[{punctuation}]"}, ""),
            _replace({"Regex": r"\s+"}, " "),
            {"type": "Strip", "strip_left": True, "strip_right": True},
        ]
    if spec.charsmap:
        charsmap = base64.b64encode(spec.charsmap).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps += [
            {"type": "Strip", "strip_left": True, "strip_right": True},
            _replace({"Regex": " {2,}"}, " "),
        ]
    if spec.kind == "bpe":  # the other kind's spaces are written anew when the text is cut into words
        if spec.add_dummy_prefix:
            steps.append({"type": "Prepend", "prepend": _SPACE})
        steps.append(_replace({"String": " "}, _SPACE))
    return steps


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}
