"""Scores."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigrun.errors import SpaceError
from sigrun.scores import Score, Scoring, check_limits, cosines, logits, probability, rank, softmax

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


AS_IT_IS = Scoring(0.0, 0.0)  # a logit is the cosine


def test_softmax() -> None:
    found = softmax([[0.0, math.log(3.0)], [5.0, 5.0]])
    np.testing.assert_allclose(found, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-14)
    np.testing.assert_array_equal(softmax([2.0]), [1.0])
    np.testing.assert_array_equal(softmax([1e30, -1e30, 1e30]), [0.5, 0.0, 0.5])


def test_softmax_keeps_the_rows_of_failed_pictures_apart() -> None:
    found = softmax([[math.nan, 0.0], [0.0, 0.0]])
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], [0.5, 0.5])


@pytest.mark.parametrize("nothing", [[], [[], []], 3.0])
def test_softmax_of_no_label(nothing: object) -> None:
    with pytest.raises(ValueError, match="no label"):
        softmax(nothing)  # type: ignore[arg-type]


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=20), st.floats(-50, 50))
def test_softmax_sums_to_one_and_knows_no_bias(values: list[float], bias: float) -> None:
    found = softmax(values)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(softmax(np.array(values) + bias), found, rtol=1e-9, atol=1e-15)


def test_rank_puts_the_best_first_and_keeps_ties_in_order() -> None:
    cosines = np.array([0.25, 0.5, 0.25, 0.5], np.float32)
    found = rank(["a", "b", "c", "d"], cosines, Scoring(math.log(2.0), 0.5))
    assert [score.label for score in found] == ["b", "d", "a", "c"]
    assert found[0] == Score("b", float(probability(1.5)), 1.5, 0.5)


def test_rank_goes_by_logit_where_probabilities_saturate() -> None:
    found = rank(["good", "better"], [0.5, 0.6], Scoring(math.log(100.0), 0.0))
    assert found[0].probability == found[1].probability == 1.0
    assert found[0].label == "better"


def test_rank_gives_the_logits_that_logits_gives() -> None:
    images, texts = unit(1, 64, 0), unit(9, 64, 1)
    found = rank(list("abcdefghi"), cosines(images, texts)[0], SCORING)
    expected = logits(images, texts, SCORING)[0]
    assert [s.logit for s in found] == sorted((float(x) for x in expected), reverse=True)
    for score in found:
        assert score.logit == expected["abcdefghi".index(score.label)]


def test_rank_top() -> None:
    found = rank(["a", "b", "c"], [0.1, 0.3, 0.2], AS_IT_IS, top=2)
    assert [score.label for score in found] == ["b", "c"]
    assert len(rank(["a"], [0.1], AS_IT_IS, top=np.int64(5))) == 1  # type: ignore[arg-type]
    assert rank([], [], AS_IT_IS) == []


def test_rank_threshold_keeps_what_reaches_it() -> None:
    cosines = [0.0, -1.0, 1.0]
    found = rank(["half", "low", "high"], cosines, AS_IT_IS, threshold=0.5)
    assert [score.label for score in found] == ["high", "half"]
    assert rank(["half"], [0.0], AS_IT_IS, threshold=0.5000001) == []
    assert len(rank(["a", "b", "c"], cosines, AS_IT_IS, threshold=0)) == 3
    assert [s.label for s in rank(["a", "b", "c"], cosines, AS_IT_IS, threshold=0.1, top=1)] == ["c"]


def test_rank_puts_nan_last_and_under_every_threshold() -> None:
    cosines = [math.nan, -0.9]
    assert [score.label for score in rank(["a", "b"], cosines, AS_IT_IS)] == ["b", "a"]
    assert [score.label for score in rank(["a", "b"], cosines, AS_IT_IS, threshold=0.0)] == ["b"]


def test_rank_wants_one_cosine_a_label() -> None:
    with pytest.raises(ValueError, match="2 labels"):
        rank(["a", "b"], [1.0], AS_IT_IS)


@pytest.mark.parametrize("top", [0, -1, 1.5, True, "3", math.nan])
def test_top_is_a_number_of_labels(top: object) -> None:
    with pytest.raises(ValueError, match="top must be a whole number of at least 1"):
        check_limits(top, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [-0.01, 1.01, math.nan, math.inf, True, "0.5"])
def test_threshold_is_a_probability(threshold: object) -> None:
    with pytest.raises(ValueError, match="threshold is a probability"):
        check_limits(None, threshold)  # type: ignore[arg-type]


def test_limits_that_can_be_meant() -> None:
    for top, threshold in ((None, None), (1, 0), (10**6, 1), (np.int32(3), np.float32(0.5))):
        check_limits(top, threshold)  # type: ignore[arg-type]


def test_score_as_json() -> None:
    score = rank(["a cat"], np.array([0.75], np.float32), Scoring(math.log(2.0), 0.0))[0]
    assert json.loads(json.dumps(score.to_json())) == {
        "label": "a cat",
        "probability": score.probability,
        "logit": 1.5,
        "cosine": 0.75,
    }
