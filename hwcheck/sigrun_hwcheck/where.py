"""The conditions on a device of a machine: what predictions and measurements go by."""

from __future__ import annotations

from sigrun_hwcheck.conditions import Conditions, instruction_set
from sigrun_hwcheck.devices import Device, card_key
from sigrun_hwcheck.machine import Cpu, Machine


def threads(cpu: Cpu) -> int | None:
    """Threads that the runtime takes where nobody says how many (``sigrun.cpus.default_threads``)."""
    cores = [count for count in (cpu.physical_cores, cpu.usable_cpus) if count is not None]
    if not cores:
        return None
    return max(1, min(cores) if cpu.quota_cpus is None else min(*cores, int(cpu.quota_cpus)))


def conditions(machine: Machine, device: Device, version: str | None) -> Conditions:
    """The conditions on a device of a machine.

    Args:
        machine: the machine.
        device: one of its devices.
        version: ONNX Runtime's there; for this machine :func:`installed_version`.
    """
    if device.provider == "cpu":
        cpu = machine.cpu
        return Conditions(
            machine.system,
            version,
            instruction_set(cpu.features),
            f"{cpu.name or cpu.architecture}, {threads(cpu)} threads",
            threads(cpu),
        )
    card = next(
        (c for gpus in machine.gpus for c in gpus.cards if device.key == card_key(gpus.vendor, c)), None
    )
    if card is None:
        return Conditions(machine.system, version)
    capability = card.compute_capability
    return Conditions(
        machine.system,
        version,
        None if capability is None else ".".join(map(str, capability)),
        f"{card.name}, {card.total_bytes} bytes",
    )
