"""The paired difference of two evaluations of the same pictures: what one artifact costs against another."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.embeddings import Embeddings
from sigrun.evaluation.measure import Evaluation, proportion_json, rows
from sigrun.scores import logits, probability
from sigrun.statistics import CONFIDENCE, Paired, Proportion, paired


@dataclass(frozen=True, eq=False)
class Comparison:
    """One evaluation against another, the reference, on the pictures that both could read.

    Attributes:
        found, reference: both evaluations.
        both: which pictures both could read, [n].
        lost: numbers of the pictures that the reference has right and ``found`` has not.
        won: the other way round.
        paired: their counts, the difference of top-1 (``found`` less reference) with its interval, and p.
        paired_top5: the same of top-5; none with five classes or fewer.
        mean_cosine, worst_cosine: of the pictures' embeddings with the reference's; none if the spaces differ.
        probability_error: mean absolute difference of probability over all pictures and labels.
        right_probability_error: the same over the pictures and the labels of their own classes.
    """

    found: Evaluation
    reference: Evaluation
    both: NDArray[np.bool_]
    lost: tuple[int, ...]
    won: tuple[int, ...]
    paired: Paired
    paired_top5: Paired | None
    mean_cosine: float | None
    worst_cosine: float | None
    probability_error: float
    right_probability_error: float

    @property
    def top1(self) -> tuple[Proportion, Proportion]:
        """Top-1 of both evaluations on the pictures that both could read."""
        first, second = (
            Proportion(int((each.rivals[self.both] == 0).sum()), self.paired.total)
            for each in (self.found, self.reference)
        )
        return first, second

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; the two evaluations have their own."""
        name = self.found.dataset.name
        return {
            "subject": dict(self.found.subject),
            "reference": dict(self.reference.subject),
            "confidence": CONFIDENCE,
            "top1": dict(zip(("subject", "reference"), map(proportion_json, self.top1), strict=True)),
            "top1_difference": _paired_json(self.paired),
            "top5_difference": None if self.paired_top5 is None else _paired_json(self.paired_top5),
            "mean_cosine": self.mean_cosine,
            "worst_cosine": self.worst_cosine,
            "probability_error": self.probability_error,
            "right_probability_error": self.right_probability_error,
            "lost": [name(row) for row in self.lost],
            "won": [name(row) for row in self.won],
        }


def compare(found: Evaluation, reference: Evaluation) -> Comparison:
    """Set two evaluations of the same pictures and labels beside each other.

    Raises:
        ValueError: they are of other pictures or labels, or there is no picture that both could read.
    """
    same = (
        len(found.dataset.pictures) == len(reference.dataset.pictures)
        and all(
            a is b or (isinstance(a, str | os.PathLike) and a == b)
            for a, b in zip(found.dataset.pictures, reference.dataset.pictures, strict=True)
        )
        and found.labels.labels == reference.labels.labels
        and np.array_equal(found.truths, reference.truths)
    )
    if not same:
        raise ValueError("only evaluations of the same pictures with the same labels can be compared")
    both = found.read & reference.read
    if not both.any():
        raise ValueError("there is no picture that both evaluations could read")

    def pairs(best: int) -> Paired:
        return paired(reference.rivals[both] < best, found.rivals[both] < best)

    changed = (found.rivals == 0).astype(int) - (reference.rivals == 0)
    top1 = pairs(1)
    top5 = None if found.top5 is None else pairs(5)
    cosines = _cosines(found.images, reference.images, both)
    everywhere, right = _probability_errors(found, reference, both)
    return Comparison(
        found,
        reference,
        both,
        tuple(np.flatnonzero(both & (changed < 0)).tolist()),
        tuple(np.flatnonzero(both & (changed > 0)).tolist()),
        top1,
        top5,
        None if cosines is None else float(cosines.mean()),
        None if cosines is None else float(cosines.min()),
        everywhere,
        right,
    )


def _cosines(found: Embeddings, reference: Embeddings, both: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """Of the embeddings that both have, float64 [n]; none if their spaces differ."""
    if found.space != reference.space:
        return None
    cosines: NDArray[np.float64] = np.einsum(
        "nd,nd->n", found.vectors[both], reference.vectors[both], dtype=np.float64
    )
    return cosines


def _probability_errors(
    found: Evaluation, reference: Evaluation, both: NDArray[np.bool_]
) -> tuple[float, float]:
    """Mean absolute difference of probability over all labels, and over the right ones."""
    total = right = 0.0
    for read in rows(found.images):
        part = read[both[read]]
        error = np.abs(_probabilities(found, part) - _probabilities(reference, part))  # [part, labels]
        total += float(error.sum())
        right += float(error[np.arange(len(part)), found.truths[part]].sum())
    judged = int(both.sum())
    return total / (judged * len(found.labels.labels)), right / judged


def _probabilities(evaluation: Evaluation, part: NDArray[np.int64]) -> NDArray[np.float64]:
    texts = evaluation.labels.embeddings.vectors
    return probability(logits(evaluation.images.vectors[part], texts, evaluation.scoring))


def _paired_json(found: Paired) -> dict[str, float | int]:
    low, high = found.interval()
    return {
        "difference": found.difference,
        "low": low,
        "high": high,
        "lost": found.lost,
        "won": found.won,
        "of": found.total,
        "p": found.p,
    }
