"""Sizes in words. Binary units, three figures: ``264 MiB``, ``1.62 GiB``."""

from __future__ import annotations

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def size(nbytes: int | None) -> str:
    """A number of bytes for people; ``unknown`` for ``None``."""
    if nbytes is None:
        return "unknown"
    if nbytes < 10 * KIB:
        return f"{nbytes} bytes"
    for unit, name in ((KIB, "KiB"), (MIB, "MiB"), (GIB, "GiB")):
        value = nbytes / unit
        if value < 999.5 or unit == GIB:
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {name}"
    raise AssertionError  # the last unit always answers
