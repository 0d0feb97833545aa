"""Embeddings with what must never be lost on the way: their space, and which rows failed and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import PictureError, SpaceError


@dataclass(frozen=True)
class Embeddings:
    """One row an item, in the order given.

    Attributes:
        vectors: float32 [n, width], unit length; a row that failed is NaN.
        space: the embedding space id; only vectors with equal ids may be compared.
        errors: row → why it failed, with a hint where there is a way out.
        cut: rows whose text was longer than the context and lost its end.
    """

    vectors: NDArray[np.float32]
    space: str
    errors: Mapping[int, PictureError] = field(default_factory=dict)
    cut: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True)
class LabelSet:
    """Labels with their text embeddings, computed once and used for many pictures.

    Attributes:
        labels: the labels as given, in order.
        embeddings: their text embeddings; ``cut`` marks labels that lost their end.
    """

    labels: tuple[str, ...]
    embeddings: Embeddings


def same_space(ours: str, theirs: str) -> None:
    """Raise :class:`SpaceError` unless both ids are equal."""
    if ours != theirs:
        raise SpaceError(
            f"vectors of two embedding spaces cannot be compared: {ours} and {theirs}",
            hint="compute both with the same model; variants of one checkpoint share a space",
        )
