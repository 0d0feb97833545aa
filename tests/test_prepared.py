"""Form int8 from a file: the same numbers whichever way they come, and a cache that is safe to keep."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from sigrun import ArtifactError, ProviderError, Siglip, prepared, sessions
from sigrun.artifact import Artifact
from sigrun.int8 import EIGHT_BITS, SEVEN_BITS, largest
from sigrun.manifest import TOWERS, Packing, TowerName
from sigrun.prepared import ALIGNMENT, HASHES, MATRICES, Matrices, Prepared, cache_folder, places
from sigrun.sessions import TowerSession

Floats = NDArray[np.float32]
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


def batch(artifact: Artifact, tower: TowerName) -> Floats:
    rng = np.random.default_rng(3)
    if tower == "image":
        side = artifact.manifest.preprocessing.height
        return rng.uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
    text = artifact.manifest.architecture["text"]
    ids = rng.integers(0, text["vocabulary"], (2, text["context"]))
    return artifact.token_rows(ids)


def embed(artifact: Artifact, cache: Path | None, tower: TowerName = "image") -> Floats:
    return TowerSession(artifact, tower, "int8", 2, cache=cache).embed(batch(artifact, tower))


def no_file(*_: object) -> None:
    """Stands for ``prepare`` where no disk takes the file."""


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


def matrices(artifact: Artifact, tower: TowerName = "image", most: int | None = None) -> Matrices:
    weights = artifact.manifest.graphs[tower]["int8"].weights
    return Matrices(artifact, [n for n, p in weights.items() if p == "int8"], most or largest(), 2)


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
    weights: dict[str, Packing] = dict(artifact.manifest.graphs["image"]["int8"].weights)
    graph = (model.SerializeToString(), weights)
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


def test_a_cache_that_takes_nothing_is_no_error(
    artifact: Artifact, tmp_path: Path, expected: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_bytes(b"")
    np.testing.assert_array_equal(embed(artifact, in_the_way), expected)
    np.testing.assert_array_equal(embed(artifact, in_the_way / "below"), expected)
    cache = tmp_path / "cache"
    make = tempfile.mkdtemp

    def only_elsewhere(prefix: str, dir: Path | None) -> str:
        if dir is not None:
            raise PermissionError("read-only")
        return make(prefix=prefix)

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", only_elsewhere)
        np.testing.assert_array_equal(embed(artifact, cache), expected)
        assert list(cache.iterdir()) == []


@posix
def test_a_cache_that_is_only_read_is_used(
    artifact: Artifact, tmp_path: Path, expected: Floats, rounded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    embed(artifact, cache)
    rounded.clear()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    with monkeypatch.context() as patch:
        for module, name in ((tempfile, "mkdtemp"), (os, "utime"), (os, "mkdir")):
            patch.setattr(module, name, refuse)
        np.testing.assert_array_equal(embed(artifact, cache), expected)
    assert rounded == []


@posix
def test_a_cache_may_lie_behind_a_link_and_have_any_name(
    artifact: Artifact, tmp_path: Path, expected: Floats, rounded: list[str]
) -> None:
    (tmp_path / "größer 大").mkdir()
    cache = tmp_path / "link"
    cache.symlink_to(tmp_path / "größer 大")
    embed(artifact, cache)
    rounded.clear()
    np.testing.assert_array_equal(embed(artifact, cache), expected)
    np.testing.assert_array_equal(embed(artifact, tmp_path / "größer 大"), expected)
    assert rounded == []


@pytest.mark.parametrize("full", ["at once", "while writing"])
def test_without_room_on_disk_arrays_are_used(
    artifact: Artifact, tmp_path: Path, expected: Floats, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    if full == "at once":
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 20))
    else:

        def stop(self: Matrices, folder: Path) -> None:
            (folder / MATRICES).write_bytes(b"some")
            raise OSError("no space left on device")

        monkeypatch.setattr(Matrices, "write", stop)
    np.testing.assert_array_equal(embed(artifact, tmp_path / "cache"), expected)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_another_process_drops_is_made_again(
    artifact: Artifact, tmp_path: Path, expected: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = prepared.prepare

    def dropped(made: Matrices, cache: Path | None) -> Prepared | None:
        result = original(made, cache)
        if cache is not None:
            shutil.rmtree(cache)
        return result

    monkeypatch.setattr(sessions, "prepare", dropped)
    np.testing.assert_array_equal(embed(artifact, tmp_path / "cache"), expected)


def test_errors_leave_nothing_behind(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    weights: dict[str, Packing] = dict(artifact.manifest.graphs["image"]["int8"].weights)
    with pytest.raises(ProviderError, match="cannot load the image tower"):
        TowerSession(artifact, "image", "int8", 2, (MATRICES.encode(), weights))

    def damaged(self: Artifact, name: str, most: int) -> object:
        raise ArtifactError(f"tensor '{name}' is damaged")

    monkeypatch.setattr(Artifact, "int8", damaged)
    with pytest.raises(ArtifactError, match="is damaged"):
        embed(artifact, cache)
    assert list(cache.iterdir()) == []


def test_files_in_use_are_removed_after_the_session(
    artifact: Artifact, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they cannot be removed while they are mapped, as on Windows."""
    remove = shutil.rmtree
    in_use = True

    def refuse(path: Path, *, ignore_errors: bool) -> None:
        if not in_use:
            remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    session = TowerSession(artifact, "image", "int8", 2)
    assert len(list(temporary.iterdir())) == 1
    in_use = False
    del session
    gc.collect()
    assert list(temporary.iterdir()) == []


