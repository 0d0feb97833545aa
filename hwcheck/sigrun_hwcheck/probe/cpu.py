"""The processor: name, cores, what of it this process may use, and its instruction sets.

Instruction sets decide how fast a compute form runs, so one that the system does not tell about is ``None``,
not absent. Linux: ``/proc/cpuinfo``. macOS: ``sysctlbyname``. Windows: the registry, ``IsProcessorFeaturePresent``
and, for what that has no number for, NumPy; neither knows AVX-VNNI or AMX.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigrun.cpus import cores_of, quota
from sigrun_hwcheck.machine import Cpu
from sigrun_hwcheck.probe import tree

# Our name → what Linux calls it in /proc/cpuinfo.
X86_FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512f",
    "avx512_vnni": "avx512_vnni",
    "avx_vnni": "avx_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
}
ARM_FLAGS = {"neon": "asimd", "dotprod": "asimddp", "i8mm": "i8mm", "bf16": "bf16", "sve": "sve"}

# Our name → macOS's sysctl.
X86_SYSCTLS = {
    "avx2": "hw.optional.avx2_0",
    "avx512f": "hw.optional.avx512f",
    "avx512_vnni": "hw.optional.avx512vnni",
}
ARM_SYSCTLS = {
    "neon": "hw.optional.AdvSIMD",
    "dotprod": "hw.optional.arm.FEAT_DotProd",
    "i8mm": "hw.optional.arm.FEAT_I8MM",
    "bf16": "hw.optional.arm.FEAT_BF16",
}

# Our name → PF_* number of Windows' processthreadsapi.h, and the build of Windows that first knew it.
X86_WINDOWS = {"avx2": (40, 19041), "avx512f": (41, 19041)}
ARM_WINDOWS = {
    "neon": (19, 0),
    "dotprod": (43, 19041),
    "sve": (46, 26100),
    "i8mm": (66, 26100),
    "bf16": (68, 26100),
}

# Our name → NumPy's.
NUMPY = {
    "avx2": "AVX2",
    "avx512f": "AVX512F",
    "avx512_vnni": "AVX512VNNI",
    "avx512_bf16": "AVX512BF16",
    "neon": "ASIMD",
    "dotprod": "ASIMDDP",
    "sve": "SVE",
}

# Arm's processors by the numbers of /proc/cpuinfo, which has no names there.
ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD42: "Cortex-A78AE",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
    0xD81: "Cortex-A720",
    0xD85: "Cortex-X925",
    0xD87: "Cortex-A725",
}

_RANGE = r"[0-9]{1,6}(?:-[0-9]{1,6})?"
MOST_CPUS = 1 << 20
"""A larger quota is no limit."""

Sysctl = Callable[[str], bytes | None]
"""The raw value of a macOS sysctl, or ``None`` where there is none of that name."""


def normal(machine: str) -> str:
    """One name for an architecture that systems call differently."""
    lower = machine.lower() or "unknown"
    return {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}.get(lower, lower)


def usable() -> int | None:
    """Logical processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return os.cpu_count() if affinity is None else len(affinity(0))


def read(
    root: Path = Path("/"),
    system: str | None = None,
    architecture: str | None = None,
    usable_cpus: Callable[[], int | None] = usable,
    sysctl: Sysctl | None = None,
    windows: Windows | None = None,
) -> Cpu:
    """The processor of this machine; whatever is given is asked instead of it, as tests do.

    Args:
        root: the folder that holds ``proc`` and ``sys``.
        system: what ``platform.system()`` says.
        architecture: what ``platform.machine()`` says.
        usable_cpus: logical processors this process may run on.
        sysctl: macOS's sysctls.
        windows: what Windows tells.
    """
    system = platform.system() if system is None else system
    architecture = normal(platform.machine() if architecture is None else architecture)
    if system == "Linux":
        return linux(root, architecture, usable_cpus)
    if system == "Darwin":
        return from_sysctl(sysctl or sysctlbyname, architecture, usable_cpus())
    if system == "Windows":
        return (windows or Windows()).cpu(architecture, usable_cpus())
    return other(architecture, usable_cpus())


def other(architecture: str, usable_cpus: int | None) -> Cpu:
    """The processor of a system that is asked nothing."""
    features: dict[str, bool | None] = dict.fromkeys(_flags(architecture))
    return Cpu(platform.processor() or None, architecture, None, usable_cpus, None, features)


def _flags(architecture: str) -> dict[str, str]:
    return {"x86_64": X86_FLAGS, "arm64": ARM_FLAGS}.get(architecture, {})


def linux(root: Path, architecture: str, usable_cpus: Callable[[], int | None] = usable) -> Cpu:
    """The processor as Linux tells it below a root folder."""
    # Where processes are bound to processors (affinity, cpuset), the bound ones are listed here.
    status = tree.text(root / "proc/self/status") or ""
    allowed = re.search(rf"^Cpus_allowed_list:\s*({_RANGE}(?:,{_RANGE})*)$", status, re.MULTILINE)
    bound = usable_cpus() if allowed is None else _count(allowed.group(1))
    most = quota(root)
    most = most if most is not None and most <= MOST_CPUS else None
    found = from_cpuinfo(tree.text(root / "proc/cpuinfo") or "", architecture, bound, most, root)
    if found.name is None:
        board = tree.text(root / "proc/device-tree/model")
        return Cpu(board, *list(vars(found).values())[1:])
    return found


