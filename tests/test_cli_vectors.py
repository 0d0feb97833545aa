"""Files of embeddings of more rows than are copied at once, against NumPy and pyarrow reading them."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sigrun.cli.vectors import ROWS, Table, companions, writer
from sigrun.errors import OutputError

COUNT, WIDTH = 2 * ROWS + 5, 6
SHAPE = (2, 3)
NAMES = ["a.png", "grün 猫.png", "\udcff.png", "x" * 50, *(f"{n}.png" for n in range(4, COUNT))]
ERRORS = {3: "xx: is empty", ROWS: "gone", COUNT - 1: "猫: damaged"}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Random rows, three of which failed."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((COUNT, WIDTH)).astype(np.float32)
    vectors[list(ERRORS)] = np.nan
    vectors.tofile(tmp_path / "vectors")
    rng.standard_normal((COUNT, *SHAPE)).astype(np.float32).tofile(tmp_path / "features")
    about = {"space": "s" * 32, "model": "m", "variant": "q4_k_m"}
    return Table(NAMES, ERRORS, tmp_path / "vectors", WIDTH, (tmp_path / "features", SHAPE), about)


def written(name: str, table: Table, tmp_path: Path, *, features: bool = True) -> Path:
    path = tmp_path / name
    writer(path, features=features)(path, table, False)
    with pytest.raises(OutputError, match="exists already"):
        writer(path, features=features)(path, table, False)
    return path


def raw(table: Table) -> tuple[np.ndarray, np.ndarray]:
    assert table.features is not None
    vectors = np.fromfile(table.vectors, np.float32).reshape(COUNT, WIDTH)
    return vectors, np.fromfile(table.features[0], np.float32).reshape(COUNT, *SHAPE)


def test_npz(table: Table, tmp_path: Path) -> None:
    with np.load(written("v.npz", table, tmp_path), allow_pickle=False) as archive:
        vectors, features = raw(table)
        np.testing.assert_array_equal(archive["vectors"], vectors)
        np.testing.assert_array_equal(archive["features"], features)
        assert archive["items"].tolist() == NAMES
        assert archive["errors"].tolist() == [ERRORS.get(row, "") for row in range(COUNT)]
        assert {name: str(archive[name]) for name in table.about} == table.about


def test_npy(table: Table, tmp_path: Path) -> None:
    path = written("v.npy", table, tmp_path)
    vectors, features = raw(table)
    np.testing.assert_array_equal(np.load(path), vectors)
    beside, more = companions(path, features=True)
    np.testing.assert_array_equal(np.load(more), features)
    about = json.loads(beside.read_text("utf-8"))
    assert about == {**table.about, "items": NAMES, "errors": {str(row): why for row, why in ERRORS.items()}}
    assert companions(path, features=False) == [beside]


def test_parquet(table: Table, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    read = pyarrow.parquet.read_table(written("v.parquet", table, tmp_path, features=False))
    vectors, _ = raw(table)
    assert read["item"].to_pylist() == [*NAMES[:2], "\\udcff.png", *NAMES[3:]]
    assert read["error"].to_pylist() == [ERRORS.get(row) for row in range(COUNT)]
    found = read["embedding"].to_pylist()
    assert [row for row, vector in enumerate(found) if vector is None] == sorted(ERRORS)
    good = [row for row in range(COUNT) if row not in ERRORS]
    np.testing.assert_array_equal(np.array([found[row] for row in good], np.float32), vectors[good])
    assert read.schema.metadata[b"sigrun.space"] == b"s" * 32


def test_vectors_are_never_all_in_memory(tmp_path: Path) -> None:
    rows, width = 4096, 2048
    np.zeros((rows, width), np.float32).tofile(tmp_path / "vectors")  # 32 MiB
    table = Table(["x"] * rows, {}, tmp_path / "vectors", width, None, {"space": "s"})
    for name in ("v.npz", "v.npy"):
        tracemalloc.start()
        try:
            writer(tmp_path / name, features=False)(tmp_path / name, table, False)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 << 20
        assert (tmp_path / name).stat().st_size > rows * width * 4
