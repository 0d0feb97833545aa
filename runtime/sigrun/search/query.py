"""What is searched for: texts and pictures, for and against, each with a weight.

Cosines between texts and pictures are small numbers close together, those between pictures large ones far apart. So
that a weight means the same for both, each term of a query with several is measured in standard deviations over the
pictures of the index: the score of a picture is the sum of ``weight · (cosine - mean) / deviation``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import SpaceError, TextError

SAMPLE: Final = 4096  # rows that deviations are estimated from
_UNIT: Final = 1e-2

Kind = Literal["text", "picture", "vector"]


@dataclass(frozen=True, eq=False)
class Term:
    """A part of a query.

    Attributes:
        vector: float32 [width], unit length.
        kind: what it is the vector of; only texts have probabilities.
        weight: how much it counts; below 0, against.
        name: the text, or the picture's path.
        cut: the text is longer than the model reads; its end does not count.
    """

    vector: NDArray[np.float32]
    kind: Kind = "vector"
    weight: float = 1.0
    name: str = ""
    cut: bool = False


@dataclass(frozen=True)
class Query:
    """Terms that are searched for together.

    Raises:
        TextError: there are none, or a weight is 0 or not finite.
        SpaceError: a vector is no unit vector, or they differ in length.
    """

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise TextError("there is nothing to search for", hint="give a text or a picture")
        for term in self.terms:
            if not (math.isfinite(term.weight) and term.weight != 0):
                raise TextError(f"a weight of {term.weight:g} cannot be meant")
            if term.vector.ndim != 1 or len(term.vector) != len(self.terms[0].vector):
                raise SpaceError(f"vectors of shape {term.vector.shape} cannot be searched for together")
            if not abs(float(np.linalg.norm(term.vector.astype(np.float64))) - 1) <= _UNIT:
                raise SpaceError("a vector to search for is not of unit length")

    @property
    def single(self) -> Term | None:
        """The only term, if it counts for and not against: its scores are its own."""
        return self.terms[0] if len(self.terms) == 1 and self.terms[0].weight > 0 else None

    @property
    def wanted_texts(self) -> tuple[int, ...]:
        """The terms that a threshold is for: texts that count for."""
        return tuple(n for n, term in enumerate(self.terms) if term.kind == "text" and term.weight > 0)

    def matrix(self) -> NDArray[np.float32]:
        """The vectors, float32 [terms, width]."""
        return np.ascontiguousarray(np.stack([term.vector for term in self.terms]), np.float32)


@dataclass(frozen=True)
class Mix:
    """How the cosines of a query's terms become one score."""

    factors: NDArray[np.float64]  # [terms]
    means: NDArray[np.float64]  # [terms]

    @classmethod
    def of(cls, query: Query, sample: NDArray[np.float32]) -> Mix:
        """From cosines of some of the pictures, float32 [n, terms]; of a query of one term, none are needed."""
        weights = np.array([term.weight for term in query.terms])
        if not len(sample):
            return cls(np.sign(weights), np.zeros(len(weights)))
        deviations = sample.std(axis=0, dtype=np.float64)
        deviations[deviations < 1e-6] = 1.0  # all pictures alike, or one
        return cls(weights / deviations, sample.mean(axis=0, dtype=np.float64))

    def scores(self, cosines: NDArray[np.float32]) -> NDArray[np.float64]:
        """One score a picture, float64 [n], of cosines [n, terms]."""
        result: NDArray[np.float64] = (cosines - self.means) @ self.factors
        return result

    def vector(self, query: Query) -> NDArray[np.float32]:
        """A unit vector whose cosines rank pictures as the scores do."""
        mixed = self.factors @ query.matrix().astype(np.float64)
        return (mixed / max(float(np.linalg.norm(mixed)), 1e-30)).astype(np.float32)


def sample_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows spread evenly over all."""
    if len(rows) <= SAMPLE:
        return rows
    return rows[np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64)]


def best(scores: NDArray[np.float64], top: int | None) -> NDArray[np.int64]:
    """The places of the best scores, best first, of equal ones the earlier; -inf is left out."""
    count = len(scores) if top is None else min(top, len(scores))
    if 0 < count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= least)
    else:
        places = np.arange(len(scores)) if count else np.empty(0, np.int64)
    places = places[scores[places] > -np.inf]
    order = np.argsort(-scores[places], kind="stable")[:count]
    return np.asarray(places[order], np.int64)


def names(terms: Sequence[Term]) -> str:
    """A query in words, for headings."""
    words = []
    for number, term in enumerate(terms):
        sign = "− " if term.weight < 0 else ("+ " if number else "")
        weight = "" if abs(term.weight) == 1 else f"{abs(term.weight):g} × "
        words.append(f"{sign}{weight}{f'“{term.name}”' if term.kind == 'text' else term.name or 'a vector'}")
    return " ".join(words)
