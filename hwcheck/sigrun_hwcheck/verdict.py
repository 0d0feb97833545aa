"""Whether a need fits a device, in one word.

Compared with what is free now, less a reserve, so that a machine is not filled to the last byte:

fits            even the high end of the prediction leaves the reserve free
tight           the best figure fits, but the high end or the reserve does not
does not fit    the best figure is more than what is free
unknown         what is free, or what is needed, is not known
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from sigrun_hwcheck.constants import Range
from sigrun_hwcheck.units import MIB

Verdict = Literal["fits", "tight", "does not fit", "unknown"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

RESERVE_SHARE = 0.05
RESERVE_LEAST_BYTES = 128 * MIB
RESERVE_MOST_BYTES = 1024 * MIB


def reserve_bytes(total_bytes: int | None, asked_bytes: int | None = None) -> int:
    """What stays free of a device: what was asked for, else 5 % of it, at least 128 MiB and at most 1 GiB."""
    if asked_bytes is not None:
        return asked_bytes
    share = 0 if total_bytes is None else round(total_bytes * RESERVE_SHARE)
    return min(max(share, RESERVE_LEAST_BYTES), RESERVE_MOST_BYTES)


def judge(need: Range | None, free_bytes: int | None, reserve: int) -> Verdict:
    """The verdict on one need on one device, of which ``reserve`` bytes stay free."""
    if need is None or free_bytes is None:
        return "unknown"
    if need.best_bytes > free_bytes:
        return "does not fit"
    if need.high_bytes > free_bytes - reserve:
        return "tight"
    return "fits"


def works(verdict: Verdict) -> bool:
    """Whether it can be run, comfortably or not."""
    return verdict in ("fits", "tight")


_ORDER: tuple[Verdict, ...] = ("fits", "tight", "unknown", "does not fit")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on all together: it does not fit if one does not; nothing at all is unknown."""
    return max(verdicts, key=_ORDER.index, default="unknown")


def best(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a choice among several: one that fits is enough; nothing at all is unknown."""
    return min(verdicts, key=_ORDER.index, default="unknown")
