"""An index follows its folder: new, changed, moved, deleted and unreadable pictures."""

from __future__ import annotations

import os
import shutil
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun.embeddings import EmbeddedPicture
from sigrun.errors import OutputError
from sigrun.gather import Found
from sigrun.search import reader as reading
from sigrun.search import scan, update
from sigrun.search.index import SearchIndex
from sigrun.search.store import Store
from tests.index_builder import Stub, about, brought_up_to_date, check, listed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures in three folders, one of them bad."""
    for number in range(12):
        path = tmp_path / "photos" / f"{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad" if number == 7 else b"picture %d" % number)
    return tmp_path / "photos"


def test_only_what_changed_is_embedded(folder: Path, tmp_path: Path) -> None:
    index, stub = tmp_path / "index", Stub()
    changes = brought_up_to_date(index, folder, stub)
    assert (changes.new, changes.todo, len(stub.asked)) == (12, 12, 12)
    check(index, folder)
    stub.asked.clear()
    assert brought_up_to_date(index, folder, stub).unchanged == 12
    assert stub.asked == []  # the bad one neither

    (folder / "0" / "0.png").write_bytes(b"other content")
    (folder / "1" / "7.png").write_bytes(b"mended")
    (folder / "2" / "2.png").unlink()
    (folder / "new.png").write_bytes(b"new")
    changes = brought_up_to_date(index, folder, stub)
    assert (changes.new, changes.changed, changes.removed, changes.unchanged) == (1, 2, 1, 9)
    assert sorted(stub.asked) == ["0.png", "7.png", "new.png"]
    check(index, folder)


def test_a_file_that_was_only_touched_is_not_embedded(folder: Path, tmp_path: Path) -> None:
    index, stub = tmp_path / "index", Stub()
    brought_up_to_date(index, folder, stub)
    stub.asked.clear()
    os.utime(folder / "0" / "0.png", ns=(1, 1))
    assert brought_up_to_date(index, folder, stub).unchanged == 12
    assert stub.asked == []
    assert brought_up_to_date(index, folder, stub).unchanged == 12


def test_content_that_changed_behind_its_time_is_found_on_request(folder: Path, tmp_path: Path) -> None:
    index, stub = tmp_path / "index", Stub()
    brought_up_to_date(index, folder, stub)
    path = folder / "0" / "0.png"
    before = path.stat().st_mtime_ns
    path.write_bytes(b"pictura 0")  # as long as before
    os.utime(path, ns=(before, before))
    stub.asked.clear()
    brought_up_to_date(index, folder, stub)
    assert stub.asked == []
    assert (
        brought_up_to_date(index, folder, stub, rehash=True).changed == 2
    )  # the bad one has no vector to keep
    assert sorted(stub.asked) == ["0.png", "7.png"]
    check(index, folder)


def test_bad_pictures_are_tried_again_when_they_change_or_on_request(folder: Path, tmp_path: Path) -> None:
    index, stub = tmp_path / "index", Stub()
    brought_up_to_date(index, folder, stub)
    with SearchIndex.open(index) as opened:
        ((path, why, hint),) = opened.errors()
    assert path == str(folder / "1" / "7.png")
    assert why == f"{path} is bad"
    assert hint == "mend it"
    stub.asked.clear()
    brought_up_to_date(index, folder, stub, retry=True)
    assert stub.asked == ["7.png"]
    (folder / "0" / "0.png").write_bytes(b"bad now")
    brought_up_to_date(index, folder, stub)
    check(index, folder)


def test_moved_files_keep_their_vectors(folder: Path, tmp_path: Path) -> None:
    index, stub = tmp_path / "index", Stub()
    brought_up_to_date(index, folder, stub)
    stub.asked.clear()
    (folder / "0").rename(folder / "renamed")
    (folder / "1" / "1.png").rename(folder / "2" / "elsewhere.png")
    changes = brought_up_to_date(index, folder, stub)
    assert (changes.moved, changes.removed, changes.todo) == (5, 0, 0)
    assert stub.asked == []
    check(index, folder)


def test_of_equal_files_each_finds_one_that_vanished(tmp_path: Path) -> None:
    folder, index, stub = tmp_path / "photos", tmp_path / "index", Stub()
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.png").write_bytes(b"the same")
    brought_up_to_date(index, folder, stub)
    for name in ("a", "b"):
        (folder / f"{name}.png").rename(folder / f"{name}{name}.png")
    (folder / "c.png").unlink()
    (folder / "d.png").write_bytes(b"the sane")  # as long, with other content
    stub.asked.clear()
    changes = brought_up_to_date(index, folder, stub)
    assert (changes.moved, changes.removed, changes.new) == (2, 1, 1)
    assert stub.asked == ["d.png"]
    check(index, folder)


def test_two_files_that_swap_names(folder: Path, tmp_path: Path) -> None:
    index, stub = tmp_path / "index", Stub()
    brought_up_to_date(index, folder, stub)
    one, two, spare = folder / "0" / "0.png", folder / "0" / "3.png", folder / "spare"
    one.rename(spare)
    two.rename(one)
    spare.rename(two)
    brought_up_to_date(index, folder, stub)
    check(index, folder)


def test_a_renamed_tree_is_the_same_index(folder: Path, tmp_path: Path) -> None:
    index, stub = tmp_path / "index", Stub()
    brought_up_to_date(index, folder, stub)
    moved = folder.rename(tmp_path / "pictures")
    stub.asked.clear()
    with update.writer(index) as store:
        assert scan.scan(store, str(moved)).unchanged == 12
    check(index, moved)


def test_a_folder_that_is_not_there_loses_nothing(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    brought_up_to_date(index, folder, Stub())
    away = folder.rename(tmp_path / "away")
    with pytest.raises(OutputError, match="is not there"):
        brought_up_to_date(index, folder, Stub())
    folder.mkdir()  # where a drive would be mounted
    with pytest.raises(OutputError, match="no pictures any more, and the index has 12"):
        brought_up_to_date(index, folder, Stub())
    folder.rmdir()
    away.rename(folder)
    assert brought_up_to_date(index, folder, Stub()).unchanged == 12


def test_a_folder_that_cannot_be_searched_keeps_its_pictures(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    (folder / "10").mkdir()
    (folder / "10" / "x.png").write_bytes(b"its name begins as that of the other")
    brought_up_to_date(index, folder, Stub())
    shutil.rmtree(folder / "10")
    whole = scan.pictures_in

    def some(top: str) -> Iterator[Found]:
        for found in whole(top):
            if Path(found.name).parent.name != "1":
                yield found
        yield Found(str(folder / "1"), scan.PictureError("no permission"))

    monkeypatch.setattr(scan, "pictures_in", some)
    changes = brought_up_to_date(index, folder, Stub())
    assert (changes.removed, len(changes.unreadable)) == (1, 1)
    check(index, folder)


def test_compaction_gives_space_back_and_changes_nothing(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    brought_up_to_date(index, folder, Stub())
    reader = SearchIndex.open(index)
    query = listed(index)["1/4.png"]
    assert isinstance(query, np.ndarray)
    for number in (0, 3, 6):
        (folder / "0" / f"{number}.png").unlink()
    brought_up_to_date(index, folder, Stub())
    with update.writer(index) as store:
        assert update.holes(store) == (11, 3)
        update.compact(store)
        assert update.holes(store) == (8, 0)
    check(index, folder)
    assert sorted(p.name for p in index.iterdir()) == ["index.sqlite", "lock", "vectors.1"]
    (hit,) = reader.search(
        query / np.linalg.norm(query), top=1
    )  # opened before, it goes on with the new file
    assert hit.path == str(folder / "1" / "4.png")
    assert len(reader) == 8
    reader.close()


@pytest.mark.parametrize("moment", ["looking", "mapping"])
def test_a_look_while_an_index_is_compacted_is_begun_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Its file of vectors vanishes after it was read which one that is, or after it was seen to be there."""
    index = tmp_path / "index"
    brought_up_to_date(index, folder, Stub())
    (folder / "0" / "0.png").unlink()
    brought_up_to_date(index, folder, Stub())
    whole, calls = (reading.Rows, np.memmap)[moment == "mapping"], 0

    def late(*given: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            with monkeypatch.context() as patched:
                patched.setattr(np, "memmap", memmap)
                with update.writer(index) as store:
                    update.compact(store)
        return whole(*given, **options)

    memmap = np.memmap
    monkeypatch.setattr(*((np, "memmap") if moment == "mapping" else (reading, "Rows")), late)
    with SearchIndex.open(index) as reader:
        assert calls == 2
        assert len(reader) == 10
    assert sorted(p.name for p in index.iterdir()) == ["index.sqlite", "lock", "vectors.1"]


def test_a_second_writer_is_refused_and_readers_are_not(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    brought_up_to_date(index, folder, Stub())
    with update.writer(index):
        with (
            pytest.raises(OutputError, match=rf"another process \({os.getpid()} on .*\) is writing"),
            update.writer(index),
        ):
            pass
        with SearchIndex.open(index) as reader:
            assert len(reader) == 11
    (index / "lock").write_text("4711 on another machine")  # what a killed process leaves
    with update.writer(index):
        pass


def test_nothing_is_written_into_a_folder_of_other_things(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not of an index"), update.writer(folder, lambda: about(folder)):
        pass
    assert not (folder / "lock").exists()
    with (
        pytest.raises(OutputError, match="not a folder"),
        update.writer(folder / "0" / "0.png", lambda: about(folder)),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_names_of_any_bytes(tmp_path: Path) -> None:
    folder, index = tmp_path / "pho?tos#", tmp_path / "in?dex#%41 é"
    folder.mkdir()
    names = [b"\xff\xfe.png", "日本 \n\t'\".png".encode(), b"a..png", b"-rf.png", b"%2F.png"]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(name)
    brought_up_to_date(index, folder, Stub())
    check(index, folder)
    assert brought_up_to_date(index, folder, Stub()).unchanged == len(names)
    with SearchIndex.open(index) as reader:
        assert {os.fsencode(Path(path).name) for path in reader.pictures()} == set(names)


def test_memory_does_not_grow_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def peak(count: int) -> int:
        folder, index = tmp_path / "photos", tmp_path / f"index{count}"
        folder.mkdir(exist_ok=True)
        found = (Found(f"{folder}/a-name-as-long-as-usual-{number:09}.png") for number in range(count))
        monkeypatch.setattr(scan, "pictures_in", lambda _: found)
        monkeypatch.setattr(scan, "looked_at", lambda _: (1000, 1))
        monkeypatch.setattr(update, "hashed", lambda _: b"0" * 16)
        flat = np.full(8, 8**-0.5, np.float32)

        def embed(pictures: Iterable[str]) -> Iterator[EmbeddedPicture]:
            return (EmbeddedPicture(row, flat) for row, _ in enumerate(pictures))

        tracemalloc.start()
        try:
            with update.writer(index, lambda: about(folder, width=8)) as store:
                scan.scan(store, str(folder))
                update.embed_all(store, str(folder), embed)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small = peak(2000)
    assert peak(8000) < small + 200_000  # the names alone take a million
    store = Store.open(tmp_path / "index8000")
    with store.reading():
        assert store.number("rows") == 8000
    store.close()
