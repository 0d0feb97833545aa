"""Embeddings with what must never be lost on the way: their space, which rows failed and why, what was left out."""

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
        features: float32 [n, tokens, width], the image tower's last hidden state, one vector a patch, where that was
            asked for; a row that failed is NaN.
        notes: row → what to know of its picture, such as that it is the first of 12 frames.
    """

    vectors: NDArray[np.float32]
    space: str
    errors: Mapping[int, PictureError] = field(default_factory=dict)
    cut: tuple[int, ...] = ()
    features: NDArray[np.float32] | None = None
    notes: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class EmbeddedPicture:
    """What became of one picture.

    Attributes:
        row: its place among the pictures, from 0.
        vector: float32 [width], unit length; None where the picture cannot be read.
        error: why it cannot, with a hint where there is a way out.
        note: what to know of it, such as that it is the first of 12 frames.
        features: float32 [tokens, width], where they were asked for.
    """

    row: int
    vector: NDArray[np.float32] | None
    error: PictureError | None = None
    note: str | None = None
    features: NDArray[np.float32] | None = None


def same_space(ours: str, theirs: str) -> None:
    """Raise :class:`SpaceError` unless both ids are equal."""
    if ours != theirs:
        raise SpaceError(
            f"vectors of two embedding spaces cannot be compared: {ours} and {theirs}",
            hint="compute both with the same model; variants of one checkpoint share a space",
        )
