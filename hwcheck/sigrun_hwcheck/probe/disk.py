"""Room on disk, where exported files and prepared weights go. Folders are not named: a path names its user."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from sigrun_hwcheck.machine import Disk
from sigrun_hwcheck.probe import tree

Usage = Callable[[Path], tuple[int, int]]
"""Total and free bytes, for this user, of the file system that a folder lies on."""


def usage(folder: Path) -> tuple[int, int]:
    """As the system tells. Raises ``OSError``."""
    found = shutil.disk_usage(folder)
    return found.total, found.free


def read(purpose: Literal["output", "cache"], folder: Path, usage: Usage = usage) -> Disk:
    """The room in a folder, or in the nearest one above it that exists."""
    place = folder.absolute()
    while not tree.there(place) and place != place.parent:
        place = place.parent
    try:
        total, free = usage(place)
    except OSError as error:
        return Disk(
            purpose, None, None, f"the system does not tell: {error.strerror or type(error).__name__}"
        )
    return Disk(purpose, total, free)
