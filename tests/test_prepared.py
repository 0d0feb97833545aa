"""Form int8 from a file: the same numbers whichever way they come, and damage is noticed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from sigrun import sessions
from sigrun.artifact import Artifact
from sigrun.int8 import largest
from sigrun.manifest import TOWERS, TowerName
from sigrun.prepared import ALIGNMENT, HASHES, MATRICES, places
from sigrun.sessions import TowerSession
from tests.int8_runs import Floats, batch, embed, matrices, no_file

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")


@pytest.fixture(scope="module")
def artifact(emoji_q4: Path) -> Iterator[Artifact]:
    with Artifact.open(emoji_q4) as opened:
        yield opened


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go; nothing may be left there."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def expected(artifact: Artifact) -> Floats:
    """From arrays, without a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "prepare", no_file)
        return embed(artifact, None)


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The weights that were rounded to int8."""
    seen: list[str] = []
    original = Artifact.int8

    def spy(self: Artifact, name: str, most: int) -> object:
        seen.append(name)
        return original(self, name, most)

    monkeypatch.setattr(Artifact, "int8", spy)
    return seen


@pytest.mark.parametrize("tower", TOWERS)
def test_every_way_gives_the_same_numbers(
    artifact: Artifact,
    tmp_path: Path,
    tower: TowerName,
    monkeypatch: pytest.MonkeyPatch,
    rounded: list[str],
) -> None:
    cache = tmp_path / "new" / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "prepare", no_file)
        plain = embed(artifact, None, tower)
    count = len(rounded)
    assert count == len(set(rounded)) > 0
    np.testing.assert_array_equal(embed(artifact, None, tower), plain)
    np.testing.assert_array_equal(embed(artifact, cache, tower), plain)
    assert len(rounded) == 3 * count
    np.testing.assert_array_equal(embed(artifact, cache, tower), plain)
    assert len(rounded) == 3 * count, "the cached matrices were rounded again"
    entry = cache / matrices(artifact, tower).key()
    assert list(cache.iterdir()) == [entry]
    assert sorted(p.name for p in entry.iterdir()) == sorted([MATRICES, HASHES, "weights"])
    if sys.platform != "win32":
        assert {p.stat().st_mode & 0o777 for p in entry.iterdir()} == {0o600}
        assert {p.stat().st_mode & 0o777 for p in (entry, cache)} == {0o700}


def test_the_file_is_laid_out_as_the_graph_says(artifact: Artifact, tmp_path: Path) -> None:
    """Read back by the graph alone, the matrices are those of the rounding."""
    embed(artifact, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob(f"*/{MATRICES}")
    content = path.read_bytes()
    model = onnx.load_from_string(artifact.graph("image", "int8"))
    seen = 0
    for tensor in model.graph.initializer:
        where = {e.key: e.value for e in tensor.external_data}
        if tensor.data_type != TensorProto.INT8:
            assert where in ({}, {"location": "weights"})
            continue
        seen += 1
        assert where["location"] == MATRICES
        start, length = int(where["offset"]), int(where["length"])
        assert start % ALIGNMENT == 0
        found = np.frombuffer(content[start : start + length], np.int8).reshape(tuple(tensor.dims))
        of_file = artifact.int8(tensor.name.removesuffix(".int8"), largest())
        np.testing.assert_array_equal(found, of_file.q)
    weights = artifact.manifest.graphs["image"]["int8"].weights
    assert seen == list(weights.values()).count("int8") > 0


def test_places_are_aligned_and_apart() -> None:
    found = places({"b.weight": (3, 5), "a": (300, 300), "b": (1, 1), "c": (ALIGNMENT, 2)})
    assert list(found) == ["a", "b", "b.weight", "c"]
    assert [p.offset // ALIGNMENT for p in found.values()] == [0, 2, 3, 4]
    assert [p.nbytes for p in found.values()] == [90_000, 1, 15, 2 * ALIGNMENT]


def test_a_graph_that_names_no_such_file_takes_arrays(
    artifact: Artifact, tmp_path: Path, expected: Floats
) -> None:
    """Graphs as earlier exports hold them."""
    model = onnx.load_from_string(artifact.graph("image", "int8"))
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value="weights")
    graph = (model.SerializeToString(), artifact.manifest.graphs["image"]["int8"])
    session = TowerSession(artifact, "image", "int8", 2, graph, cache=tmp_path / "cache")
    np.testing.assert_array_equal(session.embed(batch(artifact, "image")), expected)
    assert not (tmp_path / "cache").exists()


def flip(position: int) -> Callable[[Path], None]:
    def change(entry: Path) -> None:
        content = bytearray((entry / MATRICES).read_bytes())
        content[position] ^= 1
        (entry / MATRICES).write_bytes(content)

    return change


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda entry: (entry / name).write_bytes(content) and None


def shorten(entry: Path) -> None:
    os.truncate(entry / MATRICES, (entry / MATRICES).stat().st_size - 1)


def lengthen(entry: Path) -> None:
    with (entry / MATRICES).open("ab") as file:
        file.write(b"\0")


def swap_hashes(entry: Path) -> None:
    """As if it were of a model with the same shapes, but other numbers."""
    lines = (entry / HASHES).read_text().split("\n")
    (entry / HASHES).write_text("\n".join(lines[1:] + lines[:1]))


def into_a_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_bytes(b"foreign")


def into_a_link(entry: Path) -> None:
    other = entry.parent.parent / "other"
    entry.rename(other)
    entry.symlink_to(other)


def open_to_all(entry: Path) -> None:
    entry.chmod(0o777)


DAMAGE = {
    "a bit of the first matrix": flip(0),
    "a bit of a scale": flip(-1),
    "short": shorten,
    "long": lengthen,
    "empty": write(MATRICES, b""),
    "no matrices": lambda entry: (entry / MATRICES).unlink(),
    "no hashes": lambda entry: (entry / HASHES).unlink(),
    "empty hashes": write(HASHES, b""),
    "hashes that are no text": write(HASHES, b"\xff\xfe"),
    "hashes of others": swap_hashes,
    "something in the empty file": write("weights", b"x"),
    "a file": into_a_file,
    "nothing": shutil.rmtree,
}
DAMAGE_POSIX = {"a link": into_a_link, "others may write": open_to_all}


@pytest.mark.parametrize("what", [*DAMAGE, *(pytest.param(d, marks=posix) for d in DAMAGE_POSIX)])
def test_what_is_damaged_or_foreign_is_replaced(
    artifact: Artifact, tmp_path: Path, expected: Floats, rounded: list[str], what: str
) -> None:
    cache = tmp_path / "cache"
    embed(artifact, cache)
    count = len(rounded)
    (entry,) = cache.iterdir()
    (DAMAGE | DAMAGE_POSIX)[what](entry)
    np.testing.assert_array_equal(embed(artifact, cache), expected)
    assert len(rounded) == 2 * count, "it was used as it was"
    np.testing.assert_array_equal(embed(artifact, cache), expected)
    assert len(rounded) == 2 * count, "it was not replaced"
    assert list(cache.iterdir()) == [entry]
