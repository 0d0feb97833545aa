"""Reads this machine. Prints nothing, starts no program, and wakes no graphics card beyond what NVML does."""

from __future__ import annotations

import platform

from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.probe import cpu, nvidia, ram

__all__ = ["read_machine"]


def read_machine() -> Machine:
    """The machine this runs on, as this process may use it."""
    return Machine(
        system=platform.system() or "unknown",
        ram=ram.read(),
        cpu=cpu.read(),
        gpus=(nvidia.read(),),
    )
