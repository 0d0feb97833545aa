"""Fits the two scoring constants to a variant, so that its probabilities do not drift from the checkpoint's."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigrun.manifest import Refit
from sigrun.scores import Scoring, probability

Doubles = NDArray[np.float64]
FEWEST = 8
"""Pictures, and texts. The fit sees half of each, and fewer would not hold two constants down."""
STEPS = 100
MOST_CHANGE = math.log(2)
"""Of the logit scale. What a quantized model needs is a few percent; beyond this the fit has run away."""
SURE = 2.0
"""Standard errors by which the error must fall on pairs that the fit did not see."""


def too_few(pictures: int, texts: int) -> str | None:
    """Why so many pictures and texts are not enough to fit on, in words; none if they are."""
    if pictures >= FEWEST and texts >= FEWEST:
        return None
    return (
        f"scoring constants are fitted on at least {FEWEST} pictures and {FEWEST} texts, "
        f"and the set has {pictures} and {texts}"
    )


def refit(reference_logits: ArrayLike, cosines: ArrayLike, scoring: Scoring) -> tuple[Scoring, Refit] | None:
    """Fit logit scale and bias to a variant.

    The fit sees every other picture against every other text, and minimises the squared error of their
    probabilities. It is kept if the probabilities of the other pictures against the other texts come nearer to the
    checkpoint's, by more than chance would bring them: no picture and no text is on both sides.

    Args:
        reference_logits: the checkpoint's own, [n pictures, m texts].
        cosines: the variant's, in the same order.
        scoring: the checkpoint's constants.

    Returns:
        The fitted constants and their record; none where they are no better, or there is too little to fit on.

    Raises:
        ValueError: the arguments are not two matrices of one shape.
    """
    exact, found = np.asarray(reference_logits, np.float64), np.asarray(cosines, np.float64)
    if exact.ndim != 2 or exact.shape != found.shape:
        raise ValueError(f"logits of shape {exact.shape} cannot go with cosines of shape {found.shape}")
    if too_few(*exact.shape) is not None or not (np.isfinite(exact).all() and np.isfinite(found).all()):
        return None
    wanted = probability(exact)  # [n, m]
    scale, bias = _fit(wanted[::2, ::2], found[::2, ::2], scoring)
    if abs(scale - scoring.logit_scale) > MOST_CHANGE:
        return None
    fitted = Scoring(round(scale, 8), round(bias, 8))
    before, after = (
        np.abs(_probabilities(found[1::2, 1::2], c) - wanted[1::2, 1::2]) for c in (scoring, fitted)
    )
    record = Refit(scoring, round(float(before.mean()), 8), round(float(after.mean()), 8))
    better = record.error_after < record.error_before and _beyond_chance(before - after)
    return (fitted, record) if better else None


def _probabilities(cosines: Doubles, scoring: Scoring) -> Doubles:
    return probability(math.exp(scoring.logit_scale) * cosines + scoring.logit_bias)


def _fit(wanted: Doubles, cosines: Doubles, start: Scoring) -> tuple[float, float]:
    """Logit scale and bias of least squared error, by damped Gauss-Newton steps from the checkpoint's."""
    at = np.array([start.logit_scale, start.logit_bias])
    damping = 1e-3

    def predicted(constants: Doubles) -> Doubles:
        return probability(math.exp(constants[0]) * cosines + constants[1])

    p = predicted(at)
    loss = float(np.square(p - wanted).sum())
    for _ in range(STEPS):
        slope = p * (1 - p)
        jacobian = np.stack([(slope * math.exp(at[0]) * cosines).ravel(), slope.ravel()])  # [2, pairs]
        normal = jacobian @ jacobian.T
        gradient = jacobian @ (p - wanted).ravel()
        damped = normal + damping * np.diag(np.diag(normal))
        determinant = damped[0, 0] * damped[1, 1] - damped[0, 1] * damped[1, 0]
        if not determinant > 0:
            break  # every probability is 0 or 1: nothing to fit to
        step = np.array(
            [
                damped[1, 1] * gradient[0] - damped[0, 1] * gradient[1],
                damped[0, 0] * gradient[1] - damped[1, 0] * gradient[0],
            ]
        )
        step = -step / determinant
        if abs(step[0]) > MOST_CHANGE:
            step *= MOST_CHANGE / abs(step[0])
        there = predicted(at + step)
        new = float(np.square(there - wanted).sum())
        if new < loss:
            settled = np.abs(step).max() < 1e-10
            at, p, loss, damping = at + step, there, new, damping / 10
            if settled:
                break
        else:
            damping *= 10
            if damping > 1e10:
                break
    return float(at[0]), float(at[1])


def _beyond_chance(gains: Doubles) -> bool:
    """Whether the mean gain over held-back pairs [pictures, texts] is more than their spread explains.

    Errors of one picture go together, and errors of one text do, so each is one draw, not each pair.
    """
    spreads = [each.std(ddof=1) / math.sqrt(len(each)) for each in (gains.mean(axis=1), gains.mean(axis=0))]
    return bool(gains.mean() > SURE * max(spreads))
