"""Scoring constants fitted to a variant: known drift comes back, chance does not pass for drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from sigrun.scores import Scoring, probability
from sigrun_exporters.verify.refit import refit, too_few

SCORING = Scoring(4.7215, -16.5)  # SO400M's scale, and a bias such as it may have
Doubles = NDArray[np.float64]


def cosines(pictures: int, texts: int, seed: int = 0) -> Doubles:
    """Cosines [pictures, texts] as a trained model has them: a picture fits its own text, some a little, most not."""
    rng = np.random.default_rng(seed)
    values = 0.02 + 0.03 * rng.standard_normal((pictures, texts))
    for i in range(min(pictures, texts)):
        values[i, i] = 0.14 + 0.02 * rng.standard_normal()
    return values


def logits(values: Doubles, scoring: Scoring = SCORING) -> Doubles:
    return math.exp(scoring.logit_scale) * values + scoring.logit_bias


@pytest.mark.parametrize(("factor", "shift"), [(0.98, -0.001), (0.95, 0.002), (1.02, 0.001)])
def test_drift_that_was_put_in_is_taken_out(factor: float, shift: float) -> None:
    exact = cosines(40, 60)
    found = refit(logits(exact), factor * exact + shift, SCORING)
    assert found is not None
    scoring, record = found
    # exp(s) c + b = exp(s') (f c + t) + b'  gives  s' = s - ln f,  b' = b - exp(s') t
    scale = SCORING.logit_scale - math.log(factor)
    assert scoring.logit_scale == pytest.approx(scale, abs=1e-6)
    assert scoring.logit_bias == pytest.approx(SCORING.logit_bias - math.exp(scale) * shift, abs=1e-4)
    assert record.source == SCORING
    assert record.error_after < 1e-6 < record.error_before


def test_the_record_is_of_pairs_that_the_fit_did_not_see() -> None:
    """Held-back pairs share no picture and no text with the fitted ones."""
    exact = cosines(40, 60)
    drifted = 0.98 * exact - 0.001
    found = refit(logits(exact), drifted, SCORING)
    assert found is not None
    error = np.abs(probability(logits(drifted)) - probability(logits(exact)))
    assert found[1].error_before == pytest.approx(error[1::2, 1::2].mean(), abs=1e-8)
    other = drifted.copy()
    other[1::2] += 2e-5  # pictures, and below texts, that the fit must not look at
    other[:, 1::2] -= 1e-5
    again = refit(logits(exact), other, SCORING)
    assert again is not None
    assert again[0] == found[0] and again[1] != found[1]
    other[1::2] += 0.05  # off in the other direction: what the fit learned makes it worse
    assert refit(logits(exact), other, SCORING) is None
    drifted[::2, ::2] += 2e-5
    changed = refit(logits(exact), drifted, SCORING)
    assert changed is not None and changed[0] != found[0]


def test_drift_under_noise_is_found_nearly() -> None:
    rng = np.random.default_rng(3)
    exact = cosines(60, 120)
    noisy = 0.96 * exact - 0.002 + 0.002 * rng.standard_normal(exact.shape)
    found = refit(logits(exact), noisy, SCORING)
    assert found is not None
    assert found[0].logit_scale == pytest.approx(SCORING.logit_scale - math.log(0.96), abs=0.05)
    assert found[1].error_after < 0.8 * found[1].error_before


def test_noise_alone_is_not_improved() -> None:
    """Errors of embeddings: each picture and each text is off by itself, and so are pairs."""
    kept = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n, m = int(rng.integers(8, 40)), int(rng.integers(8, 60))
        exact = cosines(n, m, seed)
        noise = rng.standard_normal((n, 1)) + rng.standard_normal((1, m)) + rng.standard_normal((n, m))
        kept += refit(logits(exact), exact + 0.001 * noise, SCORING) is not None
    assert kept <= 5  # of a hundred; a third would be if any fall of the error were enough


def test_a_variant_that_is_the_checkpoint_stays_as_it_is() -> None:
    exact = cosines(20, 20)
    assert refit(logits(exact), exact, SCORING) is None


@pytest.mark.parametrize("value", [-5.0, 0.02, 5.0])
def test_cosines_without_any_spread_give_no_fit(value: float) -> None:
    exact = cosines(12, 12)
    assert refit(logits(exact), np.full_like(exact, value), SCORING) is None


def test_cosines_that_have_nothing_to_do_with_the_reference_do_not_move_the_scale_far() -> None:
    for seed in range(20):
        found = refit(logits(cosines(30, 30, seed)), cosines(30, 30, seed)[::-1], SCORING)
        assert found is None or abs(found[0].logit_scale - SCORING.logit_scale) <= math.log(2)


def test_values_that_are_no_numbers_give_no_fit() -> None:
    exact = cosines(12, 12)
    broken = exact.copy()
    broken[3, 3] = np.nan
    assert refit(logits(exact), broken, SCORING) is None


def test_few_pictures_or_texts_are_refused_in_words() -> None:
    assert too_few(8, 8) is None
    for pictures, texts in ((7, 8), (8, 7), (0, 0)):
        reason = too_few(pictures, texts)
        assert reason is not None and f"{pictures} and {texts}" in reason
        exact = cosines(pictures, texts)
        assert refit(logits(exact), 0.9 * exact, SCORING) is None
    exact = cosines(8, 8)
    assert refit(logits(exact), 0.9 * exact, SCORING) is not None


def test_equal_input_gives_equal_constants() -> None:
    exact = cosines(20, 30).astype(np.float32)
    assert refit(logits(exact), 0.97 * exact, SCORING) == refit(logits(exact), 0.97 * exact, SCORING)


def test_shapes_that_do_not_go_together_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(8, 9\) cannot go with cosines of shape \(9, 8\)"):
        refit(np.zeros((8, 9)), np.zeros((9, 8)), SCORING)
