"""Text files with one entry a line, and ``-`` for standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from sigrun.errors import TextError
from sigrun.gather import decoded, safe


def read_lines(path: str, what: str) -> list[str]:
    """The lines of a text file that hold anything, without the space around them.

    Raises:
        TextError: it cannot be read.
    """
    hint = None
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = decoded(data)
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not UTF-8 text"
            hint = "save it as UTF-8"
        shown = "standard input" if path == "-" else safe(path)
        raise TextError(f"{shown}: cannot read the {what}: {reason}", hint=hint) from error
    return [line.strip() for line in text.split("\n") if line.strip()]
