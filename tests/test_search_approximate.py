"""The approximate index finds nearly all that exact search finds, and scores it alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sigrun.errors import SigrunError
from sigrun.search import SearchIndex, approximate
from sigrun.search.store import Store
from tests.test_search import numbers, synthetic, unit

pytestmark = pytest.mark.bulk

COUNT, WIDTH = 4000, 32


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of vectors around fifty centres, with its graph."""
    centres = unit(50, WIDTH, 3)
    vectors = centres[np.arange(COUNT) % 50]
    vectors = vectors + 0.1 * np.random.default_rng(4).standard_normal((COUNT, WIDTH))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    path = tmp_path_factory.mktemp("approximate") / "index"
    synthetic(path, vectors)
    with SearchIndex.open(path) as index:
        approximate.build(path, (0, COUNT), index._reader.state().rows)
    return path


def test_it_finds_nearly_all(built: Path) -> None:
    with SearchIndex.open(built) as index:
        recall = []
        for query in unit(20, WIDTH, 5):
            exact = {hit.path: hit.score for hit in index.search(query, top=10)}
            quick = {hit.path: hit.score for hit in index.search(query, top=10, quick=True)}
            assert len(quick) == 10
            recall.append(len(exact.keys() & quick.keys()) / 10)
            for path in exact.keys() & quick.keys():
                assert quick[path] == pytest.approx(exact[path], abs=1e-6)
    assert np.mean(recall) >= 0.95


def test_it_finds_no_picture_that_is_gone(built: Path) -> None:
    """The graph knows vectors that no picture has any more, the first and the last among them."""
    query = unit(1, WIDTH, 6)[0]
    with SearchIndex.open(built) as index:
        best = numbers(index.search(query, top=10))
    store = Store.open(built, write=True)
    with store.writing():
        gone = {*best[:5], 0, COUNT - 1}
        store.db.executemany("DELETE FROM pictures WHERE row = ?", [(row,) for row in gone])
    store.close()
    with SearchIndex.open(built) as index:
        quick = numbers(index.search(query, top=10, quick=True))
        assert not gone & {*quick}
        assert len(quick) == 10
        assert len({*quick} & {*numbers(index.search(query, top=10))}) >= 9


def test_a_model_can_be_loaded_after_it(built: Path, emoji_q4: Path) -> None:
    """ONNX Runtime imported after usearch ends the process with a signal."""
    code = """import sys
from sigrun import Siglip
from sigrun.search import SearchIndex
with SearchIndex.open(sys.argv[1]) as index:
    index.search(index._reader.state().rows.vectors(0, 1)[0], quick=True)
Siglip.load(sys.argv[2], cache=None).embed_texts(["an owl"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(built), str(emoji_q4)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_damaged_graph_is_said_plainly(built: Path) -> None:
    path = approximate.graph(built, (0, COUNT))
    path.write_bytes(path.read_bytes()[:100])
    approximate._viewed.cache_clear()
    with SearchIndex.open(built) as index, pytest.raises(SigrunError, match="usearch"):
        index.search(unit(1, WIDTH, 6)[0], top=10, quick=True)
