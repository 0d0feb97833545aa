"""Main memory: the system's, and the container's limit where there is one.

/proc/meminfo tells the host's memory even inside a container. The control groups tell what the container may use; of
what it uses, page cache that the kernel can drop (``inactive_file``) and reclaimable kernel memory do not count, or
every container that ever read a large file would look full.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sigrun.cgroup import Group, groups
from sigrun_hwcheck.machine import Ram
from sigrun_hwcheck.probe import tree

Memory = Callable[[], tuple[int, int]]
"""Answers the bytes of memory the system has, and those it could give to a new process."""

NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes no limit as about 2**63, rounded down to a page."""


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
        memory: where the system's figures come from if ``/proc/meminfo`` is missing.
    """
    total: int | None = None
    available: int | None = None
    problem: str | None = None
    try:
        total, available = meminfo(root) or memory()
    except ImportError:
        problem = "psutil is not installed: pip install 'sigrun[hwcheck]'"
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"the system does not tell its memory: {_reason(error)}"
    if total is not None and available is not None:
        available = min(available, total)
    return _limited(root, total, available, problem)


def _reason(error: Exception) -> str:
    """Without the path that an error of the system names."""
    return getattr(error, "strerror", None) or str(error)


def meminfo(root: Path) -> tuple[int, int] | None:
    """Total and available bytes of ``/proc/meminfo``; ``None`` if it is not there.

    Memory that ZFS caches in (ARC) is given back on demand, but Linux does not count it as available.
    """
    lines = (
        re.fullmatch(r"(\w+):\s+(\d+) kB", line)
        for line in (tree.text(root / "proc/meminfo") or "").splitlines()
    )
    table = {m.group(1): int(m.group(2)) << 10 for m in lines if m}
    total, available = table.get("MemTotal"), table.get("MemAvailable")
    if not total:
        return None
    if available is None:  # kernels before 3.14
        parts = [table.get(name) for name in ("MemFree", "Buffers", "Cached")]
        if parts[0] is None:
            return None
        available = sum(part or 0 for part in parts)
    stats = (line.split() for line in (tree.text(root / "proc/spl/kstat/zfs/arcstats") or "").splitlines())
    arc = {line[0]: int(line[2]) for line in stats if len(line) == 3 and line[2].isdigit()}
    if "size" in arc and "c_min" in arc:
        available += max(0, arc["size"] - arc["c_min"])
    return total, available


def _limited(root: Path, total: int | None, available: int | None, problem: str | None) -> Ram:
    """The memory within the limits of this process's control groups."""
    limit: int | None = None
    headroom: int | None = None
    source: str | None = None
    unknown = False
    for group, most, used in _limits(root):
        if total is not None and most >= total:
            continue
        if limit is None or most < limit:
            limit, source = most, f"cgroup v{group.version}"
        if used is None:
            unknown = True
            continue
        left = max(0, most - used)
        headroom = left if headroom is None else min(headroom, left)
    if problem is None and any(_blind(group) for group in groups("memory", root)):
        problem = "whether the memory of this container is limited cannot be read"
    if unknown:
        headroom = None
        problem = f"how much of its {source} limit the container uses cannot be read"
    return Ram(total, available, limit, headroom, source, problem)


def _limits(root: Path) -> Iterator[tuple[Group, int, int | None]]:
    """Each limited group of this process: the group, its limit, and the bytes that count against it."""
    for group in groups("memory", root):
        stat = group.table("memory.stat")
        if group.version == 2:
            limits = [group.number("memory.max"), group.number("memory.high")]
            used = group.number("memory.current")
            droppable = stat.get("inactive_file", 0) + stat.get("slab_reclaimable", 0)
        else:
            # The second is the least of the groups above, which a container may not see.
            limits = [group.number("memory.limit_in_bytes"), stat.get("hierarchical_memory_limit")]
            used = group.number("memory.usage_in_bytes")
            droppable = stat.get("total_inactive_file", 0)
        limit = min((n for n in limits if n is not None), default=None)
        if limit is None or limit >= NO_LIMIT_BYTES:
            continue
        yield group, limit, None if used is None else max(0, used - droppable)


def _blind(group: Group) -> bool:
    """Whether the group has a limit that may not be read."""
    name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
    return group.text(name) is None and tree.there(group.folder / name) is not False
