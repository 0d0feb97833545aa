"""Reads a ``tokenizer.json`` of the ``tokenizers`` library that was made from a SentencePiece model."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from sigrun.canonical import Canonicalisation
from sigrun.errors import CheckpointError
from sigrun.spm import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, TokenizerSpec
from sigrun_exporters.tokenizer.checked import Mark, checked, damaged, marks
from sigrun_exporters.tokenizer.merges import scores_of

FILE: Final = "tokenizer.json"
_BYTE_PIECE: Final = re.compile(r"<0x[0-9A-F]{2}>")
_TAB: Final = "\t"
_TAB_BYTE: Final = "<0x09>"
_MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    binascii.Error,
    RecursionError,
)


def read_tokenizer_json(
    data: bytes,
    *,
    canonicalisation: Canonicalisation,
    context: int,
    eos_id: Mark,
    pad_id: Mark,
    control: Sequence[str] = (),
) -> TokenizerSpec:
    """Read a ``tokenizer.json`` that was made from a unigram or BPE SentencePiece model.

    Its own canonicalisation steps are left out: they are what ``canonicalisation`` names, less exactly (the file of
    the SO400M checkpoint keeps ``/ < >``).

    Args:
        data: the file.
        canonicalisation, context, eos_id, pad_id: as for :func:`read_spiece`.
        control: pieces that no text spells, beside the end and padding marks.

    Returns:
        The tokenizer; SentencePiece has loaded it once.

    Raises:
        CheckpointError: the file is damaged, or says what no SentencePiece model can.
    """
    try:
        content = json.loads(data)
        kind = content["model"]["type"]
        with np.errstate(over="ignore"):  # a score beyond float32 becomes infinite, and that is refused below
            if kind == "BPE":
                fields = _bpe(content, {*control, *(m for m in (eos_id, pad_id) if isinstance(m, str))})
            elif kind == "Unigram":
                fields = _unigram(content)
            else:
                fields = {}
        if not fields:
            raise CheckpointError(
                f"{FILE} holds a {kind!r} model, neither a unigram nor a BPE one, as SigLIP's",
                hint="this is the tokenizer of another model (word pieces)",
            )
    except _MALFORMED as error:
        reason = f"{type(error).__name__}: {error}"
        raise damaged(FILE, f"not a SentencePiece model ({reason})") from error
    return checked(
        FILE,
        **fields,
        escape_whitespaces=True,
        canonicalisation=canonicalisation,
        context=context,
        **marks(FILE, fields["pieces"], eos_id=eos_id, pad_id=pad_id),
    )


def _unigram(content: Any) -> dict[str, Any]:
    model = content["model"]
    vocabulary = [(str(piece), float(score)) for piece, score in model["vocab"]]
    unk_id = int(model["unk_id"])
    control = {int(token["id"]) for token in content["added_tokens"] if token["special"]} - {unk_id}
    fallback = bool(model.get("byte_fallback", False))
    types = np.full(len(vocabulary), NORMAL, np.int32)  # [V]
    for i, (piece, _) in enumerate(vocabulary):
        if fallback and _BYTE_PIECE.fullmatch(piece):
            types[i] = BYTE
        elif i in control:
            types[i] = CONTROL
        elif i == unk_id:
            types[i] = UNKNOWN
    return {
        "kind": "unigram",
        "pieces": [piece for piece, _ in vocabulary],
        "scores": np.array([score for _, score in vocabulary], np.float32),
        "types": types,
        "charsmap": base64.b64decode(_charsmap(content["normalizer"]), validate=True),
        "add_dummy_prefix": _puts_a_space_first(content["pre_tokenizer"]),
        "remove_extra_whitespaces": True,
        "byte_fallback": fallback,
        "unk_id": unk_id,
    }


def _bpe(content: Any, control: set[str]) -> dict[str, Any]:
    """Gemma's kind: spaces written as ▁, nothing else done to a text, unknown characters spelled as bytes."""
    model = content["model"]
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        if model.get(key):
            raise CheckpointError(f"{FILE}: its model has {key} {model[key]!r}, which SigLIP 2's has not")
    _only_escapes_spaces(content)
    ids: dict[str, int] = {str(piece): int(i) for piece, i in model["vocab"].items()}
    added: dict[str, int] = {str(token["content"]): int(token["id"]) for token in content["added_tokens"]}
    pieces = _by_id(ids | added)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    types = np.full(len(pieces), NORMAL, np.int32)  # [V]
    fallback = bool(model.get("byte_fallback", False))
    if fallback and _TAB_BYTE not in ids and _TAB in ids and _TAB not in added:
        # The converter puts a tab in the place of its byte piece where the vocabulary has no tab of its own.
        pieces[ids[_TAB]] = _TAB_BYTE
    for i, piece in enumerate(pieces):
        if fallback and _BYTE_PIECE.fullmatch(piece):
            types[i] = BYTE
        elif piece == model["unk_token"]:
            types[i] = UNKNOWN
        elif piece in added:
            types[i] = CONTROL if piece in control else USER_DEFINED
    return {
        "kind": "bpe",
        "pieces": pieces,
        "scores": scores_of(FILE, ids, merges, types),
        "types": types,
        "charsmap": b"",
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "byte_fallback": fallback,
        "unk_id": pieces.index(str(model["unk_token"])),
    }


def _by_id(ids: dict[str, int]) -> list[str]:
    pieces = sorted(ids, key=ids.__getitem__)
    if [ids[piece] for piece in pieces] != list(range(len(pieces))):
        raise damaged(FILE, "its ids do not count from 0 without a gap")
    return pieces


def _only_escapes_spaces(content: Any) -> None:
    steps = _steps(content["normalizer"], "normalizers")
    kinds = [step["type"] for step in steps if step["type"] != "Lowercase"]
    replaced = [
        (step["pattern"].get("String"), step["content"]) for step in steps if step["type"] == "Replace"
    ]
    split = content["pre_tokenizer"]
    # Splitting at spaces finds none, because they are written as ▁ by then.
    harmless = split is None or (split["type"] == "Split" and split["pattern"].get("String") == " ")
    if kinds != ["Replace"] or replaced != [(" ", "▁")] or not harmless:
        raise CheckpointError(
            f"{FILE} holds a BPE model that does more than write spaces as ▁, which is all that SigLIP 2's does",
            hint="this is the tokenizer of another model (byte-level BPE, as CLIP's and GPT's)",
        )


def _steps(step: Any, key: str) -> list[Any]:
    if step is None:
        return []
    return list(step[key]) if step["type"] == "Sequence" else [step]


def _charsmap(normalizer: Any) -> str:
    """The base64 text of the one Precompiled step; empty if there is none."""
    steps = _steps(normalizer, "normalizers")
    found = [str(step["precompiled_charsmap"]) for step in steps if step["type"] == "Precompiled"]
    return found[0] if found else ""


def _puts_a_space_first(step: Any) -> bool:
    for each in _steps(step, "pretokenizers"):
        if each["type"] == "Metaspace":
            scheme = each.get("prepend_scheme", "always" if each.get("add_prefix_space") else "never")
            # "first" puts it before the text alone, not after special tokens, of which a text has none here.
            return scheme in ("always", "first")
    raise CheckpointError(f"{FILE} does not write spaces as ▁, as SigLIP's does")