SCRIPT = """
import sys
import numpy as np
from sigrun import Siglip
with Siglip.load(sys.argv[1], compute="int8", threads=1, towers="image") as model:
    print(model.embed_images([np.full((40, 60, 3), 99, np.uint8)]).vectors.tobytes().hex())
"""


def test_processes_share_a_cache(emoji_q4: Path, tmp_path: Path) -> None:
    """Several at once, with a damaged entry to replace; all find the same, and one entry stays."""
    cache = tmp_path / "cache"
    with Artifact.open(emoji_q4) as opened:
        key = matrices(opened).key()
    entry = cache / key
    entry.mkdir(parents=True)
    (entry / MATRICES).write_bytes(b"damaged")
    environment = {**os.environ, "SIGRUN_CACHE": str(cache)}
    command = [sys.executable, "-c", SCRIPT, str(emoji_q4)]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    found = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    with Siglip.load(emoji_q4, compute="int8", threads=1, towers="image") as model:
        alone = model.embed_images([np.full((40, 60, 3), 99, np.uint8)]).vectors.tobytes().hex()
    assert [text.strip() for text in found] == [alone] * 3
    assert list(cache.iterdir()) == [entry]
    with Artifact.open(emoji_q4) as opened:
        assert matrices(opened).read(entry) is not None


def test_load_says_where_the_cache_is(
    emoji_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_user, named, given = (tmp_path / name for name in ("user", "named", "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(of_user))
    monkeypatch.setenv("SIGRUN_CACHE", "off")
    Siglip.load(emoji_q4, compute="int8", towers="image").close()
    monkeypatch.setenv("SIGRUN_CACHE", str(named))
    Siglip.load(emoji_q4, compute="int8", towers="image", cache=None).close()
    Siglip.load(emoji_q4, compute="exact", towers="image").close()
    assert not [p for p in (of_user, named, given) if p.exists()]
    Siglip.load(emoji_q4, compute="int8", towers="image", cache=str(given)).close()
    assert [p for p in (of_user, named, given) if p.exists()] == [given]
    Siglip.load(emoji_q4, compute="int8", towers="image").close()
    assert len(list(named.iterdir())) == 1
    assert not of_user.exists()


def test_the_folder_of_each_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SIGRUN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder("auto") == tmp_path / ".cache" / "sigrun"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says its specification
    assert cache_folder("auto") == tmp_path / ".cache" / "sigrun"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("auto") == tmp_path / "xdg" / "sigrun"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder("auto") == tmp_path / "Library" / "Caches" / "sigrun"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert cache_folder("auto") is None
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder("auto") == tmp_path / "local" / "sigrun"


def test_the_key_follows_from_the_numbers(artifact: Artifact, tiny_q4: Path) -> None:
    with Artifact.open(tiny_q4) as other:
        keys = {
            made.key()
            for made in (
                matrices(artifact, "image", EIGHT_BITS),
                matrices(artifact, "image", SEVEN_BITS),
                matrices(artifact, "text", EIGHT_BITS),
                matrices(other, "image", EIGHT_BITS),
            )
        }
    assert len(keys) == 4
    assert matrices(artifact, "image", EIGHT_BITS).key() in keys


@pytest.mark.parametrize("change", [{"sha256": "0" * 64}, {"encoding": "f16"}])
def test_equal_shapes_with_other_numbers_have_another_key(artifact: Artifact, change: dict[str, str]) -> None:
    """Each hash goes in that is checked against the bytes: what a file says of all its weights together is not."""
    weights = artifact.manifest.graphs["image"]["int8"].weights
    name = next(n for n, p in weights.items() if p == "int8")
    stored = artifact.manifest.tensors
    changed = {**stored, name: dataclasses.replace(stored[name], **change)}  # type: ignore[arg-type]
    other = Artifact(artifact._file, dataclasses.replace(artifact.manifest, tensors=changed))
    assert matrices(other).key() != matrices(artifact).key()


def test_the_cache_does_not_grow_without_bound(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    now = time.time()

    def entry(name: str, hours: float) -> Path:
        folder = cache / name
        folder.mkdir(parents=True)
        (folder / MATRICES).write_bytes(bytes(1000))
        os.utime(folder, (now - hours * 3600,) * 2)
        return folder

    oldest, older, recent = entry("a" * 64, 9), entry("b" * 64, 8), entry("c" * 64, 0.1)
    half_made, half_made_now = entry(".sigrun-old", 9), entry(".sigrun-new", 0)
    foreign = entry("pictures", 99)
    monkeypatch.setattr(prepared, "MOST_BYTES", matrices(artifact).nbytes + 2500)
    embed(artifact, cache)
    assert not oldest.exists()
    assert not half_made.exists()
    for kept in (older, recent, half_made_now, foreign):
        assert kept.exists()
    assert (cache / matrices(artifact).key()).exists()
