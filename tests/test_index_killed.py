"""A process may be killed at any moment: the next one goes on, and nothing is lost or there twice."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from sigrun.embeddings import EmbeddedPicture
from sigrun.search import store, update, vectors
from sigrun.search.index import SearchIndex
from sigrun.search.scan import scan
from tests.index_builder import WIDTH, Stub, about, brought_up_to_date, check

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes to kill are forked")


def written(folder: Path) -> Path:
    for number in range(6):
        path = folder / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad" if number == 4 else b"picture %d" % number)
    return folder


def changed(folder: Path) -> None:
    """One new, one changed, two moved and one deleted."""
    (folder / "0").rename(folder / "moved")
    (folder / "moved" / "2.png").write_bytes(b"other")
    (folder / "1" / "3.png").unlink()
    (folder / "new.png").write_bytes(b"new")


def killed_at(event: int, action: Callable[[], object]) -> bool:
    """Run an action in a process that is killed before its ``event``-th SQL statement or write to the disk."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.waitstatus_to_exitcode(status) == 0
        return False
    try:
        left = event

        def count(*_: object) -> None:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        connected, write = store._connected, vectors.Appender.write

        def traced(folder: Path, mode: str) -> sqlite3.Connection:
            db = connected(folder, mode)
            db.set_trace_callback(count)
            return db

        def torn(self: vectors.Appender, row: int, data: bytes) -> None:
            write(self, row, data[: len(data) // 2])
            count()
            write(self, row, data)
            count()

        store._connected, vectors.Appender.write = traced, torn  # type: ignore[method-assign]
        update.BATCH = 2  # type: ignore[misc]
        action()
        os._exit(0)
    except BaseException:
        os._exit(1)


def test_a_new_index_survives_being_killed_anywhere(tmp_path: Path) -> None:
    folder = written(tmp_path / "photos")
    event, lived = 0, False
    while not lived:
        index = tmp_path / f"index{event}"
        lived = not killed_at(event, lambda at=index: brought_up_to_date(at, folder, Stub()))  # type: ignore[misc]
        brought_up_to_date(index, folder, Stub())
        check(index, folder)
        shutil.rmtree(index)
        event += 1 if event < 10 else 4
    assert event > 60


def test_an_update_and_a_compaction_survive_being_killed_anywhere(tmp_path: Path) -> None:
    folder = written(tmp_path / "photos")
    brought_up_to_date(tmp_path / "before", folder, Stub())
    changed(folder)
    event, lived = 0, False

    def action(index: Path) -> None:
        with update.writer(index) as opened:
            scan(opened, str(folder))
            update.embed_all(opened, str(folder), Stub())
            update.compact(opened)

    while not lived:
        index = tmp_path / f"index{event}"
        shutil.copytree(tmp_path / "before", index)
        lived = not killed_at(event, lambda at=index: action(at))  # type: ignore[misc]
        with SearchIndex.open(index) as reader:  # between the two states, whole
            assert 3 <= len(reader) <= 5
            assert len(list(reader.pictures())) == len(reader)
        action(index)
        check(index, folder)
        nbytes = sum(path.stat().st_size for path in index.glob("vectors.*"))
        assert nbytes == 5 * 2 * WIDTH  # nothing is left over
        shutil.rmtree(index)
        event += 5
    assert event > 60


def test_what_was_finished_is_not_done_again(tmp_path: Path) -> None:
    folder, index = written(tmp_path / "photos"), tmp_path / "index"

    class Interrupted(Stub):
        def __call__(self, pictures: Iterable[str]) -> Iterator[EmbeddedPicture]:
            for count, picture in enumerate(super().__call__(pictures)):
                if count == 3:
                    raise KeyboardInterrupt
                yield picture

    with pytest.raises(KeyboardInterrupt):
        brought_up_to_date(index, folder, Interrupted())
    stub = Stub()
    brought_up_to_date(index, folder, stub)
    assert len(stub.asked) == 3
    check(index, folder)


def test_a_full_disk_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, index = written(tmp_path / "photos"), tmp_path / "index"
    write = vectors.Appender.write

    def full(self: vectors.Appender, row: int, data: bytes) -> None:
        if row:
            raise OSError(28, "No space left on device")
        write(self, row, data)

    with monkeypatch.context() as patch:
        patch.setattr(update, "BATCH", 2)
        patch.setattr(vectors.Appender, "write", full)
        with pytest.raises(update.OutputError, match="No space left on device; what was finished is kept"):
            brought_up_to_date(index, folder, Stub())
    stub = Stub()
    brought_up_to_date(index, folder, stub)
    assert len(stub.asked) == 4
    check(index, folder)


def test_a_model_of_another_width_is_refused(tmp_path: Path) -> None:
    folder, index = written(tmp_path / "photos"), tmp_path / "index"
    with update.writer(index, lambda: about(folder)) as opened:
        scan(opened, str(folder))
        with pytest.raises(update.ArtifactError, match="vectors of 24 numbers"):
            update.embed_all(opened, str(folder), Stub(width=16))
