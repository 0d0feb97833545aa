"""Reads SentencePiece models: ``spiece.model`` of SigLIP, ``tokenizer.model`` of SigLIP 2."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from sigrun.canonical import Canonicalisation
from sigrun.errors import CheckpointError
from sigrun.spm import MODEL_TYPES, UNKNOWN, TokenizerSpec
from sigrun_exporters.tokenizer.checked import Mark, checked, damaged, marks


def read_spiece(
    data: bytes,
    *,
    canonicalisation: Canonicalisation,
    context: int,
    eos_id: Mark,
    pad_id: Mark,
    file: str = "spiece.model",
) -> TokenizerSpec:
    """Read a SentencePiece model.

    Args:
        data: the file.
        canonicalisation: what the checkpoint does to a text first.
        context: token ids in a row.
        eos_id: ends every text.
        pad_id: fills the rest of the context.
        file: the file's name, for errors.

    Returns:
        The tokenizer; SentencePiece has loaded it once.

    Raises:
        CheckpointError: the file is damaged, or neither a unigram nor a BPE model.
    """
    proto: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")  # needs protobuf

    try:
        model = proto.ModelProto.FromString(data)
    except Exception as error:  # protobuf has two implementations with an exception class each
        raise damaged(file, f"not a SentencePiece model ({error})") from error
    if not model.pieces:
        raise damaged(file, "it holds no pieces")
    kind = {number: name for name, number in MODEL_TYPES.items()}.get(model.trainer_spec.model_type)
    if kind is None:
        raise CheckpointError(
            f"{file} is neither a unigram nor a BPE model, the kinds of SentencePiece model that SigLIP uses",
            hint="this is the tokenizer of another model (words, or single characters)",
        )
    if model.trainer_spec.treat_whitespace_as_suffix:
        raise CheckpointError(f"{file} marks the ends of words, not their beginnings, as SigLIP's does")
    rules = model.normalizer_spec
    pieces = [piece.piece for piece in model.pieces]
    if not all(isinstance(piece, str) for piece in pieces):  # protobuf leaves bytes where they are no UTF-8
        raise damaged(file, "a piece is not UTF-8 text")
    types = np.array([piece.type for piece in model.pieces], np.int32)  # [V]
    return checked(
        file,
        pieces=pieces,
        scores=np.array([piece.score for piece in model.pieces], np.float32),
        types=types,
        charsmap=bytes(rules.precompiled_charsmap),
        add_dummy_prefix=bool(rules.add_dummy_prefix),
        remove_extra_whitespaces=bool(rules.remove_extra_whitespaces),
        escape_whitespaces=bool(rules.escape_whitespaces),
        byte_fallback=bool(model.trainer_spec.byte_fallback),
        unk_id=int(np.argmax(types == UNKNOWN)),
        canonicalisation=canonicalisation,
        context=context,
        kind=kind,
        **marks(file, pieces, eos_id=eos_id, pad_id=pad_id),
    )
