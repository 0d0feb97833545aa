"""Fits a label set's scoring constants to a few pictures whose labels are known.

The model's constants were learned on its training pictures. In front of other pictures, and of labels chosen for them,
its probabilities may be too high or too low as a whole, or too sure of themselves; ranking is not touched by that. The
fit is by maximum likelihood of the sigmoid probabilities over all pairs of a picture and a label, in terms of the
logits that the set has now: ``fitted = slope · logit + shift``. Normal priors hold the shift to 0 and the slope to 1,
so that two pictures move little and two hundred decide. On the bundled model and drawings it never saw, slope and shift
together served at least as well as the shift alone, and better from ten pictures on, which is why both are fitted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sigrun.embeddings import Embeddings, same_space
from sigrun.errors import PictureError, TextError
from sigrun.labels import LabelSet
from sigrun.scores import Scoring, cosines, probability, scaled

Doubles = NDArray[np.float64]
Truth = str | Collection[str]
"""The label that fits a picture, or all that do; an empty collection says that none does."""

FEWEST = 2
FOLDS = 5
SHIFT_SPREAD = 1.5
"""Standard deviation of the prior of the shift, in logits."""
SLOPE_SPREAD = 0.3
"""Standard deviation of the prior of the slope."""
LEAST_SLOPE = 0.1
"""A fit that flattens the logits more than this, or turns them round, has found no sense in the scale."""
STEPS = 60
SURE = 2.0
"""Standard errors by which the likelihood must rise for the rise not to be chance."""
FEWEST_TO_JUDGE = 10
"""Pictures; the spread of fewer says too little of what is chance."""


@dataclass(frozen=True)
class Figures:
    """How well probabilities agree with the truth, over all pairs of a picture and a label.

    Attributes:
        log_loss: minus the logarithm of the probability given to what was true, summed over the labels of a picture
            and averaged over pictures; 0 is perfect.
        error: mean square of the difference between probability and truth (1 or 0), of one pair.
    """

    log_loss: float
    error: float


@dataclass(frozen=True)
class Calibration:
    """A calibrated label set, and whether it was worth it.

    Attributes:
        labels: the set with fitted constants.
        pictures: how many the fit has used.
        scoring_before: the constants it started from.
        scoring: the fitted ones.
        before: figures on all pictures with the constants it started from.
        after: figures on the same pictures, each with constants that were fitted to others (a fold held out at a time).
        gain: by how much the log loss of a picture fell, on average.
        gain_error: standard error of that.
        errors: row → why that picture could not be read; it was left out.
    """

    labels: LabelSet
    pictures: int
    scoring_before: Scoring
    scoring: Scoring
    before: Figures
    after: Figures
    gain: float
    gain_error: float
    errors: Mapping[int, PictureError]

    @property
    def better(self) -> bool:
        """Whether the log loss fell on pictures that the fit had not seen, by more than chance explains.

        Never with fewer than ten pictures: they may help, but cannot show it.
        """
        return self.pictures >= FEWEST_TO_JUDGE and self.gain > SURE * self.gain_error


def calibrate(
    labels: LabelSet, images: Embeddings, truths: Sequence[Truth], scoring: Scoring, *, scale: bool = True
) -> Calibration:
    """Fit bias and scale, or the bias alone; see :meth:`sigrun.Siglip.calibrate`.

    Args:
        labels: the set, of M labels.
        images: N embedded pictures; rows that failed are left out.
        truths: N truths.
        scoring: the constants to start from.
        scale: fit the scale too.

    Raises:
        TextError: a truth is not among the labels, or there are not as many as pictures.
        PictureError: fewer than two pictures are left.
        SpaceError: labels and pictures were embedded by two models.
    """
    same_space(labels.space, images.space)
    true = _true(labels, truths, len(images))  # [N, M]
    found = scaled(cosines(images.vectors, labels.embeddings.vectors), scoring).astype(np.float64)
    usable: NDArray[np.bool_] = np.array([bool(np.isfinite(row).all()) for row in found], np.bool_)
    usable[[row for row in images.errors if row < len(usable)]] = False
    count = int(usable.sum())
    if count < FEWEST:
        raise PictureError(
            f"of {len(images)} pictures to calibrate with, {count} can be read, and {FEWEST} are the fewest",
            hint="give some pictures of each label",
        )
    logits, true = found[usable], true[usable]
    fitted = _fit(logits, true, scale=scale)
    held_out = np.empty_like(logits)
    folds = np.arange(count) % min(FOLDS, count)
    for fold in range(int(folds.max()) + 1):
        slope, shift = _fit(logits[folds != fold], true[folds != fold], scale=scale)
        held_out[folds == fold] = slope * logits[folds == fold] + shift
    gains = _losses(logits, true) - _losses(held_out, true)  # [pictures]
    new = _constants(scoring, *fitted)
    return Calibration(
        labels=replace(labels, scoring=new),
        pictures=count,
        scoring_before=scoring,
        scoring=new,
        before=_figures(logits, true),
        after=_figures(held_out, true),
        gain=float(gains.mean()),
        gain_error=float(gains.std(ddof=1) / math.sqrt(count)),
        errors=images.errors,
    )


def _true(labels: LabelSet, truths: Sequence[Truth], pictures: int) -> Doubles:
    """1 where a label fits a picture, [pictures, labels]."""
    if isinstance(truths, str) or len(truths) != pictures:
        given = "one text" if isinstance(truths, str) else str(len(truths))
        raise TextError(f"there are {pictures} pictures and {given} truths: each picture needs its own")
    found = np.zeros((pictures, len(labels)))
    for row, truth in enumerate(truths):
        for each in [truth] if isinstance(truth, str) else truth:
            places = [place for place, label in enumerate(labels.labels) if label == each]
            if not places:
                raise TextError(
                    f"truth {row} ({str(each)[:60]!a}) is not among the labels of the set",
                    hint="write it as the label is written; () says that no label fits",
                )
            found[row, places] = 1.0
    return found


def _constants(scoring: Scoring, slope: float, shift: float) -> Scoring:
    """The constants whose logits are ``slope · logit + shift``, rounded to what a fit can mean."""
    scale = scoring.logit_scale if slope == 1 else round(scoring.logit_scale + math.log(slope), 8)
    return Scoring(scale, round(slope * scoring.logit_bias + shift, 8))


def _fit(logits: Doubles, true: Doubles, *, scale: bool) -> tuple[float, float]:
    """Slope and shift of the largest posterior probability, by damped Newton steps from 1 and 0."""
    if scale:
        slope, shift = _newton(logits, true, free=np.array([True, True]))
        if slope >= LEAST_SLOPE:
            return slope, shift
    return _newton(logits, true, free=np.array([False, True]))


def _newton(logits: Doubles, true: Doubles, free: NDArray[np.bool_]) -> tuple[float, float]:
    at, origin = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    precision = 1 / np.square(np.array([SLOPE_SPREAD, SHIFT_SPREAD]))

    def objective(constants: Doubles) -> float:
        prior = float((precision * np.square(constants - origin)).sum()) / 2
        return float(_losses(constants[0] * logits + constants[1], true).sum()) + prior

    value = objective(at)
    for _ in range(STEPS):
        likely = probability(at[0] * logits + at[1])
        weight, wrong = likely * (1 - likely), likely - true
        gradient = np.array([(wrong * logits).sum(), wrong.sum()]) + precision * (at - origin)
        cross = float((weight * logits).sum())
        curvature = np.array([[float((weight * logits * logits).sum()), cross], [cross, weight.sum()]])
        curvature += np.diag(precision)  # so it is never singular
        gradient, curvature = gradient * free, np.where(np.outer(free, free), curvature, np.eye(2))
        step = np.linalg.solve(curvature, gradient)
        if np.abs(step).max() < 1e-10:
            break
        size = 1.0
        while (new := objective(at - size * step)) > value and size > 1e-9:
            size /= 2  # the objective is convex, so a small enough step goes down
        if new > value:
            break  # at the bottom, as far as rounding lets see
        at, value = at - size * step, new
    return float(at[0]), float(at[1])


def _losses(logits: Doubles, true: Doubles) -> Doubles:
    """Minus the logarithm of the probability of what is true, summed over labels: [pictures]."""
    # log(1 + exp(x)) − true · x, without overflow
    each = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits))) - true * logits
    result: Doubles = each.sum(axis=1)
    return result


def _figures(logits: Doubles, true: Doubles) -> Figures:
    return Figures(float(_losses(logits, true).mean()), float(np.square(probability(logits) - true).mean()))
