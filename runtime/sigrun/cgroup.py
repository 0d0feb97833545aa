"""Where this process stands in Linux's control groups, the mechanism behind container limits.

A limit may be set on the process's own group or on any group above it, so callers look at all of them. The
paths come from ``/proc/self/cgroup`` (the group) and ``/proc/self/mountinfo`` (where groups are mounted); see
cgroups(7). Inside a container the mounted tree is often only a part of the host's, and the path may name
groups that cannot be seen from here; the walk then starts at what is mounted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

Version = Literal[1, 2]


@dataclass(frozen=True)
class Group:
    """A control group's folder, and which of the two interfaces its files follow."""

    version: Version
    folder: Path

    def text(self, name: str) -> str | None:
        """The stripped content of a file of the group; ``None`` if it is missing or may not be read."""
        try:
            return (self.folder / name).read_text("ascii", errors="replace").strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """A file that holds one whole number; ``None`` for anything else, such as ``max``."""
        text = self.text(name)
        return int(text) if text is not None and re.fullmatch(r"\d+", text) else None

    def table(self, name: str) -> dict[str, int]:
        """A file of ``key number`` lines, such as ``memory.stat``."""
        lines = (line.split() for line in (self.text(name) or "").splitlines())
        return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


def groups(controller: str, root: Path) -> Iterator[Group]:
    """The groups of this process that a controller (``memory``, ``cpu``) counts in, innermost first.

    Args:
        controller: name of a version 1 controller; version 2 has one tree for all of them.
        root: the folder that holds ``proc`` and ``sys``; ``/`` but for tests.
    """
    paths = _own_paths(root)
    for version, where, mounted in _mounts(controller, root):
        own = paths.get(controller if version == 1 else "")
        if own is None:
            continue
        yield from _walk(version, where, _below(own, mounted))


def _walk(version: Version, top: Path, below: PurePosixPath) -> Iterator[Group]:
    folder = top / below
    while True:
        if _there(folder):
            yield Group(version, folder)
        if folder == top:
            return
        folder = folder.parent


def _there(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:  # a folder above may not be searched
        return False


def _own_paths(root: Path) -> dict[str, str]:
    """Controller → path of this process's group; the key of version 2's one tree is the empty string."""
    paths: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        fields = line.split(":", 2)  # hierarchy : controllers, comma separated : path
        if len(fields) == 3:
            for controller in fields[1].split(","):
                paths[controller] = fields[2]
    return paths


def _mounts(controller: str, root: Path) -> Iterator[tuple[Version, Path, str]]:
    """Version, folder and group mounted there, of every mounted tree that may hold the controller."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        mounted, where = _unescape(fields[3]), root / _unescape(fields[4]).lstrip("/")
        if kind[0] == "cgroup2":
            yield 2, where, mounted
        elif kind[0] == "cgroup" and controller in kind[2].split(","):
            yield 1, where, mounted


def _below(path: str, mounted: str) -> PurePosixPath:
    """The path of a group relative to what is mounted; the mount itself where the group lies outside it."""
    group = PurePosixPath(path)
    if ".." in group.parts or not group.is_relative_to(mounted):
        return PurePosixPath()
    return group.relative_to(mounted)


def _unescape(field: str) -> str:
    """Mountinfo writes space, tab, newline and backslash as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), field)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
