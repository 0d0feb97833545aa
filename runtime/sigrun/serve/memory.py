"""How much memory this process holds, where the system says so without further packages."""

from __future__ import annotations

import asyncio
import contextlib
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


TRIES = 4
"""How often one looks again, each time after twice as long."""


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
        self._tries = 0  # in which less came back than had come

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
            self._settle(self._low)
        else:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, self._ebb, loop)

    def _ebb(self, loop: asyncio.AbstractEventLoop) -> None:
        give_back() if self._tries else give_back_freed()
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(self._look_again, loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """What is still held now, by the answer on its way, say, may be free a little later."""
        now = resident_bytes() or 0
        if self._tries < TRIES and self._low is not None and now - self._low >= self._step:
            self._tries += 1
            loop.call_later(self._delay * 2**self._tries, self._look)
        else:
            self._settle(now)

    def _settle(self, now: int) -> None:
        self._low, self._due, self._tries = now, False, 0


def give_back() -> None:
    """Ask the allocator to return what it holds for nobody; glibc otherwise keeps it."""
    gc.collect()
    give_back_freed()
