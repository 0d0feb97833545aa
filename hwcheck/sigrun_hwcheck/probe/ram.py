"""Main memory: the system's, and the container's limit where there is one.

psutil (and /proc/meminfo behind it) tell the host's memory even inside a container. The control groups tell
what the container may use; of what it uses, page cache that the kernel can drop (``inactive_file``) and
reclaimable kernel memory do not count, or every container that ever read a large file would look full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sigrun_hwcheck.machine import Ram
from sigrun_hwcheck.probe.cgroup import Group, groups

Memory = Callable[[], tuple[int, int]]
"""Answers the bytes of memory the system has, and those it could give to a new process."""


def psutil_memory() -> tuple[int, int]:
    """Total and available bytes as psutil reads them on Linux, Windows and macOS.

    Raises:
        ImportError: psutil is not installed.
    """
    import psutil

    memory = psutil.virtual_memory()
    return memory.total, memory.available


def read(root: Path = Path("/"), memory: Memory = psutil_memory) -> Ram:
    """The memory this process can have.

    Args:
        root: the folder that holds ``proc`` and ``sys``; ``/`` but for tests.
        memory: where the system's figures come from.
    """
    total: int | None = None
    available: int | None = None
    problem: str | None = None
    try:
        total, available = memory()
    except ImportError:
        problem = "psutil is not installed: pip install 'sigrun[hwcheck]'"
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"the system does not tell its memory: {error}"
    limit: int | None = None
    headroom: int | None = None
    source: str | None = None
    for group, most, used in _limits(root):
        if total is not None and most >= total:
            continue  # version 1 writes "no limit" as a huge number
        if limit is None or most < limit:
            limit, source = most, f"cgroup v{group.version}"
        if used is None:
            problem = problem or f"how much of its {source} limit the container uses cannot be read"
            return Ram(total, available, limit, None, source, problem)
        left = max(0, most - used)
        headroom = left if headroom is None else min(headroom, left)
    return Ram(total, available, limit, headroom, source, problem)


NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes no limit as about 2**63, rounded down to a page."""


def _limits(root: Path) -> Iterator[tuple[Group, int, int | None]]:
    """Each limited group of this process: the group, its limit, and the bytes that count against it."""
    for group in groups("memory", root):
        if group.version == 2:
            found = [n for n in (group.number("memory.max"), group.number("memory.high")) if n is not None]
            limit, used = min(found, default=None), group.number("memory.current")
            stat = group.table("memory.stat")
            droppable = stat.get("inactive_file", 0) + stat.get("slab_reclaimable", 0)
        else:
            limit, used = group.number("memory.limit_in_bytes"), group.number("memory.usage_in_bytes")
            droppable = group.table("memory.stat").get("total_inactive_file", 0)
        if limit is None or limit >= NO_LIMIT_BYTES:
            continue
        yield group, limit, None if used is None else max(0, used - droppable)
