"""Scores."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigrun.errors import SpaceError
from sigrun.scores import Score, Scoring, logits, probability, rank

SCORING = Scoring(logit_scale=4.7215, logit_bias=-16.5)


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_logits_follow_the_formula() -> None:
    images, texts = unit(3, 1152, 0), unit(5, 1152, 1)
    found = logits(images, texts, SCORING)
    assert found.shape == (3, 5)
    assert found.dtype == np.float32
    cosines = images.astype(np.float64) @ texts.astype(np.float64).T
    np.testing.assert_allclose(found, math.exp(4.7215) * cosines - 16.5, atol=1e-4)


def test_logits_of_nothing() -> None:
    assert logits(unit(0, 8, 0), unit(3, 8, 1), SCORING).shape == (0, 3)
    assert logits(unit(2, 8, 0), unit(0, 8, 1), SCORING).shape == (2, 0)


def test_vectors_of_two_widths_are_not_compared() -> None:
    with pytest.raises(SpaceError, match=r"768.*1152"):
        logits(unit(1, 768, 0), unit(1, 1152, 0), SCORING)


def test_logits_want_matrices() -> None:
    with pytest.raises(ValueError, match="text_embeds"):
        logits(unit(1, 8, 0), unit(1, 8, 0)[0], SCORING)


def test_probability() -> None:
    found = probability([0.0, 1.0, -1.0, 30.0, -30.0])
    expected = [
        0.5,
        1 / (1 + math.exp(-1)),
        1 / (1 + math.e),
        1 / (1 + math.exp(-30)),
        math.exp(-30) / (1 + math.exp(-30)),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert found[3] < 1.0


def test_probability_never_overflows() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert probability([[1e30, -1e30], [np.inf, -np.inf]]).tolist() == [[1.0, 0.0], [1.0, 0.0]]
        assert probability(np.float32(88.8)).shape == ()


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20))
def test_probabilities_mirror_and_keep_order(values: list[float]) -> None:
    found = probability(values)
    np.testing.assert_allclose(found + probability(np.negative(values)), 1.0, rtol=1e-15)
    order = np.argsort(values)
    assert (np.diff(found[order]) >= 0).all()


def test_rank_puts_the_best_first_and_keeps_ties_in_order() -> None:
    found = rank(["a", "b", "c", "d"], np.array([1.0, 2.0, 1.0, 2.0], np.float32))
    assert [score.label for score in found] == ["b", "d", "a", "c"]
    assert found[0] == Score("b", float(probability(2.0)), 2.0)


def test_rank_goes_by_logit_where_probabilities_saturate() -> None:
    found = rank(["good", "better"], [50.0, 60.0])
    assert found[0].probability == found[1].probability == 1.0
    assert found[0].label == "better"


def test_rank_top() -> None:
    assert [score.label for score in rank(["a", "b", "c"], [1.0, 3.0, 2.0], top=2)] == ["b", "c"]
    assert rank([], []) == []


def test_rank_puts_nan_last() -> None:
    assert [score.label for score in rank(["a", "b"], [math.nan, -9.0])] == ["b", "a"]


def test_rank_wants_one_logit_a_label() -> None:
    with pytest.raises(ValueError, match="2 labels"):
        rank(["a", "b"], [1.0])


def test_score_as_json() -> None:
    score = rank(["a cat"], np.array([1.5], np.float32))[0]
    assert json.loads(json.dumps(score.to_json())) == {
        "label": "a cat",
        "probability": score.probability,
        "logit": 1.5,
    }
