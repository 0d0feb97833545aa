"""Vectors in a file: what goes in comes out, as near as its encoding can, and damage is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sigrun.errors import ArtifactError
from sigrun.search.about import Encoding
from sigrun.search.vectors import BLOCK, Appender, Rows, _widened, encoded, stride


def unit(count: int, width: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def stored(path: Path, vectors: np.ndarray, encoding: Encoding) -> Rows:
    path.write_bytes(encoded(vectors, encoding))
    return Rows(path, len(vectors), vectors.shape[1], encoding, "index")


def test_every_finite_float16_is_widened_exactly() -> None:
    """All 63,488 of them, subnormal ones and both zeros among them."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    finite = bits[(bits & 0x7C00) != 0x7C00]
    halves = finite.view(np.int16)[np.newaxis]
    found = _widened(halves, np.empty(halves.shape, np.int32)).astype(np.float64) * 2.0**112
    expected = finite.view(np.float16).astype(np.float64)
    assert (found[0] == expected).all()
    assert (np.signbit(found[0]) == np.signbit(expected)).all()


@pytest.mark.parametrize("count", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_float16_vectors_and_their_cosines(tmp_path: Path, count: int) -> None:
    vectors, queries = unit(count, 40), unit(3, 40, 1)
    rows = stored(tmp_path / "v", vectors, "float16")
    halves = vectors.astype(np.float16)
    assert (rows.vectors(0, count) == halves).all()
    assert (rows.taken(np.arange(count)[::-1]) == halves[::-1]).all()
    assert np.allclose(rows.cosines(queries), halves.astype(np.float64) @ queries.T, rtol=0, atol=2e-7)
    assert [first for first, _ in rows.blocks(100)] == list(range(0, count, 100))
    if count:
        assert (
            np.concatenate([part for _, part in rows.blocks(100)]).tobytes()
            == rows.vectors(0, count).tobytes()
        )


def test_int8_vectors_are_of_unit_length_and_near(tmp_path: Path) -> None:
    vectors, queries = unit(700, 1152), unit(5, 1152, 1)
    rows = stored(tmp_path / "v", vectors, "int8")
    found = rows.vectors(0, 700)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, rtol=0, atol=1e-6)
    assert np.abs(rows.cosines(queries) - vectors @ queries.T).max() < 2e-3
    assert np.allclose(rows.cosines(queries), found.astype(np.float64) @ queries.T, rtol=0, atol=1e-6)
    assert stride(1152, "int8") == 1156


@given(arrays.arrays(np.float32, (3, 8), elements=st.floats(-1, 1, width=32)))
@settings(max_examples=50, deadline=None)
def test_any_vectors_can_be_encoded(vectors: np.ndarray) -> None:
    for encoding in ("float16", "int8"):
        assert len(encoded(vectors, encoding)) == 3 * stride(8, encoding)  # type: ignore[arg-type]


def test_a_file_that_is_too_short_is_damaged(tmp_path: Path) -> None:
    stored(tmp_path / "v", unit(10, 8), "float16")
    with pytest.raises(ArtifactError, match="should hold 11 vectors"):
        Rows(tmp_path / "v", 11, 8, "float16", "index")
    with pytest.raises(ArtifactError, match="should hold 1 vectors, and has 0"):
        Rows(tmp_path / "missing", 1, 8, "float16", "index")


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00, 0x4500])
def test_numbers_that_no_unit_vector_has_are_damage(tmp_path: Path, bits: int) -> None:
    """Infinity, minus infinity, NaN and 5."""
    path = tmp_path / "v"
    data = bytearray(encoded(unit(10, 8), "float16"))
    data[2 * 8 * 4 : 2 * 8 * 4 + 2] = bits.to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="not of unit length"):
        Rows(path, 10, 8, "float16", "index").cosines(np.eye(8, dtype=np.float32)[:1])


def test_what_lies_beyond_the_rows_that_count_is_cut_off(tmp_path: Path) -> None:
    vectors = unit(6, 8)
    path = tmp_path / "v"
    first = Appender(path, 0, 16, "index")
    first.write(0, encoded(vectors[:4], "float16"))
    first.write(4, b"half of a row")
    first.close()
    again = Appender(path, 4, 16, "index")
    assert path.stat().st_size == 64
    again.write(4, encoded(vectors[4:], "float16"))
    again.close()
    assert path.read_bytes() == encoded(vectors, "float16")
    with pytest.raises(ArtifactError, match="should hold"):
        Appender(path, 7, 16, "index")
    with pytest.raises(ArtifactError, match="is missing"):
        Appender(tmp_path / "none", 1, 16, "index")
