"""A stand-in for NVIDIA's library below the real binding: an object with C-like functions in place of the library.

The binding (nvidia-ml-py) fills its own structures and gives references to them; the functions here write through
those. A function that is left out is missing from the library, as in an old driver.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pynvml

GIB = 1 << 30
FIND = {
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetHandleByPciBusId_v2",
    "nvmlDeviceGetHandleByUUID",
}
"""Functions that are not asked of a card."""


@dataclass
class Part:
    """A card, or with ``slices`` one that MIG has cut up. ``running`` maps processes to what they hold, ``fails``
    functions to NVML error numbers."""

    name: str = "NVIDIA GeForce RTX 3060"
    total: int = 12 * GIB
    free: int = 11 * GIB
    reserved: int = 0
    capability: tuple[int, int] = (8, 6)
    uuid: str = ""
    slot: str = ""
    slices: list[Part | None] = field(default_factory=list)
    running: dict[int, int] = field(default_factory=dict)
    fails: dict[str, int] = field(default_factory=dict)


@dataclass
class Library:
    """What the library answers. ``asked`` holds the places of the cards whose handle was asked for."""

    cards: list[Part] = field(default_factory=list)
    fails: dict[str, int] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    driver: str = "570.86.10"
    asked: list[int] = field(default_factory=list)
    shut: int = 0

    def __post_init__(self) -> None:
        self.parts: list[Part] = []
        for place, card in enumerate(self.cards):
            card.uuid = card.uuid or f"GPU-{place:08x}-1111-2222-3333-444444444444"
            card.slot = card.slot or f"00000000:{place + 1:02X}:00.0"
            self.parts += [card, *(s for s in card.slices if s is not None)]
            for number, part in enumerate(card.slices):
                if part is not None:
                    part.uuid = part.uuid or f"MIG-{place:08x}-{number:04x}-2222-3333-444444444444"

    def handle(self, reference: Any, part: Part) -> int:
        """Writes a handle: its number is the part's place, from 1."""
        number = ctypes.c_void_p(self.parts.index(part) + 1)
        ctypes.memmove(reference, ctypes.byref(number), ctypes.sizeof(number))
        return 0

    def part(self, handle: Any) -> Part:
        """The part behind a handle."""
        number = ctypes.cast(handle, ctypes.c_void_p).value
        assert number is not None
        return self.parts[number - 1]

    def functions(self) -> types.SimpleNamespace:
        """The library."""
        named = {
            name.removeprefix("c_"): self._failing(name.removeprefix("c_"), getattr(self, name))
            for name in dir(self)
            if name.startswith("c_nvml")
        }
        return types.SimpleNamespace(**{n: f for n, f in named.items() if n not in self.missing})

    def _failing(self, name: str, function: Callable[..., int]) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            if name in self.fails:
                return self.fails[name]
            about_card = name.startswith("nvmlDeviceGet") and name not in FIND
            if about_card:
                part = self.part(arguments[0])
                if name in part.fails:
                    return part.fails[name]
            return function(*arguments)

        return call

    def c_nvmlInitWithFlags(self, flags: int) -> int:  # noqa: N802 (named as NVML names them)
        return 0

    def c_nvmlShutdown(self) -> int:  # noqa: N802
        self.shut += 1
        return 0

    def c_nvmlSystemGetDriverVersion(self, buffer: Any, length: Any) -> int:  # noqa: N802
        buffer.value = self.driver.encode()
        return 0

    def c_nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.cards)
        return 0

    def c_nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        card = self.cards[index.value]
        self.asked.append(index.value)
        return card.fails.get("handle") or self.handle(handle, card)

    def c_nvmlDeviceGetHandleByPciBusId_v2(self, slot: Any, handle: Any) -> int:  # noqa: N802
        for place, card in enumerate(self.cards):
            if card.slot.lower()[-12:] == slot.value.decode().lower()[-12:]:
                self.asked.append(place)
                return card.fails.get("handle") or self.handle(handle, card)
        return pynvml.NVML_ERROR_NOT_FOUND

    def c_nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:  # noqa: N802
        for part in self.parts:
            if part.uuid == uuid.value.decode():
                return self.handle(handle, part)
        return pynvml.NVML_ERROR_NOT_FOUND

    def c_nvmlDeviceGetName(self, handle: Any, buffer: Any, length: Any) -> int:  # noqa: N802
        buffer.value = self.part(handle).name.encode()
        return 0

    def c_nvmlDeviceGetUUID(self, handle: Any, buffer: Any, length: Any) -> int:  # noqa: N802
        buffer.value = self.part(handle).uuid.encode()
        return 0

    def c_nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:  # noqa: N802
        major._obj.value, minor._obj.value = self.part(handle).capability
        return 0

    def c_nvmlDeviceGetPciInfo_v3(self, handle: Any, info: Any) -> int:  # noqa: N802
        info._obj.busId = self.part(handle).slot.encode()
        return 0

    def c_nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        part = self.part(handle)
        memory._obj.total, memory._obj.free = part.total, part.free
        memory._obj.used = part.total - part.free  # the driver's own share counted as used
        return 0

    def c_nvmlDeviceGetMemoryInfo_v2(self, handle: Any, memory: Any) -> int:  # noqa: N802
        part = self.part(handle)
        assert memory._obj.version == pynvml.nvmlMemory_v2
        memory._obj.total, memory._obj.free, memory._obj.reserved = part.total, part.free, part.reserved
        memory._obj.used = part.total - part.free - part.reserved
        return 0

    def c_nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, found: Any) -> int:  # noqa: N802
        running = self.part(handle).running
        if found is None:
            count._obj.value = len(running)
            return pynvml.NVML_ERROR_INSUFFICIENT_SIZE if running else 0
        for place, (process, nbytes) in enumerate(running.items()):
            found[place].pid, found[place].usedGpuMemory = process, nbytes
        count._obj.value = len(running)
        return 0

    def c_nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:  # noqa: N802
        current._obj.value = pending._obj.value = int(bool(self.part(handle).slices))
        return 0

    def c_nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.part(handle).slices)
        return 0

    def c_nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, part: Any) -> int:  # noqa: N802
        found = self.part(handle).slices[index.value]
        return pynvml.NVML_ERROR_NOT_FOUND if found is None else self.handle(part, found)


@contextmanager
def installed(library: Library | None) -> Iterator[None]:
    """Put a library in the binding's place for one; ``None``: there is none on this system."""

    def no_library(path: str) -> Any:
        raise OSError(path)

    kept = pynvml.nvmlLib, pynvml.CDLL, dict(pynvml._nvmlGetFunctionPointer_cache)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml.nvmlLib = None if library is None else library.functions()
    pynvml.CDLL = no_library
    try:
        yield
    finally:
        pynvml.nvmlLib, pynvml.CDLL, _ = kept
        pynvml._nvmlGetFunctionPointer_cache.clear()
