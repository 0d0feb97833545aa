"""Where a model could run: a device together with what runs it there, and whether that is installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sigrun.providers import CPU, PROVIDERS
from sigrun_hwcheck.card_code import of_card
from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.constants import Provider
from sigrun_hwcheck.devices import Device, card_key, devices
from sigrun_hwcheck.machine import Card, Machine
from sigrun_hwcheck.where import conditions

State = Literal["ready", "not installed", "does not load", "no code", "supposed"]
"""``no code``: its package cannot run on such a card. ``supposed``: of a machine that is made up, so that nothing is
installed, and could be."""

ON_CARDS: dict[str, dict[str, str]] = {
    "nvidia": {"Linux": "cuda", "Windows": "cuda"},
    "amd": {"Linux": "migraphx", "Windows": "directml"},
    "intel": {"Linux": "openvino", "Windows": "openvino"},
    "apple": {"Darwin": "mlx"},
    "qualcomm": {"Windows": "directml"},
}
"""Vendor and system → the provider that runs models on its cards."""

MEASURED_AS: Provider = "cuda"
"""Whose constants stand for every card. They are estimates even for NVIDIA's, and more so for others."""


@dataclass(frozen=True)
class Place:
    """A device, and what would run a model there.

    Attributes:
        device: where.
        provider: the runtime's name of what runs it there; ``None``: nothing is known that does.
        asked_as: what ``--provider`` calls it: ``cuda``, or ``cuda:1`` for the second card; ``None`` likewise.
        state: whether that is installed.
        problem: in words, why it is not to be used.
        where: the conditions there.
        forms: compute forms that the runtime tries there, best first.
    """

    device: Device
    provider: str | None
    asked_as: str | None
    state: State
    problem: str | None
    where: Conditions
    forms: tuple[str, ...]

    @property
    def key(self) -> str:
        """The device's key."""
        return self.device.key

    @property
    def costs(self) -> Provider:
        """Whose constants say what a model costs there."""
        return "cpu" if self.provider == CPU.name else MEASURED_AS

    @property
    def usable(self) -> bool:
        """Whether the runtime can use it as things are, or as they are supposed to be."""
        return self.state in ("ready", "supposed")

    @property
    def alike(self) -> bool:
        """Whether the constants were made for this kind of device."""
        return self.provider in (CPU.name, MEASURED_AS)


def places(machine: Machine, supposed: Sequence[str] = ()) -> tuple[Place, ...]:
    """Every place of a machine: main memory first, then its cards.

    Args:
        machine: the machine.
        supposed: keys of devices that are made up.
    """
    found = []
    ordinals: dict[str, int] = {}
    version = None if machine.onnxruntime is None else machine.onnxruntime.version
    for device in devices(machine):
        vendor = device.key.partition(":")[0]
        name = CPU.name if device.key == "ram" else ON_CARDS.get(vendor, {}).get(machine.system)
        ordinal = ordinals.get(vendor, 0)
        ordinals[vendor] = ordinal + 1
        state, problem = _state(machine, name, _card(machine, device), device.key in supposed)
        found.append(
            Place(
                device=device,
                provider=name,
                asked_as=name if name is None or not ordinal else f"{name}:{ordinal}",
                state=state,
                problem=problem,
                where=conditions(machine, device, version),
                forms=() if name is None else PROVIDERS[name].forms,
            )
        )
    return tuple(found)


def package(name: str) -> str:
    """What pip installs for a provider."""
    return "sigrun[gpu]" if name == "cuda" else PROVIDERS[name].package


def _card(machine: Machine, device: Device) -> Card | None:
    found = (c for gpus in machine.gpus for c in gpus.cards if card_key(gpus.vendor, c) == device.key)
    return next(found, None)


def _state(machine: Machine, name: str | None, card: Card | None, supposed: bool) -> tuple[State, str | None]:
    """Whether a provider is installed, and if not, what to do."""
    if name == CPU.name:
        return "ready", None  # whoever reads this has it, or is about to install it
    if name is None:
        return "not installed", "Sigrun has nothing to run models there"
    runtime = machine.onnxruntime
    here = {} if runtime is None else {p.name: p for p in runtime.providers}
    lacking = None if name != "cuda" or card is None else of_card(card, machine.cpu.architecture)
    # What was tried and loads, or is there for a board that pip has nothing for, is a build for it.
    built = (
        not supposed and name in here and (here[name].loads or (card is not None and card.memory != "own"))
    )
    if lacking is not None and not built:
        return "no code", lacking
    if supposed:
        return "supposed", None
    if name not in here:
        return "not installed", f"the runtime needs {name} for it: pip install '{package(name)}'"
    if here[name].loads is False:
        return "does not load", f"{name} does not load: {here[name].problem or 'it does not say why'}"
    return "ready", None


def preferred(found: Sequence[Place]) -> Place | None:
    """Where the runtime's ``provider="auto"`` would run a model; of a provider always the first device."""
    order = list(PROVIDERS)
    usable = [
        p
        for p in found
        if p.usable and p.provider is not None and p.provider == p.asked_as and PROVIDERS[p.provider].auto
    ]
    return min(usable, key=lambda p: order.index(p.provider or ""), default=None)
