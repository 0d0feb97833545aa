"""Everything a reader of this machine asks, in one place, so that a test can put something else there."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sigrun_hwcheck.probe import cpu, disk, dxgi, metal, nvml, ram, registry, runtime


@dataclass(frozen=True)
class Sources:
    """Where facts come from; by default this machine.

    Attributes:
        root: the folder that holds ``proc``, ``sys``, ``dev`` and ``etc``.
        system: what ``platform.system()`` says.
        architecture: what ``platform.machine()`` says.
        environ: environment variables.
        memory: total and available bytes, where /proc/meminfo tells none.
        usable_cpus: logical processors this process may run on, where /proc/self/status tells none.
        binding: answers the module ``pynvml``.
        open_library: loads a shared library by its path.
        sysctl: raw values of macOS's sysctl.
        working_set: bytes that Metal recommends to stay below.
        adapters: what DXGI tells of Windows' graphics adapters.
        display_drivers: what Windows' registry tells of them.
        windows: what Windows tells of the processor.
        disk_usage: bytes of the file system that a folder lies on: total and free.
        output: the folder that files are exported to.
        cache: the folder of prepared weights, if that is to be looked at too (asking the runtime for it loads NumPy).
        package_version: the version of an installed Python package; ``None`` if it is not installed.
        platform: what ``sys.platform`` says.
        try_provider: runs a provider of ONNX Runtime in a process of its own.
    """

    root: Path = Path("/")
    system: str = field(default_factory=platform.system)
    architecture: str = field(default_factory=platform.machine)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    memory: ram.Memory = ram.psutil_memory
    usable_cpus: Callable[[], int | None] = cpu.usable
    binding: Callable[[], Any] = nvml.load_binding
    open_library: Callable[[str], Any] = nvml.open_library
    sysctl: cpu.Sysctl = cpu.sysctlbyname
    working_set: Callable[[], int | None] = metal.working_set
    adapters: Callable[[], list[dxgi.Adapter]] = dxgi.adapters
    display_drivers: Callable[[], list[registry.DisplayDriver]] = registry.display_drivers
    windows: cpu.Windows = field(default_factory=cpu.Windows)
    disk_usage: disk.Usage = disk.usage
    output: Path = field(default_factory=Path.cwd)
    cache: Path | None = None
    package_version: Callable[[str], str | None] = runtime.package_version
    platform: str = sys.platform
    try_provider: Callable[[str], runtime.Answer] = runtime.run_child
