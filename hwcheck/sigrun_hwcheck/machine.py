"""What a machine offers, as plain data: everything the verdicts need, and nothing that names its owner.

A :class:`Machine` is read by ``sigrun_hwcheck.probe`` or comes from a JSON file; the rest of the package
sees no difference. Unknown is ``None`` throughout, never 0. No serial numbers, UUIDs, host or user names
are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

FORMAT = 1

GpuState = Literal[
    "ok", "no_binding", "no_library", "no_driver", "no_permission", "no_devices", "not_supported", "error"
]
"""Why a vendor's cards are or are not known. ``no_binding``: the Python package that asks is missing;
``no_library``: the vendor's library is not on this system; ``no_driver``: the library is, its driver is not
running; ``error``: anything else, told in ``detail``."""


class MachineFileError(ValueError):
    """A machine description is not one; the message names the field."""


@dataclass(frozen=True)
class Ram:
    """Main memory.

    Attributes:
        total_bytes: of the whole system.
        available_bytes: what the system could give to a new process without swapping.
        limit_bytes: the least limit of the container (control group) this process is in, if any.
        limit_free_bytes: what that container may still take; page cache that can be dropped counts as free.
        limit_source: which kind of control group set the limit, for instance ``cgroup v2``.
        problem: in words, why a figure is unknown.
    """

    total_bytes: int | None
    available_bytes: int | None
    limit_bytes: int | None = None
    limit_free_bytes: int | None = None
    limit_source: str | None = None
    problem: str | None = None

    @property
    def budget_bytes(self) -> int | None:
        """What this process could have at most: the limit where there is one, else all memory."""
        known = [b for b in (self.limit_bytes, self.total_bytes) if b is not None]
        return min(known) if known else None

    @property
    def free_bytes(self) -> int | None:
        """What this process can have now. Unknown where a limit stands whose use is not known."""
        if self.limit_bytes is None:
            return self.available_bytes
        if self.limit_free_bytes is None:
            return None
        if self.available_bytes is None:
            return self.limit_free_bytes
        return min(self.available_bytes, self.limit_free_bytes)


@dataclass(frozen=True)
class Cpu:
    """The processor.

    Attributes:
        name: as the processor calls itself.
        architecture: ``x86_64``, ``arm64`` or what the system says.
        physical_cores: cores, hyper-threads not counted.
        usable_cpus: logical processors this process may run on.
        quota_cpus: processors' worth of time a container may use, if limited; may be a fraction.
        features: instruction set → present (``None``: this system does not say).
    """

    name: str | None
    architecture: str
    physical_cores: int | None
    usable_cpus: int | None
    quota_cpus: float | None
    features: Mapping[str, bool | None]

    @property
    def present(self) -> tuple[str, ...]:
        """Instruction sets known to be there."""
        return tuple(name for name, there in self.features.items() if there)


@dataclass(frozen=True)
class Card:
    """One graphics card. ``problem`` says in words why a figure is unknown."""

    index: int
    name: str | None
    total_bytes: int | None
    free_bytes: int | None
    used_bytes: int | None
    compute_capability: tuple[int, int] | None
    problem: str | None = None


@dataclass(frozen=True)
class Gpus:
    """What one vendor's library said. ``detail`` is one plain sentence where ``state`` is not ``ok``."""

    vendor: str
    state: GpuState
    detail: str | None
    driver: str | None
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Machine:
    """A machine; ``gpus`` has one entry a vendor that was asked."""

    system: str
    ram: Ram
    cpu: Cpu
    gpus: tuple[Gpus, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that :meth:`from_json` reads back."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Machine:
        """The inverse of :meth:`to_json`.

        Raises:
            MachineFileError: a field is missing, unknown or of a wrong type.
        """
        top = _Fields(data, "machine", {"format", "system", "ram", "cpu", "gpus"})
        if top.data["format"] != FORMAT:
            raise MachineFileError(f"format is {top.data['format']!r}; this version reads format {FORMAT}")
        gpus = tuple(_gpus(entry, i) for i, entry in enumerate(top.list("gpus")))
        return cls(top.text("system"), _ram(top), _cpu(top), gpus)


def _ram(top: _Fields) -> Ram:
    ram = _Fields(top.data["ram"], "ram", set(Ram.__dataclass_fields__))
    return Ram(
        total_bytes=ram.bytes("total_bytes"),
        available_bytes=ram.bytes("available_bytes"),
        limit_bytes=ram.bytes("limit_bytes"),
        limit_free_bytes=ram.bytes("limit_free_bytes"),
        limit_source=ram.maybe_text("limit_source"),
        problem=ram.maybe_text("problem"),
    )


def _cpu(top: _Fields) -> Cpu:
    cpu = _Fields(top.data["cpu"], "cpu", set(Cpu.__dataclass_fields__))
    features = cpu.data["features"]
    if not isinstance(features, dict) or not all(v is None or isinstance(v, bool) for v in features.values()):
        raise MachineFileError(f"cpu.features must map names to true, false or null, not {features!r}")
    quota = cpu.data["quota_cpus"]
    if quota is not None and (isinstance(quota, bool) or not isinstance(quota, int | float) or not quota > 0):
        raise MachineFileError(f"cpu.quota_cpus must be a number above 0 or null, not {quota!r}")
    return Cpu(
        name=cpu.maybe_text("name"),
        architecture=cpu.text("architecture"),
        physical_cores=cpu.bytes("physical_cores"),
        usable_cpus=cpu.bytes("usable_cpus"),
        quota_cpus=quota,
        features=features,
    )


def _gpus(data: object, index: int) -> Gpus:
    found = _Fields(data, f"gpus[{index}]", set(Gpus.__dataclass_fields__))
    state = found.data["state"]
    if state not in get_args(GpuState):
        raise MachineFileError(f"gpus[{index}].state is {state!r}; known: {', '.join(get_args(GpuState))}")
    cards = []
    for i, entry in enumerate(found.list("cards")):
        card = _Fields(entry, f"gpus[{index}].cards[{i}]", set(Card.__dataclass_fields__))
        number = card.bytes("index")
        if number is None:
            raise MachineFileError(f"gpus[{index}].cards[{i}].index must be a whole number")
        cards.append(
            Card(
                index=number,
                name=card.maybe_text("name"),
                total_bytes=card.bytes("total_bytes"),
                free_bytes=card.bytes("free_bytes"),
                used_bytes=card.bytes("used_bytes"),
                compute_capability=_capability(card.data["compute_capability"], card.where),
                problem=card.maybe_text("problem"),
            )
        )
    return Gpus(
        found.text("vendor"), state, found.maybe_text("detail"), found.maybe_text("driver"), tuple(cards)
    )


def _capability(value: object, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(v) is int and v >= 0 for v in value):
        return value[0], value[1]
    raise MachineFileError(f"{where}.compute_capability must be two whole numbers or null, not {value!r}")


class _Fields:
    """A table with exactly the fields ``known``; look-ups whose errors name the field."""

    def __init__(self, data: object, where: str, known: set[str]) -> None:
        if not isinstance(data, dict):
            raise MachineFileError(f"{where} must be an object, not {type(data).__name__}")
        for name in data:
            if name not in known:
                raise MachineFileError(f"{where} has no field '{name}'; known: {', '.join(sorted(known))}")
        for name in sorted(known - set(data)):
            raise MachineFileError(f"{where}: the field '{name}' is missing")
        self.data: dict[str, Any] = data
        self.where = where

    def text(self, name: str) -> str:
        value = self.data[name]
        if not isinstance(value, str):
            raise MachineFileError(f"{self.where}.{name} must be a string, not {value!r}")
        return value

    def maybe_text(self, name: str) -> str | None:
        return None if self.data[name] is None else self.text(name)

    def bytes(self, name: str) -> int | None:
        """A count or a number of bytes, or ``None``."""
        value = self.data[name]
        if value is not None and (type(value) is not int or value < 0):
            raise MachineFileError(f"{self.where}.{name} must be a whole number or null, not {value!r}")
        return value

    def list(self, name: str) -> list[Any]:
        value = self.data[name]
        if not isinstance(value, list | tuple):
            raise MachineFileError(f"{self.where}.{name} must be a list, not {value!r}")
        return list(value)
