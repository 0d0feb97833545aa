"""Scores: how well a label describes a picture.

SigLIP judges each label by itself: ``probability = sigmoid(exp(logit_scale) · cos + logit_bias)``. The
probabilities of several labels do not sum to 1, and none of them has to be large. Ranking goes by the logit,
which never saturates. :func:`softmax` is for those who know that exactly one of their labels is right; the model
was not trained so.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigrun.errors import ArtifactError, SpaceError

MOST_LOGIT_SCALE = 30.0  # exp(30) is 1e13; trained models have 4 to 5


class ScoreJson(TypedDict):
    """A score as JSON."""

    label: str
    probability: float
    logit: float
    cosine: float


@dataclass(frozen=True, slots=True)
class Score:
    """How well one label describes one picture.

    Attributes:
        label: the label as the user wrote it.
        probability: 0 to 1, this label by itself.
        logit: the same on an open scale; 0 is a probability of one half.
        cosine: of the angle between the two vectors, -1 to 1, before scale and bias.
    """

    label: str
    probability: float
    logit: float
    cosine: float

    def to_json(self) -> ScoreJson:
        """The score as plain JSON values."""
        return {
            "label": self.label,
            "probability": self.probability,
            "logit": self.logit,
            "cosine": self.cosine,
        }


@dataclass(frozen=True, slots=True)
class Scoring:
    """The two learned constants of a SigLIP.

    Attributes:
        logit_scale: natural logarithm of the factor on the cosine, as checkpoints store it (SO400M: 4.72,
            factor 112).
        logit_bias: what is added afterwards.

    Raises:
        ArtifactError: a value no trained model has, and that scores could not be computed with.
    """

    logit_scale: float
    logit_bias: float

    def __post_init__(self) -> None:
        if not (abs(self.logit_scale) <= MOST_LOGIT_SCALE and math.isfinite(self.logit_bias)):
            raise ArtifactError(
                f"logit_scale {self.logit_scale} and logit_bias {self.logit_bias} cannot be: the scale is a "
                f"logarithm of at most {MOST_LOGIT_SCALE:g}, the bias a finite number"
            )


def cosines(image_embeds: NDArray[np.float32], text_embeds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compare every picture with every text.

    Args:
        image_embeds: float32 [N, D], unit length.
        text_embeds: float32 [M, D], unit length.

    Returns:
        float32 [N, M]; a row of NaN stays one.

    Raises:
        SpaceError: the vectors differ in length.
        ValueError: an argument is not a matrix.
    """
    for name, embeds in (("image_embeds", image_embeds), ("text_embeds", text_embeds)):
        if embeds.ndim != 2:
            raise ValueError(f"{name} is an array of shape {embeds.shape}, not a matrix [rows, width]")
    if image_embeds.shape[1] != text_embeds.shape[1]:
        raise SpaceError(
            f"image vectors of {image_embeds.shape[1]} numbers cannot be compared with text vectors of "
            f"{text_embeds.shape[1]}",
            hint="both must come from the same model",
        )
    result: NDArray[np.float32] = image_embeds @ text_embeds.T
    return result


def scaled(cosines: ArrayLike, scoring: Scoring) -> NDArray[np.float32]:
    """The logits of cosines, float32 of the same shape."""
    # The cosines are float32, as in training; scale and bias follow in float64, so that they are rounded once.
    exact = np.asarray(cosines, np.float64) * math.exp(scoring.logit_scale) + scoring.logit_bias
    return np.asarray(exact, np.float32)


def logits(
    image_embeds: NDArray[np.float32], text_embeds: NDArray[np.float32], scoring: Scoring
) -> NDArray[np.float32]:
    """Score every picture against every text: :func:`cosines`, then :func:`scaled`.

    Returns:
        float32 [N, M].

    Raises:
        SpaceError: the vectors differ in length.
        ValueError: an argument is not a matrix.
    """
    return scaled(cosines(image_embeds, text_embeds), scoring)


def probability(logits: ArrayLike) -> NDArray[np.float64]:
    """The sigmoid of each logit, without overflow.

    The result is float64 on purpose: a float32 sigmoid is exactly 1 from a logit of 17 on, this one from 37
    on.

    Args:
        logits: numbers of any shape.

    Returns:
        float64 of the same shape, each from 0 to 1.
    """
    values = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(values))  # 0 to 1, so nothing overflows
    result: NDArray[np.float64] = np.where(values >= 0, 1.0, small) / (1.0 + small)
    return result


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Shares of the labels of each picture, which sum to 1: for when exactly one of the labels is right.

    The bias cancels out. A picture that fits none of the labels gets shares all the same, which is why
    :func:`probability` is what the model was trained for.

    Args:
        logits: [..., labels], at least one label.

    Returns:
        float64 of the same shape; the last axis sums to 1, or is NaN where one of its logits is.

    Raises:
        ValueError: there is no label.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"shares of no label cannot be computed: the logits have shape {values.shape}")
    powers = np.exp(values - values.max(axis=-1, keepdims=True))  # the largest is exp(0)
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def check_limits(top: int | None, threshold: float | None) -> None:
    """Refuse what cannot be meant as ``top`` or ``threshold``.

    Raises:
        ValueError: ``top`` is not a whole number of at least 1, or ``threshold`` not a number from 0 to 1.
    """
    if top is not None and (isinstance(top, bool) or not _whole(top) or top < 1):
        raise ValueError(f"top must be a whole number of at least 1, not {top!r}")
    if threshold is not None and (isinstance(threshold, bool | str) or not 0 <= threshold <= 1):
        raise ValueError(f"threshold is a probability, a number from 0 to 1, not {threshold!r}")


def rank(
    labels: Sequence[str],
    cosines: ArrayLike,
    scoring: Scoring,
    *,
    top: int | None = None,
    threshold: float | None = None,
) -> list[Score]:
    """Score the labels of one picture and put them in order.

    Args:
        labels: M labels.
        cosines: M numbers, in the order of the labels.
        scoring: the constants that make logits of them.
        top: keep only so many.
        threshold: keep only labels of at least this probability.

    Returns:
        The best label first; labels of equal logit stay in the order they were given, and one whose cosine is no
        number comes last (and passes no threshold).

    Raises:
        ValueError: labels and cosines differ in number, or a limit cannot be meant.
    """
    check_limits(top, threshold)
    values = np.asarray(cosines, dtype=np.float32)  # [M]
    if values.shape != (len(labels),):
        raise ValueError(f"{len(labels)} labels cannot go with cosines of shape {values.shape}")
    found = scaled(values, scoring)
    probabilities = probability(found)
    order = np.argsort(-found, kind="stable")
    if threshold is not None:
        order = order[probabilities[order] >= threshold]
    return [Score(labels[i], float(probabilities[i]), float(found[i]), float(values[i])) for i in order[:top]]


def _whole(value: object) -> bool:
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
