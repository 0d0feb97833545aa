"""Intervals and tests of significance against published figures, brute force and their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigrun.statistics import Paired, Proportion, paired

Z = 1.959963984540054  # 97.5 % of a normal distribution lie below


# Newcombe (1998), Statistics in Medicine 17, 857-872, table I, score method without continuity correction.
@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_as_published(count: int, total: int, low: float, high: float) -> None:
    assert Proportion(count, total).interval() == pytest.approx((low, high), abs=5.1e-5)
    mirrored = Proportion(total - count, total).interval()
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5.1e-5)


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_where_the_score_test_turns(counted: tuple[int, int]) -> None:
    """At both ends the count lies z standard deviations of the end's own binomial away."""
    found = Proportion(*counted)
    low, high = found.interval()
    assert 0 <= low <= found.share <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            away = abs(found.share - end)
            assert away == pytest.approx(Z * math.sqrt(end * (1 - end) / found.total), rel=1e-6)
    assert low == 0 or found.count > 0
    assert high == 1 or found.count < found.total


def test_wilson_covers_what_it_says() -> None:
    """Over all outcomes of 60 pictures and many true shares; single shares stray, as for any interval of a count."""
    intervals = [Proportion(count, 60).interval() for count in range(61)]
    coverage = []
    for p in np.linspace(0.05, 0.95, 181):
        weights = [math.comb(60, k) * p**k * (1 - p) ** (60 - k) for k in range(61)]
        coverage.append(sum(w for w, (low, high) in zip(weights, intervals, strict=True) if low <= p <= high))
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.005)
    assert min(coverage) > 0.91


def test_a_wider_confidence_is_a_wider_interval() -> None:
    low, high = Proportion(30, 40).interval(0.99)
    assert low < Proportion(30, 40).interval(0.95)[0] < 0.75 < Proportion(30, 40).interval(0.95)[1] < high
    for wrong in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(ValueError, match="confidence"):
            Proportion(30, 40).interval(wrong)


@pytest.mark.parametrize(("count", "total"), [(0, 0), (-1, 3), (4, 3)])
def test_no_share_of_nothing(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        Proportion(count, total)


def test_mcnemar_is_as_published() -> None:
    """Airway hyper-responsiveness (Bentur et al. 2009), table and p in Fagerland, Lydersen and Laake (2014)."""
    assert Paired(21, lost=1, won=7).p == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (0, 1), (1, 5), (5, 1), (3, 3), (9, 2), (7, 6)])
def test_mcnemar_is_the_share_of_coin_tosses_as_uneven(lost: int, won: int) -> None:
    tosses = [sum(toss) for toss in itertools.product((0, 1), repeat=lost + won)]
    as_uneven = sum(abs(2 * heads - (lost + won)) >= abs(lost - won) for heads in tosses)
    assert Paired(20, lost, won).p == pytest.approx(as_uneven / len(tosses), rel=1e-12)


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_of_many_is_the_binomial_tail(lost: int, won: int) -> None:
    """The tail summed with logarithms, another way to the same figure."""
    n, small = lost + won, min(lost, won)
    terms = [
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2))
        for i in range(small + 1)
    ]
    found = Paired(1000, lost, won).p
    assert found == pytest.approx(min(1.0, 2 * math.fsum(terms)), rel=1e-9)
    assert found == Paired(1000, won, lost).p


def test_mcnemar_of_very_many() -> None:
    """Beyond what floats hold: 2 ** 20,000. The normal approximation says 0.0048."""
    assert Paired(50_000, 10_200, 9_800).p == pytest.approx(
        math.erfc(399 / math.sqrt(20_000) / math.sqrt(2)), rel=1e-3
    )
    assert 0 <= Paired(50_000, 20_000, 0).p < 1e-300


def test_the_interval_of_a_difference_is_as_published() -> None:
    """The example of R's statpsych 1.7 for Bonett and Price (2012): ci.prop.ps(.05, 12, 4, 26, 6)."""
    found = Paired(12 + 4 + 26 + 6, lost=4, won=26)
    assert found.interval() == pytest.approx((0.2548067, 0.6251933), abs=5e-8)
    assert found.difference == pytest.approx(22 / 48)
    turned = Paired(48, lost=26, won=4)
    assert turned.interval() == pytest.approx((-0.6251933, -0.2548067), abs=5e-8)


@pytest.mark.parametrize("n", [20, 60])
def test_the_interval_of_a_difference_covers_what_it_says(n: int) -> None:
    """Exact coverage: every outcome (lost, won, unchanged) with its multinomial probability."""
    coverage = []
    outcomes = [(lost, won) for lost in range(n + 1) for won in range(n + 1 - lost)]
    lows, highs = np.array([Paired(n, lost, won).interval() for lost, won in outcomes]).T
    ways = np.array([math.comb(n, lost) * math.comb(n - lost, won) for lost, won in outcomes], float)
    lost, won = np.array(outcomes).T
    for p_lost, p_won in itertools.product((0.01, 0.03, 0.1, 0.3), repeat=2):
        weights = ways * p_lost**lost * p_won**won * (1 - p_lost - p_won) ** (n - lost - won)
        assert weights.sum() == pytest.approx(1)
        inside = (lows <= p_won - p_lost) & (p_won - p_lost <= highs)
        coverage.append(weights[inside].sum())
    assert min(coverage) > 0.93
    assert np.mean(coverage) == pytest.approx(0.96, abs=0.02)


@given(st.integers(1, 60).flatmap(lambda n: st.lists(st.tuples(st.booleans(), st.booleans()), min_size=n)))
def test_paired_counts_what_changed(judged: list[tuple[bool, bool]]) -> None:
    before, after = [b for b, _ in judged], [a for _, a in judged]
    found = paired(before, after)
    assert (found.total, found.lost, found.won) == (
        len(judged),
        judged.count((True, False)),
        judged.count((False, True)),
    )
    assert found == paired(np.array(before), np.array(after))
    low, high = found.interval()
    assert -1 <= low <= high <= 1
    assert found.difference == pytest.approx(np.mean(after) - np.mean(before))


def test_what_cannot_be_paired() -> None:
    for wrong in ((0, 0, 0), (3, 2, 2), (3, -1, 1)):
        with pytest.raises(ValueError, match="cannot be"):
            Paired(*wrong)
    with pytest.raises(ValueError, match="not of the same things"):
        paired([True, False], [True])
    with pytest.raises(ValueError, match="cannot be"):
        paired([], [])
