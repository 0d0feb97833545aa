"""Scores: how well a label describes a picture.

SigLIP judges each label by itself: ``probability = sigmoid(exp(logit_scale) · cos + logit_bias)``. The
probabilities of several labels do not sum to 1, and none of them has to be large. Ranking goes by the logit,
which never saturates.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True, slots=True)
class Score:
    """How well one label describes one picture.

    Attributes:
        label: the label as the user wrote it.
        probability: 0 to 1, this label by itself.
        logit: the same on an open scale; 0 is a probability of one half.
    """

    label: str
    probability: float
    logit: float

    def to_json(self) -> ScoreJson:
        """The score as plain JSON values."""
        return {"label": self.label, "probability": self.probability, "logit": self.logit}


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


def logits(
    image_embeds: NDArray[np.float32], text_embeds: NDArray[np.float32], scoring: Scoring
) -> NDArray[np.float32]:
    """Score every picture against every text.

    Args:
        image_embeds: float32 [N, D], unit length.
        text_embeds: float32 [M, D], unit length.
        scoring: the model's constants.

    Returns:
        float32 [N, M].

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
    # The product is float32, as in training; scale and bias follow in float64, so that they are rounded once.
    cosines = (image_embeds @ text_embeds.T).astype(np.float64)  # [N, M]
    scaled = cosines * math.exp(scoring.logit_scale) + scoring.logit_bias
    result: NDArray[np.float32] = scaled.astype(np.float32)
    return result


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


def rank(labels: Sequence[str], logits: ArrayLike, *, top: int | None = None) -> list[Score]:
    """Put the labels of one picture in order.

    Args:
        labels: M labels.
        logits: M numbers, in the order of the labels.
        top: keep only so many.

    Returns:
        The best label first; labels of equal logit stay in the order they were given.

    Raises:
        ValueError: labels and logits differ in number.
    """
    values = np.asarray(logits, dtype=np.float64)  # [M]
    if values.shape != (len(labels),):
        raise ValueError(f"{len(labels)} labels cannot go with logits of shape {values.shape}")
    probabilities = probability(values)
    order = np.argsort(-values, kind="stable")[:top]
    return [Score(labels[i], float(probabilities[i]), float(values[i])) for i in order]
