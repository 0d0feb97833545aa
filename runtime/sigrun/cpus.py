"""How many threads one run should use: the physical cores that this process may use.

Two hyper-threads of a core share its multipliers, so a thread for each gains nothing and costs waiting. What counts is
what the process may use, not what the machine has: the CPUs it is bound to, and in a container the time it is given.

Linux: ``/sys/devices/system/cpu``, ``/proc/cpuinfo`` where that is missing, and control groups. macOS: ``sysctl``.
Windows: ``GetLogicalProcessorInformationEx``. Where none of it tells, each logical CPU counts as a core.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
import sys
from collections.abc import Set
from pathlib import Path
from typing import Any

from sigrun.cgroup import groups


def default_threads(root: Path = Path("/"), system: str | None = None) -> int:
    """Threads to use where nobody says how many: usable physical cores within the quota, at least 1.

    Args:
        root: the folder that holds ``proc`` and ``sys``; ``/`` but for tests.
        system: what ``sys.platform`` says; given by tests.
    """
    cores = usable_cores(root, system) or os.cpu_count() or 1
    limit = quota(root)
    return max(1, cores if limit is None else min(cores, int(limit)))


def usable_cpus() -> frozenset[int] | None:
    """The logical CPUs this process may run on; none where the system does not say (macOS, Windows)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return None if affinity is None else frozenset(affinity(0))


def usable_cores(
    root: Path = Path("/"), system: str | None = None, cpus: Set[int] | None = None
) -> int | None:
    """Physical cores that this process may run on; none where the system does not tell.

    Args:
        root: as above.
        system: as above.
        cpus: the logical CPUs of the process; given by tests.
    """
    system = sys.platform if system is None else system
    if system == "darwin":
        return _sysctl_number("hw.physicalcpu")
    if system == "win32":
        return _windows()
    allowed = usable_cpus() if cpus is None else cpus
    return None if allowed is None else cores_of(allowed, root)


def cores_of(cpus: Set[int], root: Path = Path("/")) -> int:
    """Number of physical cores behind logical CPUs, on Linux; a CPU of which nothing is known counts as one."""
    listed: dict[int, object] | None = None
    cores: set[object] = set()
    for cpu in cpus:
        core: object = _siblings(root, cpu)
        if core is None:
            listed = _cpuinfo(root) if listed is None else listed
            core = listed.get(cpu, ("cpu", cpu))
        cores.add(core)
    return len(cores)


def quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the container may use, the least on the way to the root; none without a limit."""
    least: float | None = None
    for group in groups("cpu", root):
        if group.version == 2:
            most, _, period = (group.text("cpu.max") or "").partition(" ")  # "200000 100000" or "max 100000"
        else:  # -1 stands for none
            most, period = group.text("cpu.cfs_quota_us") or "", group.text("cpu.cfs_period_us") or ""
        if most.isdigit() and period.isdigit() and int(most) > 0 and int(period) > 0:
            cpus = int(most) / int(period)
            least = cpus if least is None else min(least, cpus)
    return least


def _siblings(root: Path, cpu: int) -> str | None:
    """The logical CPUs of a CPU's core, such as ``0,4``: the same text for each of them."""
    folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is its name in older kernels
        with contextlib.suppress(OSError):
            text = (folder / name).read_text("ascii", errors="replace").strip()
            if re.fullmatch(r"[0-9,-]+", text):
                return text
    return None


def _cpuinfo(root: Path) -> dict[int, object]:
    """CPU → (package, core), as far as ``/proc/cpuinfo`` tells."""
    try:
        text = (root / "proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return {}
    found: dict[int, object] = {}
    for block in text.split("\n\n"):
        parts = (line.partition(":") for line in block.splitlines())
        pairs = {key.strip(): value.strip() for key, _, value in parts}
        if pairs.get("processor", "").isdigit() and "physical id" in pairs and "core id" in pairs:
            found[int(pairs["processor"])] = pairs["physical id"], pairs["core id"]
    return found


def _sysctl_number(name: str) -> int | None:
    """A macOS sysctl that is a whole number."""
    try:
        library = ctypes.CDLL(None)
        value = ctypes.c_uint64(0)
        size = ctypes.c_size_t(ctypes.sizeof(value))
        if library.sysctlbyname(
            name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        ):
            return None
        return value.value or None
    except (OSError, AttributeError):
        return None


def _windows() -> int | None:
    """Physical cores of this process's affinity; of all where it spans several processor groups."""
    try:
        kernel: Any = getattr(ctypes, "windll").kernel32  # noqa: B009  (there is none elsewhere, says mypy)
        size = ctypes.c_ulong(0)
        kernel.GetLogicalProcessorInformationEx(0, None, ctypes.byref(size))  # 0: RelationProcessorCore
        buffer = ctypes.create_string_buffer(size.value)
        if not kernel.GetLogicalProcessorInformationEx(0, buffer, ctypes.byref(size)):
            return None
        mask, of_system = ctypes.c_size_t(0), ctypes.c_size_t(0)
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        process = ctypes.c_void_p(kernel.GetCurrentProcess())
        known = kernel.GetProcessAffinityMask(process, ctypes.byref(mask), ctypes.byref(of_system))
        return cores_of_windows(buffer.raw[: size.value], mask.value if known else 0) or None
    except (OSError, AttributeError):
        return None


def cores_of_windows(records: bytes, mask: int) -> int:
    """Number of cores in what ``GetLogicalProcessorInformationEx`` gives for ``RelationProcessorCore``.

    Args:
        records: each is relationship and size (uint32), then flags, class and 20 reserved bytes, a number of
            groups (uint16), and for each group a mask (pointer-sized), the group's number and 6 reserved bytes.
        mask: logical CPUs of the process within its only group; 0 if it is in several, and all cores count.
    """
    width = struct.calcsize("P")
    found, at = 0, 0
    while at + 32 + width <= len(records):
        relationship, size = struct.unpack_from("<II", records, at)
        if size < 32 + width or at + size > len(records):
            break
        own = int.from_bytes(records[at + 32 : at + 32 + width], "little")
        if relationship == 0 and (not mask or own & mask):
            found += 1
        at += size
    return found
