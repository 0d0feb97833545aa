"""Apple's processors, whose graphics work in main memory up to a limit (the working set)."""

from __future__ import annotations

from collections.abc import Callable

from sigrun_hwcheck.machine import Card, Gpus
from sigrun_hwcheck.probe.cpu import Sysctl

VENDOR = "apple"
MIB = 1 << 20


def read(sysctl: Sysctl, working_set: Callable[[], int | None], architecture: str) -> Gpus | None:
    """The graphics of an Apple processor; ``None`` on other Macs.

    The limit is what Metal says; else what the user has set by ``sysctl iogpu.wired_limit_mb``; else a guess: two
    thirds of main memory, the least that macOS is known to allow.
    """
    if architecture != "arm64":
        return None
    brand = sysctl("machdep.cpu.brand_string")
    name = None if brand is None else brand.rstrip(b"\0").decode("utf-8", "replace")
    total = _number(sysctl, "hw.memsize")
    limit = working_set()
    if limit is None:
        wired = _number(sysctl, "iogpu.wired_limit_mb")
        limit = wired * MIB if wired else None
    estimated = limit is None and total is not None
    if limit is None and total is not None:
        limit = total * 2 // 3
    card = Card(
        index=0,
        name=name,
        total_bytes=None,
        free_bytes=None,
        used_bytes=None,
        compute_capability=None,
        problem=None if limit is not None else "macOS does not tell its memory",
        kind="integrated",
        memory="unified",
        shared_total_bytes=limit,
        estimated=estimated,
    )
    return Gpus(VENDOR, "ok", None, None, (card,))


def _number(sysctl: Sysctl, name: str) -> int | None:
    raw = sysctl(name)
    return None if raw is None else int.from_bytes(raw, "little")
