"""What the desktop app remembers, and what it makes of hwcheck's verdict; no window."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.photo_desk_driver import HOME

assert HOME.is_dir()
from photo_desk import verdicts  # noqa: E402
from photo_desk.library import FILE, Kept, Library, Seen  # noqa: E402

ODD = "fo\udcfflder/写真 'quoted\".png"  # a lone surrogate: bytes that are no UTF-8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def test_it_remembers_over_a_restart(folder: Path) -> None:
    one, two = Seen(ODD, 3, 5), Seen("b.png", 4, 6)
    library = Library(folder)
    assert library.problem is None
    library.set("query", "owl")
    library.set("folder", ODD)
    library.keep("m", [Kept(one, b"\0\1\2\3", None), Kept(two, None, "it is broken")])
    library.close()
    assert [path.name for path in folder.iterdir()] == [FILE]

    library = Library(folder)
    assert library.setting("query") == "owl"
    assert library.setting("folder") == ODD
    assert list(library.known("m", [two, one])) == [
        Kept(two, None, "it is broken"),
        Kept(one, b"\0\1\2\3", None),
    ]
    library.set("query", None)
    assert library.setting("query") is None
    library.close()


@pytest.mark.parametrize(
    ("maker", "seen"),
    [
        ("other", Seen("a.png", 3, 5)),
        ("m", Seen("b.png", 3, 5)),
        ("m", Seen("a.png", 4, 5)),
        ("m", Seen("a.png", 3, 6)),
    ],
)
def test_what_differs_is_not_known(maker: str, seen: Seen, folder: Path) -> None:
    library = Library(folder)
    library.keep("m", [Kept(Seen("a.png", 3, 5), b"1234", None)])
    assert list(library.known(maker, [seen])) == [None]
    library.keep("m", [Kept(Seen("a.png", 9, 9), b"5678", None)])
    assert list(library.known("m", [Seen("a.png", 3, 5)])) == [None], "the newer replaced it"
    library.close()


@pytest.mark.parametrize("kind", ["file in the way", "damaged", "foreign"])
def test_without_its_file_it_remembers_until_the_end(kind: str, folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    if kind == "file in the way":
        folder.write_text("here")
    else:
        folder.mkdir()
        (folder / FILE).write_bytes(
            b"SQLite format 3\0" + b"x" * 5000 if kind == "damaged" else b"hello" * 99
        )
    library = Library(folder)
    assert library.problem is not None
    assert "remembered" in library.problem
    library.set("query", "owl")
    library.keep("m", [Kept(Seen("a.png", 3, 5), b"1234", None)])
    assert library.setting("query") == "owl"
    library.close()


def test_a_file_that_goes_away_is_told(folder: Path) -> None:
    library = Library(folder)
    with sqlite3.connect(folder / FILE) as other:
        other.execute("DROP TABLE vectors")
    library.keep("m", [Kept(Seen("a.png", 3, 5), b"1234", None)])
    assert library.problem is not None
    other.close()
    library.close()


def test_verdicts_on_artifacts(emoji_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "a").mkdir(parents=True)
    shutil.copy(emoji_q4, tmp_path / "models" / "a" / "good.gguf")
    (tmp_path / "models" / "bad.gguf").write_bytes(b"no model")
    monkeypatch.chdir(tmp_path)
    files = [file for file in verdicts.artifacts() if tmp_path in file.parents]
    assert [file.name for file in files] == ["good.gguf", "bad.gguf"]
    found = verdicts.look(files)
    good, bad = found.choices
    assert (good.variant, good.path, good.problem) == (
        "q4_k_m",
        tmp_path / "models" / "a" / "good.gguf",
        None,
    )
    assert good.size == emoji_q4.stat().st_size
    assert good.needs is not None
    assert good.needs > good.size
    assert found.best is good
    assert bad.problem is not None
    assert "bad.gguf" in bad.problem
    assert "memory free" in found.machine


def test_verdicts_without_artifacts() -> None:
    found = verdicts.look([])
    assert {"f32", "q4_k_m"} <= {choice.variant for choice in found.choices}
    assert all(choice.path is None for choice in found.choices)
    assert verdicts.size(2867360) == "2.7 MiB"
    assert verdicts.size(564_600_000) == "538 MiB"
    assert verdicts.size(3 * 2**30) == "3.0 GiB"
