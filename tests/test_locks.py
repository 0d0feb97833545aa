"""One writer in a folder, also while lock files come and go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from sigrun import OutputError, locks
from sigrun.bulk import folder as folders
from sigrun.locks import only_writer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be removed there")


def refused(path: Path) -> None:
    with pytest.raises(OutputError, match="another process is writing there"), only_writer(path):
        pass


@pytest.mark.parametrize("left", ["nothing", "another file"])
def test_a_lock_on_a_file_that_was_taken_away_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    """Its last owner ends between its being opened here and being locked."""
    path, taken = tmp_path / "lock", 0

    def lock(file: BinaryIO, at: int = 0) -> None:
        nonlocal taken
        taken += 1
        if taken == 1:
            path.unlink()
            if left == "another file":
                path.touch()
        before(file, at)

    before = locks.lock
    monkeypatch.setattr(locks, "lock", lock)
    with only_writer(path):
        assert taken == 2
        refused(path)
    with only_writer(path):
        pass


def test_a_file_that_is_always_taken_away_is_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = locks.lock

    def lock(file: BinaryIO, at: int = 0) -> None:
        before(file, at)
        (tmp_path / "lock").unlink()

    monkeypatch.setattr(locks, "lock", lock)
    refused(tmp_path / "lock")


def test_a_finished_job_takes_its_lock_away_while_it_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards it might be the next one's."""
    removed: list[str] = []
    unlink = Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        if path.name == folders.LOCK:
            refused(path)
            removed.append(path.name)
        unlink(path, missing_ok)

    with folders.opened(tmp_path, {"rows": 1}, restart=False):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [folders.LOCK, folders.RUN], (
        "of an unfinished one it stays"
    )
    monkeypatch.setattr(Path, "unlink", watched)
    with folders.opened(tmp_path, {"rows": 1}, restart=False):
        folders.finish(tmp_path, {"rows": 1}, {}, [])
    assert removed == [folders.LOCK]
    assert [path.name for path in tmp_path.iterdir()] == [folders.MANIFEST]
