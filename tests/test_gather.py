"""Which pictures words, folders, patterns and lists name."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sigrun.errors import PictureError
from sigrun.gather import SUFFIXES, gather, is_picture_name, pictures_in


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, none of which is opened here, and the folder that the test runs in."""
    for name in (
        "b.jpg",
        "a.PNG",
        "notes.txt",
        "raw.dat",
        ".hidden.jpg",
        "z/c.webp",
        "z/deep/d.jpeg",
        "y/e.gif",
        ".thumbs/t.jpg",
        "empty/readme.md",
    ):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "album"


def names(*words: str, **options: Any) -> list[str]:
    """What is found, with forward slashes; an error in brackets."""
    return [
        (f"[{f.error.message}]" if f.error else f.name).replace(os.sep, "/") for f in gather(words, **options)
    ]


def test_a_folder_gives_its_pictures_sorted_and_nothing_hidden(album: Path) -> None:
    assert names("album") == [
        "album/a.PNG",
        "album/b.jpg",
        "album/y/e.gif",
        "album/z/c.webp",
        "album/z/deep/d.jpeg",
    ]
    assert [found.name for found in pictures_in(str(album))] == [
        str(album / name) for name in ("a.PNG", "b.jpg", "y/e.gif", "z/c.webp", "z/deep/d.jpeg")
    ]


def test_a_named_file_is_taken_whatever_its_name(album: Path) -> None:
    assert names("album/raw.dat", "album/.hidden.jpg", "missing.jpg") == [
        "album/raw.dat",
        "album/.hidden.jpg",
        "missing.jpg",
    ]
    assert names("data:image/png;base64,AA*A?") == ["data:image/png;base64,AA*A?"]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("album/*.jpg", ["album/b.jpg"]),
        ("album/*", ["album/a.PNG", "album/b.jpg"]),
        ("album/?.[jw]*", ["album/b.jpg"]),
        ("album/*/*", ["album/y/e.gif", "album/z/c.webp"]),
        ("album/**/*.jpeg", ["album/z/deep/d.jpeg"]),
        ("album/**/deep/*", ["album/z/deep/d.jpeg"]),
        (
            "album/**",
            ["album/a.PNG", "album/b.jpg", "album/y/e.gif", "album/z/c.webp", "album/z/deep/d.jpeg"],
        ),
        ("**/*.gif", ["album/y/e.gif"]),
        ("*/z/**/*.webp", ["album/z/c.webp"]),
        ("album/**/**/*.gif", ["album/y/e.gif"]),
        ("album/*.dat", ["album/raw.dat"]),
        ("album/.h*.jpg", ["album/.hidden.jpg"]),
        ("album/z/../*.jpg", ["album/z/../b.jpg"]),
    ],
)
def test_patterns_are_matched_here(album: Path, pattern: str, matches: list[str]) -> None:
    assert names(pattern) == matches


def test_an_absolute_pattern_gives_absolute_paths(album: Path) -> None:
    assert [found.name for found in gather([str(album / "**" / "*.gif")])] == [str(album / "y" / "e.gif")]


def test_a_file_whose_name_is_a_pattern_is_that_file(album: Path) -> None:
    (album / "[x].jpg").touch()
    assert names("album/[x].jpg") == ["album/[x].jpg"]


def test_nothing_found_is_an_error_of_its_row(album: Path) -> None:
    empty, none = list(gather(["album/empty", "album/*.bmp"]))
    assert empty.error is not None
    assert none.error is not None
    assert empty.error.message == "album/empty: there are no pictures in this folder"
    assert none.error.message == "album/*.bmp: no picture matches this pattern"
    assert ".jpg" in str(none.error.hint)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_loops_of_links_end_and_each_folder_is_searched_once(album: Path) -> None:
    (album / "y" / "up").symlink_to(album, target_is_directory=True)
    (album / "twin").symlink_to(album / "z", target_is_directory=True)
    (album / "self").symlink_to(album / "self")
    (album / "gone.jpg").symlink_to(album / "nowhere.jpg")
    expected = ["a.PNG", "b.jpg", "gone.jpg", "twin/c.webp", "twin/deep/d.jpeg", "y/e.gif"]
    assert names("album") == [f"album/{name}" for name in expected]
    assert names("album/**/*.gif") == ["album/y/e.gif"]


def test_an_unreadable_folder_is_an_error_of_its_row(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("z"):
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert names("album") == [
        "album/a.PNG",
        "album/b.jpg",
        "album/y/e.gif",
        "[album/z cannot be searched: Permission denied]",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"x.jpg\n\nalbum/y\nmissing *.jpg",
        b"\xef\xbb\xbfx.jpg\r\nalbum/y\r\n\r\nmissing *.jpg\r\n",
        "x.jpg\r\nalbum/y\r\nmissing *.jpg\r\n".encode("utf-16"),
    ],
)
def test_a_list_holds_paths_and_folders_but_no_patterns(album: Path, content: bytes) -> None:
    Path("list.txt").write_bytes(content)
    expected = ["x.jpg", "album/y/e.gif", "missing *.jpg"]
    assert names("@list.txt") == expected
    assert names("album/b.jpg", lists=["list.txt"]) == ["album/b.jpg", *expected]


def test_a_list_may_be_separated_by_zero_bytes(album: Path) -> None:
    Path("list").write_bytes(b"one\ntwo.jpg\0 x.jpg\0")
    assert names(lists=["list"], null=True) == ["one\ntwo.jpg", " x.jpg"]
    with pytest.raises(PictureError, match="zero byte") as caught:
        names(lists=["list"])
    assert "-0" in str(caught.value.hint)


def test_a_file_called_like_a_list_is_a_picture(album: Path) -> None:
    Path("@home.jpg").touch()
    assert names("@home.jpg") == ["@home.jpg"]


def test_standard_input_is_read_as_it_arrives(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = [b"one.jpg\ntw", b"o.jpg\nthree.jpg\n"]

    class Slow(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            data = arrived.pop(0) if arrived else b""
            buffer[: len(data)] = data
            return len(data)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Slow())))
    found = gather([], ["-"])
    assert next(found).name == "one.jpg"
    assert len(arrived) == 1
    assert [f.name for f in found] == ["two.jpg", "three.jpg"]


def test_a_list_that_is_none_is_refused(album: Path) -> None:
    with pytest.raises(PictureError, match=r"none\.txt: cannot read the list"):
        names("@none.txt")
    Path("long").write_bytes(b"x" * 2_000_000)
    with pytest.raises(PictureError, match="not a list of pictures"):
        names(lists=["long"])


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_need_not_be_text(album: Path) -> None:
    raw = os.fsencode(album) + b"/gr\xfc\xdfe.jpg"
    Path(os.fsdecode(raw)).touch()
    assert os.fsencode([f.name for f in gather([str(album)])][2]) == raw
    Path("list").write_bytes(raw + b"\n")
    assert [os.fsencode(f.name) for f in gather([], ["list"])] == [raw]


def test_the_suffixes_are_those_of_the_formats_that_are_read() -> None:
    """Against Pillow's own table of endings."""
    Image.init()
    read = {"JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "QOI"}
    theirs = {suffix for suffix, kind in Image.registered_extensions().items() if kind in read}
    heif = {".heic", ".heif", ".hif"}  # of a package that is not installed here
    assert set(SUFFIXES) == theirs | heif
    assert is_picture_name("A.JPEG")
    assert not is_picture_name("jpg")
