"""The benchmarks of indexing, searching and bulk jobs run, at their smallest, and their tables are whole."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest

from benchmarks import bulk, searching
from benchmarks.searching import WIDTH, vectors


def cells(page: str) -> list[list[str]]:
    """The rows of all tables of a page, after a look at their shape."""
    rows: list[list[str]] = []
    for lines in re.findall(r"(?:^\|.*\n?)+", page, re.MULTILINE):
        table = [line.strip("|").split("|") for line in lines.strip().splitlines()]
        assert len({len(row) for row in table}) == 1, lines
        rows += [[cell.strip() for cell in row] for row in table[2:]]
    return rows


def test_searching(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "DIFFERENT", 1)
    sizes = ["--photos", "2", "--small", "10", "--vectors", "300", "--graph", "200", "--duplicates", "300"]
    assert searching.main(sizes) == 0
    rows = cells(capsys.readouterr().out)
    assert len(rows) == 6 + 2 + (1 if importlib.util.find_spec("usearch") is None else 2) + 1
    assert rows[-1][2] == "6"  # one in fifty is nearly another


def test_made_up_vectors_are_unit_vectors_and_other_ones_each_time() -> None:
    first, second = vectors(100, 0), vectors(100, 1)
    assert first.shape == (100, WIDTH)
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.abs(first @ second.T).max() < 0.9
    close = np.argwhere(np.triu(first @ first.T, 1) > searching.ABOVE)
    assert len(close) == 2


@pytest.mark.parametrize("ray", [False, pytest.param(True, marks=pytest.mark.bulk)])
def test_bulk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ray: bool) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(bulk, "DIFFERENT", 1)
    monkeypatch.setattr(bulk, "SHARDS", 3)
    monkeypatch.setattr(bulk, "ROWS", 1)
    missing = () if ray else ("ray",)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, find=importlib.util.find_spec: None if name in missing else find(name)
    )  # fmt: skip
    assert bulk.main(["--count", "90"]) == 0
    page = capsys.readouterr().out
    rows = cells(page)
    assert "are the same, byte for byte" in page
    assert [len(row) for row in rows] == [5] * 5
    for row in rows:
        assert ("ray is not installed" in row) == ("Ray" in row[0] and not ray)
    assert rows[3][4] == "the same"
    kept, there = rows[3][2].split(" of ")
    assert kept == there and 0 < int(kept) < 90
