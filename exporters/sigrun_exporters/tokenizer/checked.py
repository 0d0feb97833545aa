"""What both readers end with: a spec that SentencePiece has loaded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sigrun.errors import ArtifactError, CheckpointError
from sigrun.spm import TokenizerSpec
from sigrun.tokens import Tokenizer

Mark = int | str
"""A piece that has a part to play, such as the end mark: its id or its text."""


def checked(file: str, **fields: Any) -> TokenizerSpec:
    """A spec of the given fields, tried with SentencePiece.

    Raises:
        CheckpointError: the fields contradict one another, or SentencePiece refuses them.
    """
    try:
        spec = TokenizerSpec(**fields)
        Tokenizer(spec)
    except ArtifactError as error:
        raise damaged(file, error.message) from error
    return spec


def marks(file: str, pieces: Sequence[str], **named: Mark) -> Mapping[str, int]:
    """The ids of named pieces.

    Raises:
        CheckpointError: the tokenizer has no such piece.
    """
    found: dict[str, int] = {}
    for name, mark in named.items():
        if isinstance(mark, str):
            try:
                mark = pieces.index(mark)
            except ValueError as error:
                raise CheckpointError(f"{file} has no piece {mark!r}, which is to be its {name}") from error
        found[name] = mark
    return found


def damaged(file: str, why: str) -> CheckpointError:
    """The error of a file whose content makes no sense."""
    return CheckpointError(f"{file} is damaged: {why}", hint="download it again")
