"""The processor: name, cores, what of it this process may use, and its instruction sets.

Instruction sets decide how fast a compute form runs, so one that the system does not tell about is ``None``,
not absent. Linux: ``/proc/cpuinfo``. macOS: ``sysctlbyname``. Windows: the registry and
``IsProcessorFeaturePresent``, which knows no VNNI and no AMX.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import importlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sigrun_hwcheck.machine import Cpu
from sigrun_hwcheck.probe.cgroup import groups

# Our name → what Linux calls it in /proc/cpuinfo.
X86_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
}
ARM_FLAGS = {"neon": "asimd", "dotprod": "asimddp", "i8mm": "i8mm", "bf16": "bf16"}

# Our name → macOS's sysctl.
X86_SYSCTLS = {"avx2": "hw.optional.avx2_0", "avx512f": "hw.optional.avx512f"}
ARM_SYSCTLS = {
    "neon": "hw.optional.AdvSIMD",
    "dotprod": "hw.optional.arm.FEAT_DotProd",
    "i8mm": "hw.optional.arm.FEAT_I8MM",
    "bf16": "hw.optional.arm.FEAT_BF16",
}

# Our name → PF_* number of Windows' processthreadsapi.h.
X86_WINDOWS = {"avx2": 40, "avx512f": 41}
ARM_WINDOWS = {"neon": 19, "dotprod": 43}

Sysctl = Callable[[str], bytes | None]
"""The raw value of a macOS sysctl, or ``None`` where there is none of that name."""


def read(root: Path = Path("/"), system: str | None = None) -> Cpu:
    """The processor of this machine.

    Args:
        root: the folder that holds ``proc`` and ``sys``; ``/`` but for tests.
        system: what ``platform.system()`` says; given by tests.
    """
    system = platform.system() if system is None else system
    if system == "Linux":
        return _linux(root)
    if system == "Darwin":
        return from_sysctl(_sysctl, normal(platform.machine()))
    if system == "Windows":
        return _windows()
    machine = normal(platform.machine())
    features = dict.fromkeys(X86_FLAGS if machine == "x86_64" else ARM_FLAGS if machine == "arm64" else ())
    return Cpu(platform.processor() or None, machine, None, usable(), None, features)


def normal(machine: str) -> str:
    """One name for an architecture that systems call differently."""
    lower = machine.lower() or "unknown"
    return {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}.get(lower, lower)


def usable() -> int | None:
    """Logical processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return os.cpu_count() if affinity is None else len(affinity(0))


def _linux(root: Path) -> Cpu:
    try:
        text = (root / "proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    return from_cpuinfo(text, normal(platform.machine()), usable(), quota(root))


def from_cpuinfo(text: str, architecture: str, usable_cpus: int | None, quota_cpus: float | None) -> Cpu:
    """A processor from the text of ``/proc/cpuinfo``; an empty text tells nothing."""
    entries = [_pairs(block) for block in text.split("\n\n")]
    first: dict[str, str] = next((e for e in entries if "flags" in e or "Features" in e), {})
    table, key = (X86_FLAGS, "flags") if architecture == "x86_64" else (ARM_FLAGS, "Features")
    flags = first[key].split() if key in first else None
    features: dict[str, bool | None] = {}
    if architecture in ("x86_64", "arm64"):
        features = {ours: None if flags is None else theirs in flags for ours, theirs in table.items()}
    cores = {(e["physical id"], e["core id"]) for e in entries if "physical id" in e and "core id" in e}
    name = next((e["model name"] for e in entries if "model name" in e), None)
    return Cpu(name, architecture, len(cores) or None, usable_cpus, quota_cpus, features)


def _pairs(block: str) -> dict[str, str]:
    """The ``key : value`` lines of one processor's entry."""
    parts = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, colon, value in parts if colon}


def quota(root: Path) -> float | None:
    """Processors' worth of time that the container may use: the least quota on the way to the root."""
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


def from_sysctl(sysctl: Sysctl, architecture: str) -> Cpu:
    """A Mac's processor."""

    def number(name: str) -> int | None:
        raw = sysctl(name)
        return None if raw is None else int.from_bytes(raw, "little")

    table, flags = (X86_SYSCTLS, X86_FLAGS) if architecture == "x86_64" else (ARM_SYSCTLS, ARM_FLAGS)
    features: dict[str, bool | None] = dict.fromkeys(flags)
    for ours, theirs in table.items():
        value = number(theirs)
        features[ours] = None if value is None else value != 0
    brand = sysctl("machdep.cpu.brand_string")
    name = None if brand is None else brand.rstrip(b"\0").decode("utf-8", "replace")
    return Cpu(name, architecture, number("hw.physicalcpu"), usable(), None, features)


def _sysctl(name: str) -> bytes | None:
    """A macOS sysctl through the C library."""
    try:
        library = ctypes.CDLL(ctypes.util.find_library("c") or "libc.dylib")
        size = ctypes.c_size_t(0)
        if library.sysctlbyname(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
            return None
        buffer = ctypes.create_string_buffer(size.value)
        if library.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
            return None
        return buffer.raw[: size.value]
    except (OSError, AttributeError):
        return None


def _windows() -> Cpu:
    architecture = normal(platform.machine())
    features = from_windows(_feature_present, architecture)
    cores: int | None = None
    with contextlib.suppress(ImportError, OSError):
        import psutil

        cores = psutil.cpu_count(logical=False)
    name = _registry_name() or platform.processor() or None
    return Cpu(name, architecture, cores, usable(), None, features)


def from_windows(present: Callable[[int], bool | None], architecture: str) -> dict[str, bool | None]:
    """Instruction sets by Windows' ``IsProcessorFeaturePresent``; what it has no number for stays unknown."""
    table, flags = (X86_WINDOWS, X86_FLAGS) if architecture == "x86_64" else (ARM_WINDOWS, ARM_FLAGS)
    features: dict[str, bool | None] = dict.fromkeys(flags)
    for ours, number in table.items():
        features[ours] = present(number)
    return features


def _feature_present(number: int) -> bool | None:
    kernel = getattr(getattr(ctypes, "windll", None), "kernel32", None)
    return None if kernel is None else bool(kernel.IsProcessorFeaturePresent(number))


def _registry_name() -> str | None:
    try:
        winreg: Any = importlib.import_module("winreg")  # Windows only
        place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    except (ImportError, OSError):
        return None
