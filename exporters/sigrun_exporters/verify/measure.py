"""Figures that say how far one set of embeddings is from another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sigrun.scores import Scoring, logits, probability
from sigrun.verification import Cosines, Scores

Floats = NDArray[np.float32]
TIE = 0.1
"""Logits. A text that the checkpoint scores this near to its best one is one of its best: which of them a variant puts
first says nothing."""


def cosines(expected: Floats, found: Floats) -> Cosines:
    """Cosines of rows with each other; both float32 [n, width], unit length, n at least 1."""
    each = (expected.astype(np.float64) * found).sum(axis=1)
    return Cosines(_rounded(each.mean()), _rounded(each.min()))


def scores(
    expected: tuple[Floats, Floats], found: tuple[Floats, Floats], scoring: Scoring, fitted: Scoring
) -> Scores:
    """How far scores of all pictures and texts move.

    Args:
        expected: the checkpoint's image embeddings [n, width] and text embeddings [m, width].
        found: the variant's.
        scoring: the checkpoint's constants.
        fitted: the variant's.
    """
    exact, moved = logits(*expected, scoring), logits(*found, fitted)  # [n, m]
    error = np.abs(probability(moved) - probability(exact))
    rows = np.arange(len(exact))
    chosen = exact[rows, moved.argmax(axis=1)]
    return Scores(
        logit_error=_rounded(np.abs(moved.astype(np.float64) - exact).mean()),
        probability_error=_rounded(error.mean()),
        probability_error_worst=_rounded(error.max()),
        top1=_rounded((chosen >= exact.max(axis=1) - TIE).mean()),
        rank=_rounded(np.mean([spearman(a, b) for a, b in zip(exact, moved, strict=True)])),
    )


def spearman(a: Floats, b: Floats) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks. 1 where nothing is to be ordered."""
    x, y = (_ranks(values) for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    whole = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / whole) if whole > 0 else float(np.array_equal(x, y))


def _ranks(values: Floats) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # of each group of equal values
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks


def _rounded(value: np.floating | float) -> float:
    """To eight decimals: more would only say which machine measured."""
    return round(float(value), 8)
