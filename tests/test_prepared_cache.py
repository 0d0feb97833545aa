"""The cache of int8 matrices: safe to keep, to share, and to have on any disk."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sigrun import ArtifactError, ProviderError, Siglip, prepared, sessions
from sigrun.artifact import Artifact
from sigrun.int8 import EIGHT_BITS, SEVEN_BITS
from sigrun.prepared import MATRICES, Matrices, Prepared, cache_folder
from sigrun.sessions import TowerSession
from tests.int8_runs import Floats, embed, matrices, no_file

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
    takes = artifact.manifest.graphs["image"]["int8"]
    with pytest.raises(ProviderError, match="cannot load the image tower"):
        TowerSession(artifact, "image", "int8", 2, (MATRICES.encode(), takes))

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
