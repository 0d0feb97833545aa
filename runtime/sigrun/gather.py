"""Pictures from what a user names: files, folders, patterns, and lists of any of them."""

from __future__ import annotations

import codecs
import fnmatch
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, Final

from sigrun.errors import PictureError

# fmt: off
SUFFIXES: Final = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".ppm",
    ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".jpc", ".avif", ".avifs", ".qoi", ".heic",
    ".heif", ".hif",
)
"""Endings of files that are taken for pictures where a folder is searched; HEIC is read where pillow-heif is."""
# fmt: on

_MAGIC: Final = frozenset("*?[")
_CHUNK: Final = 1 << 16  # bytes of a list read at a time
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MOST_NAME: Final = 1 << 20  # bytes of one name in a list, beyond which it is no list


@dataclass(frozen=True, slots=True)
class Found:
    """A picture that was named or found.

    Attributes:
        name: its path, as given or found; it may hold any characters, lone surrogates among them.
        error: why there is nothing to open, for a folder that cannot be read or a pattern that matches nothing.
    """

    name: str
    error: PictureError | None = None


def gather(words: Iterable[str], lists: Iterable[str] = (), *, null: bool = False) -> Iterator[Found]:
    """The pictures that words name, in their order, then those of the lists; found while they are asked for.

    A word is, in this order: a file that exists; a folder, searched with all folders in it; ``@FILE``, a list; a
    pattern with ``*``, ``?``, ``[...]`` or ``**`` (any depth of folders); or the path of a picture that is missing,
    which is for whoever opens it to say. Patterns are matched here, so that they work where no shell does it.

    Args:
        words: paths, folders, patterns, lists as ``@FILE``, ``data:`` URIs.
        lists: files with a path or folder a line, ``-`` for standard input.
        null: paths in lists end in a NUL instead, as ``find -print0`` writes them.

    Raises:
        PictureError: a list cannot be read.
    """
    for word in words:
        if word.startswith("data:"):
            yield Found(word)
        elif os.path.lexists(word):
            yield from _named(word)
        elif word.startswith("@"):
            yield from _listed(word[1:], null)
        elif _MAGIC & set(word):
            yield from _matching(word)
        else:
            yield Found(word)
    for path in lists:
        yield from _listed(path, null)


