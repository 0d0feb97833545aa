"""How much memory this process holds, where the system says so without further packages."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

from sigrun.allocation import give_back_freed


def resident_bytes() -> int | None:
    """Bytes of memory that the process holds now; none where that is not known (Linux says it)."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


class Tide:
    """Watches the process's memory between requests, and gives back what large ones left behind.

    The allocator keeps what a large picture or body took, in case another comes. Used in one event loop.

    Args:
        step: bytes of growth at which what is free is given back.
        delay: seconds after a request until one looks, so that many requests cause one look.
    """

    def __init__(self, step: int = 64 << 20, delay: float = 0.2) -> None:
        self._step = step
        self._delay = delay
        self._low = resident_bytes()  # the least memory that was needed since something was last given back
        self._due = False

    def request_ended(self) -> None:
        """Look soon."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(self._delay, self._look)

    def _look(self) -> None:
        now = resident_bytes()
        if now is None:
            return  # and never look again
        if self._low is None or now < self._low:
            self._low = now
        if now - self._low < self._step:
            self._due = False
        else:
            asyncio.get_running_loop().run_in_executor(None, self._ebb)

    def _ebb(self) -> None:
        give_back_freed()
        self._low = resident_bytes()
        self._due = False


def give_back() -> None:
    """Ask the allocator to return what it holds for nobody; glibc otherwise keeps it."""
    gc.collect()
    give_back_freed()
