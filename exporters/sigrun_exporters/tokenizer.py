"""A checkpoint's tokenizer to the arrays that an artifact holds.

Google's checkpoints bring a SentencePiece model (``spiece.model``), OpenCLIP's and timm's only a ``tokenizer.json``
of the same pieces. Both give the same spec.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
import re
from typing import Any, Final

import numpy as np

from sigrun.canonical import Canonicalisation
from sigrun.errors import ArtifactError, CheckpointError
from sigrun.spm import BYTE, CONTROL, NORMAL, UNKNOWN, TokenizerSpec
from sigrun.tokens import Tokenizer

_UNIGRAM: Final = 1  # TrainerSpec.ModelType
_BYTE_PIECE: Final = re.compile(r"<0x[0-9A-F]{2}>")


def read_spiece(
    data: bytes, *, canonicalisation: Canonicalisation, context: int, eos_id: int, pad_id: int
) -> TokenizerSpec:
    """Read a ``spiece.model``.

    Args:
        data: the file.
        canonicalisation: what the checkpoint does to a text first.
        context: token ids in a row.
        eos_id: ends every text.
        pad_id: fills the rest of the context.

    Returns:
        The tokenizer; SentencePiece has loaded it once.

    Raises:
        CheckpointError: the file is damaged, or not a unigram model.
    """
    proto: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")  # needs protobuf

    try:
        model = proto.ModelProto.FromString(data)
    except Exception as error:  # protobuf has two implementations with an exception class each
        raise _damaged("spiece.model", f"not a SentencePiece model ({error})") from error
    if not model.pieces:
        raise _damaged("spiece.model", "it holds no pieces")
    _only_unigram("spiece.model", model.trainer_spec.model_type == _UNIGRAM)
    if model.trainer_spec.treat_whitespace_as_suffix:
        raise CheckpointError("spiece.model marks the ends of words, not their beginnings, as SigLIP's does")
    rules = model.normalizer_spec
    types = np.array([piece.type for piece in model.pieces], np.int32)  # [V]
    return _checked(
        "spiece.model",
        pieces=[piece.piece for piece in model.pieces],
        scores=np.array([piece.score for piece in model.pieces], np.float32),
        types=types,
        charsmap=bytes(rules.precompiled_charsmap),
        add_dummy_prefix=bool(rules.add_dummy_prefix),
        remove_extra_whitespaces=bool(rules.remove_extra_whitespaces),
        escape_whitespaces=bool(rules.escape_whitespaces),
        byte_fallback=bool(model.trainer_spec.byte_fallback),
        unk_id=int(np.argmax(types == UNKNOWN)),
        eos_id=eos_id,
        pad_id=pad_id,
        canonicalisation=canonicalisation,
        context=context,
    )


def read_tokenizer_json(
    data: bytes, *, canonicalisation: Canonicalisation, context: int, eos_id: int, pad_id: int
) -> TokenizerSpec:
    """Read a ``tokenizer.json`` of the ``tokenizers`` library that was made from a unigram SentencePiece model.

    Its own canonicalisation steps are left out: they are what ``canonicalisation`` names, less exactly (the file of
    the SO400M checkpoint keeps ``/ < >``).

    Args:
        data: the file.
        canonicalisation, context, eos_id, pad_id: as for :func:`read_spiece`.

    Returns:
        The tokenizer; SentencePiece has loaded it once.

    Raises:
        CheckpointError: the file is damaged, or not a unigram model.
    """
    try:
        content = json.loads(data)
        model = content["model"]
        _only_unigram("tokenizer.json", model["type"] == "Unigram")
        vocabulary = [(str(piece), float(score)) for piece, score in model["vocab"]]
        unk_id = int(model["unk_id"])
        control = {int(token["id"]) for token in content["added_tokens"] if token["special"]} - {unk_id}
        charsmap = base64.b64decode(_charsmap(content["normalizer"]), validate=True)
        fallback = bool(model.get("byte_fallback", False))
        metaspace = _has_metaspace(content["pre_tokenizer"])
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise _damaged("tokenizer.json", f"not a SentencePiece model ({reason})") from error
    if not metaspace:
        raise CheckpointError("tokenizer.json does not put a space before each text, as SigLIP's does")
    types = np.full(len(vocabulary), NORMAL, np.int32)  # [V]
    for i, (piece, _) in enumerate(vocabulary):
        if fallback and _BYTE_PIECE.fullmatch(piece):
            types[i] = BYTE
        elif i in control:
            types[i] = CONTROL
        elif i == unk_id:
            types[i] = UNKNOWN
    return _checked(
        "tokenizer.json",
        pieces=[piece for piece, _ in vocabulary],
        scores=np.array([score for _, score in vocabulary], np.float32),
        types=types,
        charsmap=charsmap,
        add_dummy_prefix=True,
        remove_extra_whitespaces=True,
        escape_whitespaces=True,
        byte_fallback=fallback,
        unk_id=unk_id,
        eos_id=eos_id,
        pad_id=pad_id,
        canonicalisation=canonicalisation,
        context=context,
    )


def _charsmap(normalizer: Any) -> str:
    """The base64 text of the one Precompiled step; empty if there is none."""
    if normalizer is None:
        return ""
    steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
    found = [str(step["precompiled_charsmap"]) for step in steps if step["type"] == "Precompiled"]
    return found[0] if found else ""


def _has_metaspace(step: Any) -> bool:
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    for each in steps:
        if each["type"] == "Metaspace":
            return bool(
                each.get("prepend_scheme", "always" if each.get("add_prefix_space") else "") == "always"
            )
    return False


def _checked(file: str, **fields: Any) -> TokenizerSpec:
    try:
        spec = TokenizerSpec(**fields)
        Tokenizer(spec)
    except ArtifactError as error:
        raise _damaged(file, error.message) from error
    return spec


def _only_unigram(file: str, unigram: bool) -> None:
    if not unigram:
        raise CheckpointError(
            f"{file} is not a unigram model, the only kind of SentencePiece model that SigLIP uses",
            hint="this is the tokenizer of another model (BPE, or word pieces)",
        )


def _damaged(file: str, why: str) -> CheckpointError:
    return CheckpointError(f"{file} is damaged: {why}", hint="download it again")
