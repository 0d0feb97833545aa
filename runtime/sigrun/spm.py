"""A SentencePiece tokenizer as plain arrays, and as the model file that SentencePiece loads.

A Sigrun artifact holds the arrays. SentencePiece takes its own protobuf message only, so this module writes that
message by hand; nothing of protobuf is needed to write one. Field numbers are those of
``sentencepiece_model.proto``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sigrun.canonical import CANONICALISATIONS, Canonicalisation
from sigrun.errors import ArtifactError

# The types of pieces, SentencePiece's and llama.cpp's alike.
NORMAL: Final = 1
UNKNOWN: Final = 2
CONTROL: Final = 3
USER_DEFINED: Final = 4
UNUSED: Final = 5
BYTE: Final = 6

_MAX_CONTEXT: Final = 1 << 16
_VARINT: Final = 0
_BYTES: Final = 2
_FLOAT: Final = 5

Kind = Literal["unigram", "bpe"]
MODEL_TYPES: Final[dict[Kind, int]] = {"unigram": 1, "bpe": 2}  # TrainerSpec.ModelType
_ABSENT: Final = -1  # an id that the model does not have


@dataclass(frozen=True, eq=False, slots=True)
class TokenizerSpec:
    """A SentencePiece tokenizer as a GGUF file holds it.

    Attributes:
        pieces: V pieces; the index is the token id.
        scores: float32 [V]; log-probabilities (unigram), or larger for what is merged earlier (bpe).
        types: int32 [V], 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
        charsmap: SentencePiece's precompiled normalization rules; empty for none.
        add_dummy_prefix: put a space before the text.
        remove_extra_whitespaces: collapse and trim spaces.
        escape_whitespaces: write a space as U+2581.
        byte_fallback: spell unknown characters as byte pieces.
        unk_id: the one piece of type 2.
        eos_id: ends every text.
        pad_id: fills the rest of the context (for SigLIP 1 the same as eos_id).
        canonicalisation: what is done to a text first.
        context: token ids in a row, the end mark included.
        kind: ``unigram`` (SigLIP) or ``bpe`` (SigLIP 2, whose tokenizer is Gemma's).

    Raises:
        ArtifactError: the values contradict one another.
    """

    pieces: Sequence[str]
    scores: NDArray[np.float32]
    types: NDArray[np.int32]
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    byte_fallback: bool
    unk_id: int
    eos_id: int
    pad_id: int
    canonicalisation: Canonicalisation
    context: int
    kind: Kind = "unigram"

    def __post_init__(self) -> None:
        count = len(self.pieces)
        if self.scores.shape != (count,) or self.types.shape != (count,):
            raise _contradiction(
                f"{count} pieces, scores of shape {self.scores.shape}, types of shape {self.types.shape}"
            )
        if not bool(np.isfinite(self.scores).all()):
            raise _contradiction("a piece's score is not a number")
        strange = sorted(set(np.unique(self.types).tolist()) - set(range(NORMAL, BYTE + 1)))
        if strange:
            raise _contradiction(f"there are pieces of type {strange[0]}; known are {NORMAL} to {BYTE}")
        for name in ("unk_id", "eos_id", "pad_id"):
            if not 0 <= getattr(self, name) < count:
                raise _contradiction(f"{name} is {getattr(self, name)}, and there are {count} pieces")
        unknown = np.flatnonzero(self.types == UNKNOWN).tolist()
        if unknown != [self.unk_id]:
            raise _contradiction(f"unk_id is {self.unk_id}, and the pieces of type unknown are {unknown[:4]}")
        if self.canonicalisation not in CANONICALISATIONS:
            raise ArtifactError(
                f"the tokenizer wants canonicalisation {self.canonicalisation!r}; known are "
                f"{', '.join(CANONICALISATIONS)}",
                hint="a newer version of sigrun may know it",
            )
        if self.kind not in MODEL_TYPES:
            raise _contradiction(f"its kind is {self.kind!r}; known are {', '.join(MODEL_TYPES)}")
        if not 2 <= self.context <= _MAX_CONTEXT:
            raise _contradiction(f"the context is {self.context} ids")


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
            _number(3, MODEL_TYPES[spec.kind]),
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
            (piece_key, varint(len(raw)), raw, score_key, scores[4 * i : 4 * i + 4], type_fields[kinds[i]])
        )
        fields += (
            piece_key,
            varint(len(body)),
            body,
        )  # ModelProto.pieces is field 1 as well
    return fields


def varint(value: int) -> bytes:
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
    return varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + varint(int(value))


def _blob(field: int, value: bytes) -> bytes:
    return _key(field, _BYTES) + varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _blob(field, value.encode("utf-8"))


def _contradiction(what: str) -> ArtifactError:
    return ArtifactError(
        f"the tokenizer contradicts itself: {what}", hint="the artifact is damaged; fetch or export it again"
    )
