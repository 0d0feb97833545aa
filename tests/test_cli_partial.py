"""Rows of a long run survive whatever ends it, and are never mixed with another run's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun.cli import partial
from sigrun.cli.partial import Part, Partial
from sigrun.errors import OutputError

ROWS, WIDTH, SIZE = 10, 3, 4
VECTORS = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
FEATURES = np.random.default_rng(1).standard_normal((ROWS, 2, 2)).astype(np.float32)
SHAPES = {"vectors": (WIDTH,), "features": (2, 2)}
SETTINGS = {"items": "abc", "count": ROWS, "compute": "exact"}


def part(first: int) -> Part:
    """The part that begins at a row; rows 2 and 7 fail."""
    rows = slice(first, min(first + SIZE, ROWS))
    errors = {row - first: f"row {row}" for row in (2, 7) if rows.start <= row < rows.stop}
    return Part(VECTORS[rows], FEATURES[rows], errors)


def go_on(
    output: Path, *, most: int = ROWS, settings: dict[str, Any] = SETTINGS, restart: bool = False
) -> Path:
    """Do what is left, up to a row."""
    with Partial.opened(output, settings, SHAPES, restart=restart) as run:
        while run.done < most:
            run.append(part(run.done))
        return run.folder


def check(output: Path) -> None:
    """All rows are there, once each."""
    with Partial.opened(output, SETTINGS, SHAPES) as run:
        assert run.done == ROWS
        assert run.errors == {2: "row 2", 7: "row 7"}
        assert run.file("vectors").read_bytes() == VECTORS.tobytes()
        assert run.file("features").read_bytes() == FEATURES.tobytes()


def test_a_run_in_pieces_is_a_run_in_one_piece(tmp_path: Path) -> None:
    for most in (1, 1, 5, ROWS, ROWS):
        go_on(tmp_path / "v.npz", most=most)
    check(tmp_path / "v.npz")


class KilledError(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("at", range(9))
def test_a_process_may_end_within_any_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, share: float
) -> None:
    """Three parts of three writes each: end in each of them, with nothing, half or all of it written."""
    whole = partial._write
    count = 0

    def cut(path: Path, place: int, data: Any) -> None:
        nonlocal count
        if count == at:
            whole(path, place, bytes(data)[: int(len(data) * share)])
            raise KilledError
        count += 1
        whole(path, place, data)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(partial, "_write", cut)
        go_on(tmp_path / "v.npz")
    go_on(tmp_path / "v.npz")
    check(tmp_path / "v.npz")


def test_what_was_left_before_the_first_row_is_no_hindrance(tmp_path: Path) -> None:
    folder = tmp_path / "v.npz.partial"
    folder.mkdir()
    for name in ("lock", "run.json.new", "vectors", "parts.jsonl"):
        (folder / name).write_bytes(b"left")
    go_on(tmp_path / "v.npz")
    check(tmp_path / "v.npz")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("items", "abd", "the list of items"),
        ("compute", "int8", "--compute"),
        ("count", 11, "the number of items"),
    ],
)
def test_another_run_is_not_gone_on_with(tmp_path: Path, name: str, value: object, words: str) -> None:
    folder = go_on(tmp_path / "v.npz", most=1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match=f"{words} changed") as caught:
        go_on(tmp_path / "v.npz", settings={**SETTINGS, name: value})
    assert "--restart" in str(caught.value.hint)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    go_on(tmp_path / "v.npz", settings={**SETTINGS, name: value}, restart=True)
    with pytest.raises(OutputError):
        check(tmp_path / "v.npz")


@pytest.mark.parametrize("name", ["vectors", "features", "parts.jsonl", "run.json"])
def test_damage_is_found(tmp_path: Path, name: str) -> None:
    path = go_on(tmp_path / "v.npz") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if name != "run.json" else 0] ^= 0x41
    path.write_bytes(data)
    with pytest.raises(OutputError, match="damaged") as caught:
        go_on(tmp_path / "v.npz")
    assert "--restart" in str(caught.value.hint)
    go_on(tmp_path / "v.npz", restart=True)
    check(tmp_path / "v.npz")


def test_rows_that_are_gone_are_found(tmp_path: Path) -> None:
    folder = go_on(tmp_path / "v.npz")
    (folder / "vectors").write_bytes(VECTORS.tobytes()[:-4])
    with pytest.raises(OutputError, match="damaged"):
        go_on(tmp_path / "v.npz")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    thesis = tmp_path / "v.npz.partial" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("words", "utf-8")
    for restart in (False, True):
        with pytest.raises(OutputError, match="not Sigrun's"):
            go_on(tmp_path / "v.npz", restart=restart)
    assert [path.name for path in thesis.parent.iterdir()] == ["thesis.txt"]
    (tmp_path / "w.npz.partial").write_text("words", "utf-8")
    with pytest.raises(OutputError, match="is a file"):
        go_on(tmp_path / "w.npz")
    assert (tmp_path / "w.npz.partial").read_text("utf-8") == "words"


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    with Partial.opened(tmp_path / "v.npz", SETTINGS, SHAPES) as run:
        run.append(part(0))
        with pytest.raises(OutputError, match="another process"):
            go_on(tmp_path / "v.npz", restart=True)
        assert run.done == SIZE
    go_on(tmp_path / "v.npz")
    check(tmp_path / "v.npz")


def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = partial._write

    def full(path: Path, place: int, data: Any) -> None:
        if place:
            raise OSError(28, "No space left on device")
        whole(path, place, data)

    with monkeypatch.context() as patch:
        patch.setattr(partial, "_write", full)
        with pytest.raises(OutputError, match="No space left") as caught:
            go_on(tmp_path / "v.npz")
    assert "stays" in str(caught.value.hint)
    log = (tmp_path / "v.npz.partial" / "parts.jsonl").read_text("ascii")
    assert [json.loads(line)["first"] for line in log.splitlines()] == [0]
    go_on(tmp_path / "v.npz")
    check(tmp_path / "v.npz")
