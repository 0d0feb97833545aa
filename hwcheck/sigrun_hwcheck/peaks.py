"""How much memory this process holds and held at most, in bytes, on every system. Unknown is ``None``."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FORGET = "5"  # resets the peak, Documentation/filesystems/proc.rst


def resident_bytes() -> int | None:
    """Resident memory now."""
    found = _status("VmRSS")
    memory = None if found is not None else _psutil_memory()
    return found if memory is None else int(memory.rss)


def peak_bytes() -> int | None:
    """Highest resident memory since the process began, or since :func:`forget_peak`."""
    found = _status(
        "VmHWM"
    )  # not ru_maxrss there: that holds what the process was before it became this program
    if found is not None:
        return found
    if sys.platform == "win32":
        memory = _psutil_memory()
        return None if memory is None else int(memory.peak_wset)
    resource = importlib.import_module("resource")
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else peak * 1024


def mapped_bytes() -> int | None:
    """Pages of files among the resident ones; the system takes them back at need. Linux only."""
    return _status("RssFile")


def forget_peak() -> bool:
    """Count the peak from now on. False where the system cannot, and the peak stays that of the whole life."""
    try:
        CLEAR.write_text(FORGET, "ascii")
    except OSError:  # no such system, or not permitted
        return False
    now, peak = resident_bytes(), peak_bytes()
    return now is not None and peak is not None and peak < now + (8 << 20)


def card_bytes(card: str | None) -> int | None:
    """Memory on an NVIDIA card: this process's, or where the driver does not tell it apart, all that is used.

    Args:
        card: its number, ``0.1`` of its slice 1 (MIG); ``None``: of none.
    """
    if card is None:
        return None
    from sigrun_hwcheck.probe import (
        nvml,
    )  # not at the top: what is measured on a CPU shall hold as little as can be

    try:
        module = nvml.load_binding()
    except ImportError:
        return None
    if nvml.start(module, Path("/"), nvml.open_library) is not None:
        return None
    try:
        number, _, part = card.partition(".")
        handle, _ = nvml.call(module, "nvmlDeviceGetHandleByIndex", int(number))
        if part and handle is not None:
            handle, _ = nvml.call(module, "nvmlDeviceGetMigDeviceHandleByIndex", handle, int(part))
        if handle is None:
            return None
        # By its version: of the plain name the binding raises an error of another kind where a driver is old.
        running, _ = nvml.call(module, "nvmlDeviceGetComputeRunningProcesses_v3", handle)
        for process in running or ():
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory)
        memory, _ = nvml.call(module, "nvmlDeviceGetMemoryInfo", handle)
        return None if memory is None else int(memory.used)
    finally:
        nvml.call(module, "nvmlShutdown")


def _status(field: str) -> int | None:
    try:
        lines = STATUS.read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None


def _psutil_memory() -> Any:
    try:
        return importlib.import_module("psutil").Process().memory_info()
    except ImportError:
        return None
