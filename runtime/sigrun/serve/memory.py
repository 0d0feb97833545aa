"""How much memory this process holds, where the system says so without further packages."""

from __future__ import annotations

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


def give_back() -> None:
    """Ask the allocator to return what it holds for nobody; glibc otherwise keeps it."""
    gc.collect()
    give_back_freed()
