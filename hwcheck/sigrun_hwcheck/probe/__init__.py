"""Reads this machine. Prints nothing, starts no program unless asked to, and wakes no card that sleeps."""

from __future__ import annotations

from sigrun_hwcheck.machine import Disk, Gpus, Machine, Surroundings
from sigrun_hwcheck.probe import (
    amd,
    apple,
    cpu,
    disk,
    intel,
    npu,
    nvidia,
    ram,
    runtime,
    surroundings,
    windows,
)
from sigrun_hwcheck.probe.sources import Sources

__all__ = ["Sources", "read_machine"]


def read_machine(sources: Sources | None = None, *, try_providers: bool = False) -> Machine:
    """The machine this runs on, as this process may use it.

    Args:
        sources: where facts come from; ``None``: this machine.
        try_providers: also load every installed provider of ONNX Runtime, each in a process of its own; takes
            seconds, and wakes cards.
    """
    sources = Sources() if sources is None else sources
    around = surroundings.read(sources.root, sources.system, sources.environ)
    architecture = cpu.normal(sources.architecture)
    gpus = tuple(_gpus(sources, around, architecture))
    npus = npu.read(sources.root, sources.system, architecture)
    installed = runtime.installed(sources.package_version, sources.platform)
    if try_providers:
        installed, more = runtime.tried(installed, sources.try_provider)
        npus += tuple(one for one in more if one.name not in {known.name for known in npus})
    return Machine(
        system=sources.system or "unknown",
        ram=ram.read(sources.root, sources.memory),
        cpu=cpu.read(
            sources.root,
            sources.system,
            sources.architecture,
            sources.usable_cpus,
            sources.sysctl,
            sources.windows,
        ),
        gpus=gpus,
        surroundings=around,
        npus=npus,
        disks=tuple(_disks(sources)),
        onnxruntime=installed,
    )


def _gpus(sources: Sources, around: Surroundings, architecture: str) -> list[Gpus]:
    """NVIDIA's cards or why there are none, and other vendors that there is something to say of."""
    if sources.system == "Darwin":  # has had no driver for NVIDIA's cards for years
        found = [apple.read(sources.sysctl, sources.working_set, architecture)]
        return [gpus for gpus in found if gpus is not None]
    first = nvidia.read(sources.binding, sources.root, sources.environ, around, sources.open_library)
    if sources.system == "Windows":
        return [first, *windows.read(sources.adapters, sources.display_drivers, first.state == "ok")]
    others = (amd.read(sources.root, around), intel.read(sources.root, around))
    return [first, *(gpus for gpus in others if gpus is not None)]


def _disks(sources: Sources) -> list[Disk]:
    found = [disk.read("output", sources.output, sources.disk_usage)]
    if sources.cache is not None:
        found.append(disk.read("cache", sources.cache, sources.disk_usage))
    return found
