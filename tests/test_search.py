"""Searching: the same hits as plain arithmetic gives, exact and approximate, by one term and by several."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigrun.embeddings import EmbeddedPicture, Embeddings
from sigrun.errors import SigrunError, SpaceError, TextError
from sigrun.gather import Found
from sigrun.labels import LabelSet
from sigrun.search import Hit, Query, SearchIndex, Term, scan, update
from sigrun.search.about import Encoding
from sigrun.search.query import best, names
from sigrun.search.store import Store
from sigrun.search.vectors import Rows, encoded
from tests.index_builder import Stub, about, brought_up_to_date, vector

SCALE, BIAS = np.exp(2.5), -6.0  # of the stub


def unit(count: int, width: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def synthetic(index: Path, vectors: np.ndarray, encoding: Encoding = "float16") -> None:
    """An index of vectors without pictures."""
    folder = index.parent
    store = Store.create(index, about(folder, width=vectors.shape[1], encoding=encoding))
    data = encoded(vectors, encoding)
    store.vectors(0).write_bytes(data)
    size = len(data) // len(vectors)
    with store.writing():
        store.db.executemany(
            "INSERT INTO pictures (path, size, mtime, row, crc) VALUES (?, 0, 0, ?, ?)",
            ((b"%07d.png" % n, n, zlib.crc32(data[n * size : (n + 1) * size])) for n in range(len(vectors))),
        )
        store.set_meta("rows", len(vectors))
    store.close()


def numbers(hits: list[Hit]) -> list[int]:
    return [int(Path(hit.path).stem) for hit in hits]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    (place / "photos").mkdir()
    for number in range(300):
        (place / "photos" / f"{number:07}.png").write_bytes(b"picture %d" % number)
    brought_up_to_date(place / "index", place / "photos", Stub())
    return place


STORED = np.stack([vector(b"picture %d" % n) for n in range(300)]).astype(np.float16).astype(np.float64)
ONE, TWO, THREE = unit(3, 24, 5)


def test_a_vector_finds_what_plain_arithmetic_finds(photos: Path) -> None:
    expected = STORED @ ONE
    with SearchIndex.open(photos / "index") as index:
        hits = index.search(ONE, top=25)
        assert len(index) == 300
        assert len(index.search(ONE, top=None)) == 300
    assert numbers(hits) == np.argsort(-expected, kind="stable")[:25].tolist()
    assert np.allclose([hit.score for hit in hits], np.sort(expected)[::-1][:25], rtol=0, atol=1e-6)
    assert all(hit.cosine == hit.score and hit.probability is None for hit in hits)
    assert hits[0].to_json().keys() == {"path", "score", "cosine"}


def test_a_text_has_probabilities_and_a_threshold(photos: Path) -> None:
    cosines = STORED @ ONE
    probabilities = 1 / (1 + np.exp(-(SCALE * cosines + BIAS)))
    with SearchIndex.open(photos / "index") as index:
        hits = index.search(Term(ONE, "text"), top=None, threshold=0.02)
        assert numbers(hits) == [n for n in np.argsort(-cosines) if probabilities[n] >= 0.02]
        assert 3 < len(hits) < 200
        assert np.allclose(
            [h.probability for h in hits], np.sort(probabilities)[::-1][: len(hits)], rtol=1e-5
        )  # type: ignore[arg-type]
        assert [h.score for h in hits] == [h.logit for h in hits]
        with pytest.raises(TextError, match="threshold"):
            index.search(ONE, threshold=0.5)
        with pytest.raises(TextError, match="threshold"):
            index.search(Term(ONE, "text", -1.0), threshold=0.5)
        with pytest.raises(ValueError, match="top"):
            index.search(ONE, top=0)


def test_several_terms_count_in_deviations(photos: Path) -> None:
    weights = (1.0, 0.5, -2.0)
    cosines = STORED @ np.stack([ONE, TWO, THREE]).T
    deviations = (cosines - cosines.mean(0)) / cosines.std(0)
    expected = deviations @ weights
    terms = (Term(ONE, "text", 1.0), Term(TWO, "picture", 0.5), Term(THREE, "text", -2.0))
    with SearchIndex.open(photos / "index") as index:
        hits = index.search(Query(terms), top=300)
        assert numbers(hits) == np.argsort(-expected).tolist()
        assert np.allclose([hit.score for hit in hits], np.sort(expected)[::-1], rtol=0, atol=1e-4)
        assert all(hit.probability is None and hit.cosine is None for hit in hits)
        some = index.search(Query(terms), top=None, threshold=0.02)  # of the text that counts for alone
        fit = 1 / (1 + np.exp(-(SCALE * cosines[:, 0] + BIAS))) >= 0.02
        assert numbers(some) == [n for n in np.argsort(-expected) if fit[n]]
        against = index.search(Term(ONE, "text", -1.0), top=1)
        assert numbers(against) == [int(np.argmin(cosines[:, 0]))]
        assert against[0].probability is None


def test_what_cannot_be_searched_for(photos: Path) -> None:
    with SearchIndex.open(photos / "index") as index:
        with pytest.raises(TextError, match="without a model"):
            index.search("owl")
        with pytest.raises(SpaceError, match="16 numbers"):
            index.search(unit(1, 16, 0)[0])
        with pytest.raises(SpaceError, match="unit length"):
            index.search(ONE * 2)
        with pytest.raises(TextError, match="weight"):
            Query((Term(ONE, weight=float("nan")),))
        with pytest.raises(TextError, match="nothing to search"):
            Query(())
        labels = LabelSet(("a",), Embeddings(ONE[np.newaxis], "another space"))
        with pytest.raises(SpaceError, match="two embedding spaces"):
            list(index.scores(labels))


def test_an_indexed_picture_is_searched_for_without_a_model(photos: Path) -> None:
    path = photos / "photos" / "0000042.png"
    with SearchIndex.open(photos / "index") as index:
        assert numbers(index.search(index.picture(path), top=1)) == [42]
        assert index.vector(photos / "photos" / "none.png") is None
        assert index.vector(photos / "index" / "index.sqlite") is None


def test_labels_score_every_picture(photos: Path) -> None:
    labels = LabelSet(("a", "b"), Embeddings(np.stack([ONE, TWO]), "space-of-the-stub"))
    with SearchIndex.open(photos / "index") as index:
        found = list(index.scores(labels))
    assert [int(Path(path).stem) for path, _ in found] == list(range(300))
    assert np.allclose(
        np.stack([row for _, row in found]), STORED @ np.stack([ONE, TWO]).T, rtol=0, atol=1e-6
    )


def test_a_reader_sees_what_a_writer_adds_and_removes(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(b"picture %d" % number)
    brought_up_to_date(tmp_path / "index", folder, Stub())
    with SearchIndex.open(tmp_path / "index") as index:
        assert len(index.search(ONE)) == 4
        (folder / "1.png").unlink()
        (folder / "5.png").write_bytes(b"picture 5")
        brought_up_to_date(tmp_path / "index", folder, Stub())
        assert sorted(numbers(index.search(ONE))) == [0, 2, 3, 5]


@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_a_hundred_thousand_vectors(tmp_path: Path, encoding: Encoding) -> None:
    vectors = unit(100_000, 32, 1)
    queries = unit(3, 32, 2)
    synthetic(tmp_path / "index", vectors, encoding)
    data = encoded(vectors, encoding)
    kept = (
        np.frombuffer(data, "<f2").reshape(vectors.shape).astype(np.float32)
        if encoding == "float16"
        else Rows(tmp_path / "index" / "vectors.0", 100_000, 32, "int8", "").vectors(0, 100_000)
    )
    with SearchIndex.open(tmp_path / "index") as index:
        for query in queries:
            expected = kept.astype(np.float64) @ query
            hits = index.search(query, top=50)
            assert np.allclose([h.score for h in hits], np.sort(expected)[::-1][:50], rtol=0, atol=1e-6)
            assert np.allclose(expected[numbers(hits)], [h.score for h in hits], rtol=0, atol=1e-6)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, -np.inf]), max_size=30), st.integers(1, 35))
@settings(max_examples=200, deadline=None)
def test_the_best_are_the_first_of_a_stable_sort(scores: list[float], top: int) -> None:
    expected = sorted((n for n, s in enumerate(scores) if s > -np.inf), key=lambda n: -scores[n])[:top]
    assert best(np.array(scores, np.float64), top).tolist() == expected


def test_a_query_in_words() -> None:
    terms = [
        Term(ONE, "text", 1.0, "red car"),
        Term(ONE, "picture", -0.5, "a.png"),
        Term(TWO, "text", 2.0, "snow"),
    ]
    assert names(terms) == "“red car” − 0.5 × a.png + 2 × “snow”"


def test_the_approximate_index_says_what_it_needs(photos: Path) -> None:
    with (
        SearchIndex.open(photos / "index") as index,
        pytest.raises(SigrunError, match=r"no approximate index|needs the package usearch"),
    ):
        index.search(ONE, quick=True)


def test_a_stream_of_pictures_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand found pictures through the whole of indexing and searching."""
    vectors = unit(2000, 24, 9)
    found = (Found(str(tmp_path / f"{n:07}.png")) for n in itertools.count())
    monkeypatch.setattr(scan, "pictures_in", lambda _: itertools.islice(found, 2000))
    monkeypatch.setattr(scan, "looked_at", lambda _: (1, 1))
    monkeypatch.setattr(update, "hashed", lambda _: None)

    def embed(pictures: Iterable[str]) -> Iterator[EmbeddedPicture]:
        return (EmbeddedPicture(row, vectors[row]) for row, _ in enumerate(pictures))

    brought_up_to_date(tmp_path / "index", tmp_path, embed)
    with SearchIndex.open(tmp_path / "index") as index:
        assert [numbers(index.search(vectors[n], top=1)) for n in (0, 999, 1999)] == [[0], [999], [1999]]
