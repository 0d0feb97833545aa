"""What a machine offers, as plain data: everything the verdicts need, and nothing that names its owner.

A :class:`Machine` is read by ``sigrun_hwcheck.probe`` or comes from a JSON file; the rest of the package
sees no difference. Unknown is ``None`` throughout, never 0. No serial numbers, UUIDs, paths, host or user names
are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sigrun_hwcheck.fields import MachineFileError, build

__all__ = [
    "Card",
    "Cpu",
    "Disk",
    "ExecutionProvider",
    "GpuState",
    "Gpus",
    "Machine",
    "MachineFileError",
    "Npu",
    "OnnxRuntime",
    "Ram",
]

FORMAT = 2

GpuState = Literal[
    "ok",
    "no_binding",
    "no_library",
    "no_driver",
    "old_driver",
    "version_mismatch",
    "no_permission",
    "no_devices",
    "not_supported",
    "not_passed_in",
    "asleep",
    "error",
]
"""Why a vendor's cards are or are not known. ``no_binding``: the Python package that asks is missing;
``no_library``: the vendor's library is not on this system; ``no_driver``: the library is, its driver is not
running; ``old_driver``: the driver lacks what is asked for; ``version_mismatch``: driver and library do not belong
together; ``not_passed_in``: the card is in the machine, and this container may not use it; ``asleep``: every card
is powered down, and was not woken; ``error``: anything else, told in ``detail``."""

CardKind = Literal["discrete", "integrated", "slice", "divided", "unknown"]
"""``slice``: a part of a card with memory of its own (MIG); ``divided``: a card that is cut into slices, so that
nothing can be put on the whole of it; ``unknown``: whether it has a memory of its own cannot be told."""

CardMemory = Literal["own", "unified", "shared"]
"""``own``: on the card; ``unified``: the card works in main memory (Jetson, GB10, Apple); ``shared``: it has a small
part of main memory set aside and borrows the rest (APU, integrated graphics)."""

Surroundings = Literal["native", "container", "wsl1", "wsl2"]


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
    """One graphics card, or a slice of one.

    Attributes:
        index: its place among the vendor's cards, in the order of the slots; a slice bears its card's.
        name: as the vendor calls it.
        total_bytes: memory of its own; of an integrated one, what is set aside for it.
        free_bytes: of that, free now.
        used_bytes: of that, used.
        compute_capability: CUDA's, of NVIDIA cards.
        problem: in words, why a figure is unknown.
        kind: what it is.
        memory: whose memory it works in.
        shared_total_bytes: what it may take of main memory at most, where the system sets a limit.
        shared_free_bytes: of that, not taken yet.
        slice: number of the slice.
        slot: address on the PCI bus.
        hidden: in words, why this process may not use it; ``None``: it may.
        estimated: whether a figure is a rule of thumb instead of a reading.
    """

    index: int
    name: str | None
    total_bytes: int | None
    free_bytes: int | None
    used_bytes: int | None
    compute_capability: tuple[int, int] | None
    problem: str | None = None
    kind: CardKind = "discrete"
    memory: CardMemory = "own"
    shared_total_bytes: int | None = None
    shared_free_bytes: int | None = None
    slice: int | None = None
    slot: str | None = None
    hidden: str | None = None
    estimated: bool = False


@dataclass(frozen=True)
class Gpus:
    """What is known of one vendor's cards. ``detail`` is one plain sentence: why there are none, or a caveat."""

    vendor: str
    state: GpuState
    detail: str | None
    driver: str | None
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Npu:
    """A processor for neural networks; Sigrun lists it and does not use it."""

    name: str
    driver: str | None


@dataclass(frozen=True)
class Disk:
    """Room in a folder. ``purpose``: ``output`` for exported files, ``cache`` for prepared weights."""

    purpose: Literal["output", "cache"]
    total_bytes: int | None
    free_bytes: int | None
    problem: str | None = None


@dataclass(frozen=True)
class ExecutionProvider:
    """One of ONNX Runtime's providers. ``loads``: ``None`` if it was not tried; ``problem``: why it does not."""

    name: str
    loads: bool | None
    problem: str | None = None


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime as installed.

    Attributes:
        version: of the package; ``None`` if there is none.
        packages: which of its packages are installed.
        providers: what it runs on, best first; empty if it was not asked.
        problem: in words, what is wrong with the installation.
    """

    version: str | None
    packages: tuple[str, ...]
    providers: tuple[ExecutionProvider, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        system: ``Linux``, ``Windows``, ``Darwin`` or what Python calls it.
        ram: main memory.
        cpu: the processor.
        gpus: NVIDIA's entry (none on a Mac), and one for every other vendor of which there is something to say.
        surroundings: whether this process runs in a container or in Windows' Linux.
        npus: processors for neural networks.
        disks: room for files.
        onnxruntime: ``None`` if nobody looked.
    """

    system: str
    ram: Ram
    cpu: Cpu
    gpus: tuple[Gpus, ...]
    surroundings: Surroundings = "native"
    npus: tuple[Npu, ...] = ()
    disks: tuple[Disk, ...] = ()
    onnxruntime: OnnxRuntime | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that :meth:`from_json` reads back."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: object) -> Machine:
        """The inverse of :meth:`to_json`.

        Raises:
            MachineFileError: a field is missing, unknown or of a wrong type.
        """
        if isinstance(data, Mapping) and data.get("format", FORMAT) != FORMAT:
            raise MachineFileError(f"format is {data['format']!r}; this version reads format {FORMAT}")
        return build(cls, data, "machine", {"format"})
