"""Files and folders get their names when they are whole, and nobody's files are lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from sigrun.errors import OutputError
from sigrun.output import finished_folder

MARK = "manifest.json"


def ours(folder: Path) -> bool:
    """Whether a folder has the mark."""
    return (folder / MARK).is_file()


def make(path: Path, *, force: bool = False, content: str = "new") -> None:
    with finished_folder(path, force=force, ours=ours) as partial:
        (partial / MARK).write_text(content, "utf-8")


def test_a_folder_appears_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with finished_folder(path, force=False, ours=ours) as partial:
        assert partial.is_dir() and partial.parent == tmp_path
        (partial / MARK).write_text("{}", "utf-8")
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (path / MARK).read_text("utf-8") == "{}"


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, problem: type[BaseException]) -> None:
    with (
        pytest.raises(problem),
        finished_folder(tmp_path / "model.onnx", force=False, ours=ours) as partial,
    ):
        (partial / "half").write_bytes(b"1")
        raise problem
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    make(path, content="old")
    with pytest.raises(RuntimeError), finished_folder(path, force=True, ours=ours):
        raise RuntimeError
    assert (path / MARK).read_text("utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_replaced_only_with_force(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    make(path, content="old")
    (path / "left over").write_bytes(b"1")
    with pytest.raises(OutputError, match="exists already"):
        make(path)
    make(path, force=True)
    assert [p.name for p in path.iterdir()] == [MARK]
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_somebody_elses_folder_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.mkdir()
    (path / "thesis.txt").write_text("years of work", "utf-8")
    with pytest.raises(OutputError, match="not Sigrun's"):
        make(path, force=True)
    assert (path / "thesis.txt").exists()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"1")
    with pytest.raises(OutputError, match="is not a folder"):
        make(path, force=True)
    assert path.read_bytes() == b"1"
