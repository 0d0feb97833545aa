"""Near-duplicates: the groups are those that a plain search through the graph of close pairs finds."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigrun.search import duplicates
from sigrun.search.about import Encoding
from sigrun.search.duplicates import Group, groups
from sigrun.search.vectors import Rows, encoded

LIMIT = 0.9
SMALL = {"BLOCK": 16, "PANEL": 2, "FIRST": 3, "SAMPLE": 40, "AT_ONCE": 8}


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(seed: int, count: int, width: int, centres: int, spread: float) -> np.ndarray:
    chance = np.random.default_rng(seed)
    points = unit(chance.standard_normal((centres, width)))
    return unit(
        points[chance.integers(centres, size=count)] + spread * chance.standard_normal((count, width))
    )


def stored(path: Path, vectors: np.ndarray, encoding: Encoding = "float16") -> Rows:
    path.write_bytes(encoded(vectors, encoding))
    return Rows(path, *vectors.shape, encoding, "")


def cosines_of(rows: Rows) -> np.ndarray:
    """Of all stored vectors with each other, float64 [n, n]."""
    exact = rows.vectors(0, len(rows)).astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    return exact @ exact.T


def connected(close: np.ndarray, live: np.ndarray) -> set[frozenset[int]]:
    """The connected parts of two and more, by walking from each row."""
    parts, seen = set(), set()
    for row in live.tolist():
        part, waiting = set(), [row]
        while waiting:
            at = waiting.pop()
            if at not in part:
                part.add(at)
                waiting += [n for n in np.flatnonzero(close[at]).tolist() if n not in part]
        if row not in seen and len(part) > 1:
            parts.add(frozenset(part))
        seen |= part
    return parts


def check(found: list[Group], cosines: np.ndarray, live: np.ndarray, above: float = LIMIT) -> None:
    inside = np.zeros(len(cosines), bool)
    inside[live] = True
    close = (cosines >= above) & inside & inside[:, np.newaxis]
    assert {frozenset(group.rows) for group in found} == connected(close, live)
    assert [len(group.rows) for group in found] == sorted((len(group.rows) for group in found), reverse=True)
    for group in found:
        assert list(group.rows) == sorted(group.rows)
        expected = np.minimum(cosines[group.rows[0], list(group.rows)], 1)
        assert np.allclose(group.cosines, expected, rtol=0, atol=1e-6)


def undecided(cosines: np.ndarray, above: float = LIMIT) -> bool:
    """Whether rounding decides about a pair."""
    return bool((np.abs(cosines - above) < 1e-6).any())


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 150),
    width=st.sampled_from([2, 8, 24]),
    centres=st.sampled_from([1, 6, 40]),
    spread=st.sampled_from([0.0, 0.03, 0.08]),
    dense=st.sampled_from([0.0, 1 / 64, 1.0]),
    above=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
)
@settings(max_examples=150, deadline=None)
def test_they_are_the_connected_parts(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    count: int,
    width: int,
    centres: int,
    spread: float,
    dense: float,
    above: float,
) -> None:
    """In small blocks, with turned vectors of three numbers and a rest, by either way of deciding."""
    rows = stored(tmp_path_factory.mktemp("rows") / "v", clustered(seed, count, width, centres, spread))
    live = np.flatnonzero(np.random.default_rng(seed).random(count) < 0.8)
    cosines = cosines_of(rows)
    if undecided(cosines, above):
        return
    pairs: list[float] = []
    with mock.patch.multiple(duplicates, DENSE=dense, **SMALL):
        check(groups(rows, live, above, pairs.append), cosines, live, above)
    assert sum(pairs) == len(live) * (len(live) + 1) / 2


def test_at_their_own_size(tmp_path: Path) -> None:
    """More rows than the turn is made of, several blocks, and directions that it leaves out."""
    count, width = duplicates.SAMPLE + 1500, 2 * duplicates.FIRST + 40
    rows = stored(tmp_path / "v", clustered(1, count, width, count // 3, 0.015))
    live = np.delete(np.arange(count), [7, 1030])
    cosines = cosines_of(rows)
    assert not undecided(cosines)
    found = groups(rows, live, LIMIT)
    assert len(found) > 500
    check(found, cosines, live)


def test_the_bound_leaves_few_pairs(tmp_path: Path) -> None:
    """Of vectors without any order, hardly a pair is computed in full."""
    count, width = duplicates.SAMPLE + 100, 1152
    rows = stored(tmp_path / "v", unit(np.random.default_rng(2).standard_normal((count, width))))
    with mock.patch.object(duplicates, "_decide", wraps=duplicates._decide) as decide:
        assert groups(rows, np.arange(count), 0.95) == []
    assert sum(np.count_nonzero(call.args[4]) for call in decide.call_args_list) < count


def test_thousands_of_equal_pictures_are_one_group(tmp_path: Path) -> None:
    vectors = np.repeat(unit(np.random.default_rng(0).standard_normal((2, 8))), [2500, 600], axis=0)
    found = groups(stored(tmp_path / "v", vectors), np.arange(3100), 0.99)
    assert [len(group.rows) for group in found] == [2500, 600]
    assert min(cosine for group in found for cosine in group.cosines) > 1 - 1e-6


@pytest.mark.parametrize("encoding", ["float16", "int8"])
@pytest.mark.parametrize("dense", [0.0, 1.0])
def test_equal_vectors_are_groups_at_the_highest_limit(
    tmp_path: Path, encoding: Encoding, dense: float
) -> None:
    """By either way of deciding, though float32 makes a little less than 1 of most vectors' cosine with themselves."""
    count, width = 300, 1152
    vectors = unit(np.random.default_rng(3).standard_normal((count, width)))
    rows = stored(tmp_path / "v", np.concatenate([vectors, vectors]), encoding)
    with mock.patch.object(duplicates, "DENSE", dense):
        found = groups(rows, np.arange(2 * count), 1.0)
    assert [group.rows for group in found] == [(row, row + count) for row in range(count)]
