"""Sizes in words, and words as sizes. Written with binary units and three figures: ``264 MiB``, ``1.62 GiB``."""

from __future__ import annotations

import re

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


MOST_BYTES = 1 << 50
"""More than any machine has: such a size is a slip of the pen."""

_UNITS = {
    "b": 1,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": 1 << 40,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}


def parse_size(text: str) -> int:
    """The bytes that a size means: ``8GiB``, ``512 MiB``, ``6GB``; ``0`` needs no unit.

    Raises:
        ValueError: it is no size, or too large for one.
    """
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", text.strip())
    unit = None if found is None else _UNITS.get(found[2].lower())
    if found is not None and not found[2] and float(found[1]) == 0:
        return 0
    if found is None or unit is None:
        raise ValueError(
            f"'{text}' is no size: give a number and a unit, such as 8GiB (1024 x 1024 x 1024 bytes each), 6GB "
            "(1000 x 1000 x 1000) or 512MiB"
        )
    nbytes = round(float(found[1]) * unit)
    if nbytes > MOST_BYTES:
        raise ValueError(f"'{text}' is more than any machine has")
    return nbytes
