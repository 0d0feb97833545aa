"""Texts to token ids: canonical spelling, SentencePiece, the end mark, padding to the full context.

SigLIP's text tower takes no attention mask and reads its result at the last position, so every text is padded
to the whole context (64) with the padding id. Anything else gives a vector of the right shape and the wrong
direction.

The ids are those of the library that a checkpoint is of (``transformers.SiglipTokenizer`` for ``hf``; transformers'
Gemma tokenizer, after lower-casing, for ``lower``; OpenCLIP's for ``openclip``), but for this. A text is text: where
it spells a control piece such as ``</s>`` or ``<eos>``, these are ordinary characters here. Where two ways to cut a
text are equally likely, as in "xxx", rounding decides; SiglipTokenizer tokenizes "<unk>" before each text, which rounds
differently (8 of 150,000 lines of prose and program text, all of them letters repeated). And where a text for Gemma's
tokenizer holds the character U+2581, which stands for a space, SentencePiece takes it together with spaces beside it
and the ``tokenizers`` library does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sigrun.canonical import canonicalise
from sigrun.errors import ArtifactError, TextError
from sigrun.spm import TokenizerSpec, model_proto

__all__ = ["Tokenizer", "TokenizerSpec", "Tokens"]

_SHOWN: Final = 60  # characters of a text that an error message quotes


@dataclass(frozen=True, eq=False, slots=True)
class Tokens:
    """Texts as the text tower takes them.

    Attributes:
        ids: int64 [N, context].
        cut: bool [N], True where the text was too long and its end was left out.
    """

    ids: NDArray[np.int64]
    cut: NDArray[np.bool_]


class Tokenizer:
    """Turns texts into token ids. Threads may share one."""

    def __init__(self, spec: TokenizerSpec) -> None:
        """Load the tokenizer.

        Raises:
            ArtifactError: SentencePiece refuses the spec.
        """
        from sentencepiece import SentencePieceProcessor  # only those who tokenize pay for it

        self.spec = spec
        try:
            self._processor: Any = SentencePieceProcessor(model_proto=model_proto(spec))
        except (RuntimeError, ValueError, KeyError, UnicodeError) as error:
            raise ArtifactError(
                f"the tokenizer is damaged: {error}", hint="fetch or export the artifact again"
            ) from error

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokenize texts.

        Args:
            texts: N texts.

        Returns:
            N rows; each holds at most context - 1 ids of text, then eos_id, then pad_id to the end.

        Raises:
            TextError: an entry is not a text, is empty, has nothing left once canonical, or is not valid
                Unicode.
        """
        if isinstance(texts, str):
            raise TextError("a list of texts is wanted, and a single text was given", hint="write [text]")
        spec = self.spec
        ids = np.full((len(texts), spec.context), spec.pad_id, dtype=np.int64)  # [N, context]
        cut = np.zeros(len(texts), dtype=np.bool_)  # [N]
        for row, text in enumerate(texts):
            found = self._encode_one(row, text)
            room = spec.context - 1
            cut[row] = len(found) > room
            found = found[:room]
            ids[row, : len(found)] = found
            ids[row, len(found)] = spec.eos_id
        return Tokens(ids, cut)

    def _encode_one(self, row: int, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TextError(f"text {row} is of type {type(text).__name__}, not str")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextError(
                f"text {row} ({_shown(text)}) holds a lone surrogate (U+{ord(text[error.start]):04X}) at "
                f"character {error.start}, which is no character",
                hint="it was decoded wrongly: read it as UTF-8, or with errors='replace'",
            ) from error
        if not text.strip():
            raise TextError(f"text {row} is empty", hint="leave it out, or give a word")
        canonical = canonicalise(text, self.spec.canonicalisation)
        found: list[int] = self._processor.encode(canonical, out_type=int) if canonical else []
        if not found:
            raise TextError(
                f"text {row} ({_shown(text)}) holds nothing but punctuation or spaces, which the model's "
                f"canonicalisation ({self.spec.canonicalisation}) drops",
                hint="describe it in words",
            )
        return found


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!a}…"
