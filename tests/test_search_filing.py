"""Copying and moving into folders: nothing is replaced, nothing is lost, and an interrupt is gone on after."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sigrun.errors import OutputError
from sigrun.search import filing
from sigrun.search.filing import LOG, Action, Filing, folder_name


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for number in range(4):
        path = tmp_path / "photos" / f"{number % 2}" / f"{number // 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"photo %d" % number)
        os.utime(path, ns=(10**18, 10**18 + number))
        paths.append(path)
    return paths


def contents(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*.jpg"))


EVERY = [b"photo %d" % n for n in range(4)]


@pytest.mark.parametrize("action", ["copy", "move"])
def test_names_that_are_taken_get_a_number(tmp_path: Path, photos: list[Path], action: Action) -> None:
    to = tmp_path / "sorted"
    (to / "owl").mkdir(parents=True)
    (to / "owl" / "0.jpg").write_bytes(b"was here before")
    with Filing(to, action) as filed:
        made = [filed.file(path, "owl", 0.5).path.name for path in photos]
    assert made == ["0 (2).jpg", "0 (3).jpg", "1.jpg", "1 (2).jpg"]
    assert contents(to) == sorted([*EVERY, b"was here before"])
    assert (to / "owl" / "1.jpg").stat().st_mtime_ns == 10**18 + 2
    assert contents(tmp_path / "photos") == (EVERY if action == "copy" else [])
    log = [json.loads(line) for line in (to / LOG).read_text().splitlines()]
    assert [record["state"] for record in log] == ["begun", "done"] * 4
    assert log[-1] | {"from": ""} == {
        "state": "done", "action": action, "from": "", "label": "owl", "probability": 0.5,
        "to": os.path.join("owl", "1 (2).jpg"),  # noqa: PTH118
    }  # fmt: skip
    assert log[-1]["from"] == str(photos[3])


@pytest.mark.parametrize("action", ["copy", "move"])
def test_the_same_command_again_does_nothing(tmp_path: Path, photos: list[Path], action: Action) -> None:
    to = tmp_path / "sorted"
    for turn in range(2):
        with Filing(to, action) as filed:
            assert [filed.file(path, "owl", 0.5).before for path in photos] == [bool(turn)] * 4
    assert contents(to) == EVERY
    if action == "copy":  # under another label they are copied there, too
        with Filing(to, action) as filed:
            filed.file(photos[0], "bird", 0.5)
        assert (to / "bird" / "0.jpg").read_bytes() == b"photo 0"


def test_a_move_to_another_drive_copies_first(
    tmp_path: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self in photos:
            raise OSError(18, "Invalid cross-device link")
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with Filing(tmp_path / "sorted", "move") as filed:
        for path in photos:
            filed.file(path, "owl", 0.5)
    assert contents(tmp_path / "sorted") == EVERY
    assert contents(tmp_path / "photos") == []
    assert not [path for path in (tmp_path / "sorted").rglob("*") if filing.PARTIAL in path.name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes to kill are forked")
@pytest.mark.parametrize("action", ["copy", "move", "across"])
def test_a_run_that_is_killed_anywhere_is_gone_on_with(
    tmp_path: Path, photos: list[Path], action: str
) -> None:
    kept, events = tmp_path / "kept", 0
    shutil.copytree(tmp_path / "photos", kept)
    kind: Action = "copy" if action == "copy" else "move"
    lived = False
    while not lived:
        shutil.rmtree(tmp_path / "photos")
        shutil.copytree(kept, tmp_path / "photos")
        to = tmp_path / f"sorted{events}"
        child = os.fork()
        if not child:
            _run_until(events, photos, to, kind, across=action == "across")
        _, status = os.waitpid(child, 0)
        lived = not os.WIFSIGNALED(status)
        with Filing(to, kind) as filed:
            for path in photos:
                filed.file(path, "owl", 0.5)
        assert contents(to) == EVERY
        assert contents(tmp_path / "photos") == (EVERY if kind == "copy" else [])
        events += 1
    assert os.waitstatus_to_exitcode(status) == 0
    assert events > 10


def _run_until(events: int, photos: list[Path], to: Path, action: Action, *, across: bool) -> None:
    """File the photos in this process, which is killed before its ``events``-th change of a file."""
    left = events

    def counted(function):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        def call(*arguments, **named):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN003, ANN202
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*arguments, **named)

        return call

    try:
        whole = Path.replace

        def replace(self: Path, target: Path) -> Path:
            if across and self in photos:
                raise OSError(18, "Invalid cross-device link")
            return whole(self, target)

        Path.replace = counted(replace)  # type: ignore[assignment]
        Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
        Filing._note = counted(Filing._note)  # type: ignore[method-assign]
        shutil.copystat = counted(shutil.copystat)
        with Filing(to, action) as filed:
            for path in photos:
                filed.file(path, "owl", 0.5)
        os._exit(0)
    except BaseException:
        os._exit(1)


def test_a_picture_that_is_gone_is_said(tmp_path: Path) -> None:
    with (
        Filing(tmp_path / "sorted", "move") as filed,
        pytest.raises(OutputError, match=r"gone\.jpg: cannot move it"),
    ):
        filed.file(tmp_path / "gone.jpg", "owl", 0.5)
    assert not (tmp_path / "sorted" / "owl").exists()


def test_two_runs_at_once_and_logs_of_others(tmp_path: Path) -> None:
    to = tmp_path / "sorted"
    with Filing(to, "copy"), pytest.raises(OutputError, match="another process"), Filing(to, "copy"):
        pass
    (to / LOG).write_text('{"state": 1}\n')
    with pytest.raises(OutputError, match="is not a log of ours"), Filing(to, "copy"):
        pass


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("a cat", "a cat"),
        ("../../etc", "-..-etc"),
        ("a/b\\c:d", "a-b-c-d"),
        ("..", "label"),
        ("con", "con-"),
        ("Nul.txt", "Nul.txt-"),
        ("x\0\n\u202ey", "x---y"),
        ("e\u0301", "é"),
    ],
)
def test_labels_as_names_of_folders(label: str, name: str) -> None:
    assert folder_name(label) == name


@given(st.text())
@example("é" * 200)
@example("\ud800")
def test_any_label_names_a_folder_directly_inside(label: str) -> None:
    name = folder_name(label)
    assert name == name.strip(" .") != ""
    assert not set(name) & set('<>:"/\\|?*\0')
    assert len(name.encode("utf-8")) <= filing.MOST_NAME + 1
