"""What the user should know while an export goes on, on stderr."""

from __future__ import annotations

import sys


def note(line: str) -> None:
    """Say one line; nothing if there is nowhere to say it."""
    if sys.stderr is not None:
        sys.stderr.write(f"sigrun-export: note: {line}\n")
