"""Reading small files of /proc, /sys and /etc below a root folder; what is missing or forbidden reads as ``None``."""

from __future__ import annotations

import re
from pathlib import Path


def text(path: Path) -> str | None:
    """The file's content, stripped; ``None`` if it is missing or may not be read."""
    try:
        return path.read_text("utf-8", errors="replace").strip("\0\r\n\t ")
    except (OSError, ValueError):
        return None


def there(path: Path) -> bool | None:
    """Whether there is a file or folder; ``None`` if a folder above may not be searched."""
    try:
        return path.exists()
    except OSError:
        return None


def number(path: Path, base: int = 10) -> int | None:
    """A file that holds one whole number, ``0x`` in front allowed; ``None`` for anything else.

    Memory and device numbers are asked for: less than nothing, or more than 64 bits hold, is none.
    """
    content = text(path)
    try:
        found = None if content is None else int(content, base)
    except ValueError:
        return None
    return found if found is not None and 0 <= found < 1 << 63 else None


def raw(path: Path, most: int) -> bytes | None:
    """The first bytes of a binary file."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return None


def entries(folder: Path, pattern: str) -> list[Path]:
    """Entries of a folder whose whole name matches a pattern, numbers in natural order."""
    try:
        found = [path for path in folder.iterdir() if re.fullmatch(pattern, path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name)])


def link_name(path: Path) -> str | None:
    """The last part of what a symbolic link points to, such as a driver's name."""
    try:
        return path.resolve(strict=True).name if path.is_symlink() else None
    except (OSError, RuntimeError):
        return None