def pictures_in(folder: str) -> Iterator[Found]:
    """The pictures in a folder and all folders in it: files first, sorted by name, none that is hidden.

    Links to folders are followed, each folder is searched once. A folder that cannot be read gives an error.
    """
    for path, files, error in _walk(folder):
        if error is not None:
            yield Found(path, error)
        yield from (Found(file) for file in files if is_picture_name(file))


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is taken for a picture where a folder is searched."""
    return PurePath(name).suffix.lower() in SUFFIXES


def _named(path: str) -> Iterator[Found]:
    """A path that exists: itself, or the pictures in it."""
    if not Path(path).is_dir():
        yield Found(path)
        return
    empty = True
    for found in pictures_in(path):
        empty = False
        yield found
    if empty:
        yield Found(path, _nothing(path, "there are no pictures in this folder"))


def _walk(top: str) -> Iterator[tuple[str, list[str], PictureError | None]]:
    """Every folder under one, itself first, each once, with its files or why it cannot be read."""
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            about = Path(folder).stat()
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            entries = _entries(folder)
        except OSError as error:
            yield folder, [], PictureError(f"{safe(folder)} cannot be searched: {error.strerror or error}")
            continue
        visible = [entry for entry in entries if not _hidden(entry)]
        folders = [entry.path for entry in visible if _is_folder(entry)]
        waiting += reversed(folders)
        inside = set(folders)
        yield folder, [entry.path for entry in visible if entry.path not in inside], None


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _hidden(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return True
    if sys.platform == "win32":
        try:
            return bool(entry.stat(follow_symlinks=False).st_file_attributes & stat.FILE_ATTRIBUTE_HIDDEN)
        except OSError:
            return False
    return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _matching(pattern: str) -> Iterator[Found]:
    """The picture files that a pattern matches, sorted within each folder, each once.

    A pattern that ends in a suffix takes files of that suffix, whatever it is.
    """
    path = PurePath(pattern)
    parts = list(path.parts[1:] if path.anchor else path.parts)
    if parts[-1] == "**":
        parts.append("*")
    suffix = PurePath(parts[-1]).suffix
    any_file = bool(suffix) and not _MAGIC & set(suffix)
    seen: set[str] = set()
    for name in _expand(path.anchor, parts):
        if name not in seen and (any_file or is_picture_name(name)):
            seen.add(name)
            yield Found(name)
    if not seen:
        yield Found(pattern, _nothing(pattern, "no picture matches this pattern"))


def _expand(base: str, parts: list[str]) -> Iterator[str]:
    """Files under ``base`` whose path below it matches ``parts``."""
    part, *rest = parts
    if part == "**":
        for folder, _, _ in _walk(base or os.curdir):
            inside = folder if base else folder.removeprefix(os.curdir).removeprefix(os.sep)
            yield from _expand(inside, rest)
    elif not _MAGIC & set(part):
        path = os.path.join(base, part)  # noqa: PTH118 (pathlib drops what the user wrote, such as ./)
        if rest:
            yield from _expand(path, rest)
        elif Path(path).is_file():
            yield path
    else:
        try:
            entries = _entries(base or os.curdir)
        except OSError:
            return
        for entry in entries:
            hidden = _hidden(entry) and not part.startswith(".")
            if hidden or not fnmatch.fnmatch(entry.name, part):
                continue
            path = os.path.join(base, entry.name)  # noqa: PTH118
            if rest and _is_folder(entry):
                yield from _expand(path, rest)
            elif not rest and not _is_folder(entry):
                yield path


def _listed(path: str, null: bool) -> Iterator[Found]:
    """The pictures that a list names, each line a path or a folder."""
    for name in _names(path, null):
        if not name.startswith("data:") and Path(name).is_dir():
            yield from _named(name)
        else:
            yield Found(name)


def _names(path: str, null: bool) -> Iterator[str]:
    shown = "standard input" if path == "-" else safe(path)
    try:
        if path == "-":
            yield from _records(sys.stdin.buffer, shown, null)
        else:
            with Path(path).open("rb") as file:
                yield from _records(file, shown, null)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, a closed stream
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{shown}: cannot read the list of pictures: {reason}") from error


def _records(stream: BinaryIO, shown: str, null: bool) -> Iterator[str]:
    """The names in a list as they arrive: UTF-8, or UTF-16 with a mark, as Windows' shells write it."""
    read = getattr(stream, "read1", stream.read)
    end = b"\0" if null else b"\n"
    rest: bytes = read(_CHUNK)
    if rest.startswith(_UTF_16):
        rest = (rest + stream.read()).decode("utf-16", "replace").encode("utf-8")
    rest = rest.removeprefix(b"\xef\xbb\xbf")
    while True:
        *lines, rest = rest.split(end)
        for line in lines:
            yield from _name(line, shown, null)
        if len(rest) > _MOST_NAME:
            raise PictureError(f"{shown} is not a list of pictures: it has a line of over a million bytes")
        more: bytes = read(_CHUNK)
        if not more:
            break
        rest += more
    yield from _name(rest, shown, null)


def _name(line: bytes, shown: str, null: bool) -> Iterator[str]:
    name = line if null else line.strip(b"\r")
    if b"\0" in name:
        raise PictureError(
            f"{shown} is not a list of pictures, one a line: it holds a zero byte",
            hint="pass -0 if a zero byte ends each name, as after find -print0",
        )
    if name.strip():
        yield os.fsdecode(name) if os.name == "posix" else name.decode("utf-8", "surrogateescape")


def _nothing(path: str, why: str) -> PictureError:
    return PictureError(f"{safe(path)}: {why}", hint=f"pictures are files that end in {' '.join(SUFFIXES)}")


def decoded(data: bytes) -> str:
    """The text of a file that a user wrote: UTF-8, or UTF-16 with a mark, as Windows' shells write it.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    return data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")


def safe(name: str) -> str:
    """A path as text that any UTF-8 stream takes: what is not valid in it is written out."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