def _count(ranges: str) -> int:
    """How many numbers ``0-3,8`` stands for."""
    ends = (part.split("-") for part in ranges.split(",") if part)
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def from_cpuinfo(
    text: str, architecture: str, usable_cpus: int | None, quota_cpus: float | None, root: Path | None = None
) -> Cpu:
    """A processor from the text of ``/proc/cpuinfo``; an empty text tells nothing.

    Args:
        text: the content of the file.
        architecture: the processor's.
        usable_cpus: processors this process may run on.
        quota_cpus: processors' worth of time it may use.
        root: the folder that holds ``sys``, where the topology is that the text may lack.
    """
    entries = [_pairs(block) for block in text.split("\n\n")]
    table, key = (X86_FLAGS, "flags") if architecture == "x86_64" else (ARM_FLAGS, "Features")
    each = [set(e[key].split()) for e in entries if key in e]
    features: dict[str, bool | None] = {}
    if architecture in ("x86_64", "arm64"):  # cores may differ: present is what all of them have
        features = {o: all(theirs in f for f in each) if each else None for o, theirs in table.items()}
    numbers = {int(e["processor"]) for e in entries if e.get("processor", "").isdigit()}
    if root is not None and numbers and tree.there(root / "sys/devices/system/cpu/cpu0/topology"):
        cores: int | None = cores_of(numbers, root)
    else:
        told = {(e["physical id"], e["core id"]) for e in entries if "physical id" in e and "core id" in e}
        cores = len(told) or None
    name = next((e["model name"] for e in entries if "model name" in e), None) or _arm_name(entries)
    return Cpu(name, architecture, cores, usable_cpus, quota_cpus, features)


def _arm_name(entries: list[dict[str, str]]) -> str | None:
    parts = []
    for entry in entries:
        with contextlib.suppress(KeyError, ValueError):
            if int(entry["CPU implementer"], 16) == 0x41:
                parts.append(ARM_PARTS[int(entry["CPU part"], 16)])
    return " + ".join(dict.fromkeys(parts)) or None


def _pairs(block: str) -> dict[str, str]:
    """The ``key : value`` lines of one processor's entry."""
    parts = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, colon, value in parts if colon}


def from_sysctl(sysctl: Sysctl, architecture: str, usable_cpus: int | None = None) -> Cpu:
    """A Mac's processor."""

    def number(name: str) -> int | None:
        raw = sysctl(name)
        return None if raw is None else int.from_bytes(raw, "little")

    table = X86_SYSCTLS if architecture == "x86_64" else ARM_SYSCTLS
    features: dict[str, bool | None] = dict.fromkeys(_flags(architecture))
    for ours, theirs in table.items():
        value = number(theirs)
        features[ours] = None if value is None else value != 0
    brand = sysctl("machdep.cpu.brand_string")
    name = None if brand is None else brand.rstrip(b"\0").decode("utf-8", "replace")
    usable_cpus = number("hw.logicalcpu") if usable_cpus is None else usable_cpus
    return Cpu(name, architecture, number("hw.physicalcpu"), usable_cpus, None, features)


def sysctlbyname(name: str) -> bytes | None:
    """A macOS sysctl through the C library; ``None`` elsewhere."""
    if platform.system() != "Darwin":
        return None
    try:
        library = ctypes.CDLL("/usr/lib/libSystem.B.dylib")
        size = ctypes.c_size_t(0)
        if library.sysctlbyname(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
            return None
        buffer = ctypes.create_string_buffer(size.value)
        if library.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
            return None
        return buffer.raw[: size.value]
    except (OSError, AttributeError):
        return None


def feature_present(number: int) -> bool | None:
    """Windows' ``IsProcessorFeaturePresent``."""
    kernel = getattr(getattr(ctypes, "windll", None), "kernel32", None)
    return None if kernel is None else bool(kernel.IsProcessorFeaturePresent(number))


def windows_build() -> int:
    """The build of Windows; 0 elsewhere."""
    version = getattr(sys, "getwindowsversion", None)
    return 0 if version is None else int(version().build)


def registry_name() -> str | None:
    """The processor's name in Windows' registry."""
    try:
        winreg: Any = importlib.import_module("winreg")  # Windows only
        place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    except (ImportError, OSError):
        return None


def numpy_features() -> Mapping[str, bool]:
    """What NumPy found of the processor; nothing where its build does not tell."""
    try:
        module: Any = importlib.import_module("numpy._core._multiarray_umath")
        return dict(module.__cpu_features__)
    except (ImportError, AttributeError):
        return {}


def windows_cores() -> int | None:
    """Physical cores by psutil."""
    try:
        import psutil

        return psutil.cpu_count(logical=False)
    except (ImportError, OSError):
        return None


@dataclass(frozen=True)
class Windows:
    """What Windows tells of its processor; given by tests."""

    feature_present: Callable[[int], bool | None] = feature_present
    build: int = field(default_factory=windows_build)
    name: Callable[[], str | None] = registry_name
    cores: Callable[[], int | None] = windows_cores
    numpy_features: Callable[[], Mapping[str, bool]] = numpy_features

    def cpu(self, architecture: str, usable_cpus: int | None) -> Cpu:
        """The processor."""
        name = self.name() or platform.processor() or None
        return Cpu(name, architecture, self.cores(), usable_cpus, None, self.features(architecture))

    def features(self, architecture: str) -> dict[str, bool | None]:
        """Instruction sets; Windows answers no for those that it is too old to know, which then stay unknown."""
        table = X86_WINDOWS if architecture == "x86_64" else ARM_WINDOWS if architecture == "arm64" else {}
        features: dict[str, bool | None] = dict.fromkeys(_flags(architecture))
        for ours, (number, since) in table.items():
            there = self.feature_present(number)
            features[ours] = True if there else there if self.build >= since else None
        if any(there is None for there in features.values()):
            told = self.numpy_features()
            for ours, there in features.items():
                if there is None and NUMPY.get(ours) in told:
                    features[ours] = told[NUMPY[ours]]
        return features
