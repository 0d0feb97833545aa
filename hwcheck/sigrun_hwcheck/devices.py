"""What of a machine could hold a model: main memory, and each graphics card for itself."""

from __future__ import annotations

from dataclasses import dataclass

from sigrun_hwcheck.constants import Provider
from sigrun_hwcheck.machine import Card, Machine

RUNS_ON: tuple[Provider, ...] = ("cpu",)
"""Providers that this version of the runtime uses; verdicts on others are a look ahead."""


@dataclass(frozen=True)
class Device:
    """A place for weights.

    Attributes:
        key: short and stable: ``ram``, ``nvidia:0``.
        label: in words.
        provider: what runs a model there.
        total_bytes: its memory, or as much of it as a container may use.
        free_bytes: what is free now.
        problem: in words, why a figure is unknown.
    """

    key: str
    label: str
    provider: Provider
    total_bytes: int | None
    free_bytes: int | None
    problem: str | None

    @property
    def usable(self) -> bool:
        """Whether this version of the runtime can use it."""
        return self.provider in RUNS_ON


def devices(machine: Machine) -> tuple[Device, ...]:
    """Main memory first, then every card. Memory of several cards is never added up."""
    ram = machine.ram
    found = [Device("ram", "the CPU, in RAM", "cpu", ram.budget_bytes, ram.free_bytes, ram.problem)]
    for gpus in machine.gpus:
        if gpus.vendor == "nvidia":
            found += [_card(gpus.vendor, card) for card in gpus.cards]
    return tuple(found)


def _card(vendor: str, card: Card) -> Device:
    return Device(
        key=f"{vendor}:{card.index}",
        label=f"card {card.index}, {card.name or 'name unknown'}",
        provider="cuda",
        total_bytes=card.total_bytes,
        free_bytes=card.free_bytes,
        problem=card.problem,
    )
