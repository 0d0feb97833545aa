"""A SentencePiece model file, written by hand.

A Sigrun artifact holds the tokenizer as plain arrays. SentencePiece loads its own protobuf message only, so
this module writes that message; nothing of protobuf is needed to write one. Field numbers are those of
``sentencepiece_model.proto``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from sigrun.tokens import TokenizerSpec

_VARINT: Final = 0
_BYTES: Final = 2
_FLOAT: Final = 5

_UNIGRAM: Final = 1  # TrainerSpec.ModelType
_ABSENT: Final = -1  # an id that the model does not have


def model_proto(spec: TokenizerSpec) -> bytes:
    """Write a tokenizer as a serialized ``ModelProto``: the content of a ``spiece.model``.

    The same spec gives the same bytes.

    Args:
        spec: the tokenizer.

    Returns:
        What ``SentencePieceProcessor(model_proto=...)`` loads.
    """
    trainer = b"".join(
        (
            _number(3, _UNIGRAM),
            _number(4, len(spec.pieces)),
            _number(24, 0),  # treat_whitespace_as_suffix
            _number(35, spec.byte_fallback),
            _number(40, spec.unk_id),
            _number(41, _ABSENT),  # bos_id
            _number(42, spec.eos_id),
            _number(43, spec.pad_id),
            _text(45, spec.pieces[spec.unk_id]),
            _text(47, spec.pieces[spec.eos_id]),
            _text(48, spec.pieces[spec.pad_id]),
        )
    )
    normalizer = b"".join(
        (
            _text(1, "custom"),
            _blob(2, spec.charsmap),
            _number(3, spec.add_dummy_prefix),
            _number(4, spec.remove_extra_whitespaces),
            _number(5, spec.escape_whitespaces),
        )
    )
    return b"".join((*_pieces(spec), _blob(2, trainer), _blob(3, normalizer)))


def _pieces(spec: TokenizerSpec) -> list[bytes]:
    """Field 1 of ModelProto, once a piece: {1: piece, 2: score, 3: type}."""
    scores = spec.scores.astype("<f4").tobytes()  # 4 bytes a piece, as protobuf writes a float
    score_key = _key(2, _FLOAT)
    piece_key = _key(1, _BYTES)
    type_fields = {int(kind): _number(3, int(kind)) for kind in np.unique(spec.types)}
    kinds: list[int] = spec.types.tolist()
    fields: list[bytes] = []
    for i, piece in enumerate(spec.pieces):
        raw = piece.encode("utf-8")
        body = b"".join(
            (piece_key, _varint(len(raw)), raw, score_key, scores[4 * i : 4 * i + 4], type_fields[kinds[i]])
        )
        fields += (
            piece_key,
            _varint(len(body)),
            body,
        )  # ModelProto.pieces is field 1 as well
    return fields


def _varint(value: int) -> bytes:
    """A number in base 128, low digits first; negative ones as 64-bit two's complement."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= 0xFFFF_FFFF_FFFF_FFFF
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + _varint(int(value))


def _blob(field: int, value: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _blob(field, value.encode("utf-8"))
