"""NVIDIA cards: each for itself, with what is free on it, slices (MIG) told apart from whole cards.

Why there is no answer matters to a user, so each cause is told apart: the Python package, the library, the driver, a
permission, a card that is not passed into the container, one that sleeps, one that is lost. Free memory is what NVML
calls free, never the total. Reading starts no CUDA context and wakes no card that is powered down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sigrun_hwcheck.machine import Card, Gpus, GpuState, Surroundings
from sigrun_hwcheck.probe import nvml, pci, tree, visible
from sigrun_hwcheck.probe.nvml import call, text, words

VENDOR = "nvidia"

# Cards that work in main memory, by the names that NVML gives them.
INTEGRATED = re.compile(r"\(nvgpu\)$|\b(GB10|Tegra|Jetson|Orin|Xavier|Thor)\b")

ASLEEP = "powered down; it was not woken to ask for its memory"
WSL_NOTE = (
    "Windows programs that hold this memory do not show here: see Task Manager > Performance > GPU in Windows"
)


def read(
    binding: Callable[[], Any] = nvml.load_binding,
    root: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
    surroundings: Surroundings = "native",
    open_library: Callable[[str], Any] = nvml.open_library,
) -> Gpus:
    """Every NVIDIA card, or why there is none.

    Args:
        binding: answers the module ``pynvml``.
        root: the folder that holds ``proc``, ``sys`` and ``etc``; ``/`` but for tests.
        environ: environment variables; none if not given.
        surroundings: whether this is a container or WSL.
        open_library: loads a shared library by its path.
    """
    slots = pci.cards(root, pci.NVIDIA)
    if slots and all(slot.asleep for slot in slots):
        sleeping = tuple(_sleeping(root, i, slot) for i, slot in enumerate(slots))
        return Gpus(VENDOR, "asleep", None, None, sleeping)
    try:
        module = binding()
    except ImportError:
        return _none("no_binding", "not asked: nvidia-ml-py is not installed (pip install 'sigrun[hwcheck]')")
    failed = nvml.start(module, root, open_library)
    if failed is not None:
        return _without_library(*failed, root, slots, surroundings)
    try:
        return _cards(module, root, slots, environ or {}, surroundings)
    finally:
        nvml.code(module, "nvmlShutdown")


def _without_library(
    state: GpuState, detail: str, root: Path, slots: list[pci.Slot], surroundings: Surroundings
) -> Gpus:
    if state in ("no_library", "no_driver"):
        board = jetson(root)
        if board is not None:  # JetPack before 6 has no NVML
            return Gpus(VENDOR, "ok", f"{detail}; known from the board's description", None, (board,))
        if slots and surroundings == "container":
            card = "an NVIDIA card is" if len(slots) == 1 else f"{len(slots)} NVIDIA cards are"
            return _none(
                "not_passed_in",
                f"{card} in this machine, but not passed into this container (docker run --gpus all)",
            )
        if slots and state == "no_library":
            names = " and ".join(
                sorted({pci.name(root, s.vendor, s.device) or "an NVIDIA card" for s in slots})
            )
            return _none(state, f"{names}: in this machine, but NVIDIA's driver is not installed")
    return _none(state, detail)


def jetson(root: Path) -> Card | None:
    """The integrated card of a Jetson, by the board's own description."""
    model = tree.text(root / "proc/device-tree/model") or ""
    if "jetson" not in model.lower() and tree.text(root / "etc/nv_tegra_release") is None:
        return None
    return Card(0, model or "NVIDIA Tegra", None, None, None, None, kind="integrated", memory="unified")


def _cards(
    module: Any, root: Path, slots: list[pci.Slot], environ: Mapping[str, str], surroundings: Surroundings
) -> Gpus:
    driver = text(call(module, "nvmlSystemGetDriverVersion")[0])
    count, error = call(module, "nvmlDeviceGetCount")
    if error is not None:
        state, detail = nvml.why(error)
        return Gpus(VENDOR, state, detail, driver, ())
    if any(slot.asleep for slot in slots):  # handles by number would wake them all
        found = [
            (_sleeping(root, i, slot), None)
            if slot.asleep
            else _card(module, i, call(module, "nvmlDeviceGetHandleByPciBusId", slot.address), root)
            for i, slot in enumerate(slots)
        ]
    else:
        found = [_card(module, i, call(module, "nvmlDeviceGetHandleByIndex", i), root) for i in range(count)]
    if not found:
        return Gpus(VENDOR, "no_devices", "the NVIDIA driver runs, but it sees no card", driver, ())
    cards, note = _shown(module, found, visible.read(environ, len(found)))
    if surroundings == "wsl2":
        note = WSL_NOTE if note is None else f"{note}; {WSL_NOTE}"
    return Gpus(VENDOR, "ok", note, driver, cards)


def _sleeping(root: Path, index: int, slot: pci.Slot) -> Card:
    name = pci.name(root, slot.vendor, slot.device) or f"NVIDIA card {slot.device:04x}"
    return Card(index, name, None, None, None, None, ASLEEP, slot=slot.address)


def _card(module: Any, index: int, answer: tuple[Any, int | None], root: Path) -> tuple[Card, Any]:
    """The card as read, and its handle."""
    handle, error = answer
    if handle is None:
        return Card(index, None, None, None, None, None, words(error), kind="unknown"), None
    name = text(call(module, "nvmlDeviceGetName", handle)[0])
    capability = call(module, "nvmlDeviceGetCudaComputeCapability", handle)[0]
    pair = None if capability is None else (int(capability[0]), int(capability[1]))
    address = _address(call(module, "nvmlDeviceGetPciInfo", handle)[0])
    card = Card(index, name, None, None, None, pair, slot=address)
    mode = call(module, "nvmlDeviceGetMigMode", handle)[0]
    if mode is not None and mode[0] == 1:
        return replace(card, kind="divided", problem="cut into slices (MIG)"), handle
    return _with_memory(module, card, handle, jetson(root) is not None), handle


def _with_memory(module: Any, card: Card, handle: Any, on_jetson: bool = False) -> Card:
    """Memory by NVML's second interface, which keeps the driver's own share apart, else by its first.

    A card known to be integrated works in main memory, whatever NVML makes of that: what it calls free leaves out
    page cache that the system would give back. A card that is not known to be is unknown, and so is one that fails.
    """
    memory, error = None, None
    version = getattr(module, "nvmlMemory_v2", None)
    if version is not None:
        memory, error = call(module, "nvmlDeviceGetMemoryInfo", handle, version)
    if memory is None and error in (None, nvml.FUNCTION_NOT_FOUND, nvml.NOT_SUPPORTED, nvml.OTHER_VERSION):
        memory, error = call(module, "nvmlDeviceGetMemoryInfo", handle)
    if memory is not None or error == nvml.NOT_SUPPORTED:
        silent = memory is None or int(memory.total) == 0
        if INTEGRATED.search(card.name or "") or (on_jetson and silent):
            return replace(card, kind="integrated", memory="unified")
    if memory is None:
        return replace(card, problem=words(error))
    total, free, used = int(memory.total), int(memory.free), int(memory.used)
    if total == 0:
        return replace(card, problem="the driver tells no memory of its own for it")
    return replace(card, total_bytes=total, free_bytes=min(free, total), used_bytes=used)


def _shown(
    module: Any, found: list[tuple[Card, Any]], rule: visible.Visible
) -> tuple[tuple[Card, ...], str | None]:
    """Cards and their slices, those hidden from this process marked, and what must be said about all."""
    uuids = [None if handle is None else _uuid(module, handle) for _, handle in found]
    cards: list[Card] = []
    for place, (card, handle) in enumerate(found):
        shown = rule.card(place, uuids[place], uuids)
        if card.kind != "divided":
            cards.append(_marked(card, shown))
            continue
        slices = _slices(module, card, handle, rule, uuids[place], shown)
        if not slices:
            card = replace(card, problem="cut into slices (MIG), of which none can be used from here")
        cards += [card, *slices]
    alike = len({card.name for card, _ in found}) == 1
    if rule.numbers() and not rule.by_slot and not alike:
        return tuple(cards), (
            "CUDA_VISIBLE_DEVICES counts unlike cards in CUDA's own order: set CUDA_DEVICE_ORDER=PCI_BUS_ID to be sure"
        )
    return tuple(cards), None


def _slices(
    module: Any, card: Card, handle: Any, rule: visible.Visible, uuid: str | None, parent_shown: bool | None
) -> list[Card]:
    """The slices of a card; memory comes from each slice's own handle."""
    most, _ = call(module, "nvmlDeviceGetMaxMigDeviceCount", handle)
    slices: list[Card] = []
    for number in range(most or 0):
        part, error = call(module, "nvmlDeviceGetMigDeviceHandleByIndex", handle, number)
        if error == nvml.NOT_FOUND:
            continue
        name = card.name
        one = replace(card, kind="slice", slice=number, name=name, problem=words(error))
        if part is not None:
            one = replace(one, name=text(call(module, "nvmlDeviceGetName", part)[0]) or name)
            one = _with_memory(module, one, part)
            shown = rule.slice(_uuid(module, part), uuid) if rule.entries else rule.all()
            one = _marked(one, True if parent_shown else shown)
        slices.append(one)
    if not slices:  # a container may be given a slice without its card
        for number, entry in enumerate(e for e in rule.entries or () if e.startswith("MIG-")):
            part, _ = call(module, "nvmlDeviceGetHandleByUUID", entry)
            if part is not None:
                one = replace(card, kind="slice", slice=number, problem=None)
                one = replace(one, name=text(call(module, "nvmlDeviceGetName", part)[0]) or card.name)
                slices.append(_with_memory(module, one, part))
    return slices


def _marked(card: Card, shown: bool | None) -> Card:
    if shown:
        return card
    if shown is None:
        return replace(card, problem=card.problem or "whether CUDA_VISIBLE_DEVICES shows it cannot be told")
    return replace(card, hidden=visible.HIDDEN)


def _uuid(module: Any, handle: Any) -> str | None:
    """Compared with CUDA_VISIBLE_DEVICES, and not kept."""
    return text(call(module, "nvmlDeviceGetUUID", handle)[0])


def _address(info: Any) -> str | None:
    """NVML writes ``00000000:01:00.0`` where Linux writes ``0000:01:00.0``."""
    raw = text(getattr(info, "busId", None))
    return None if not raw else raw.lower()[-12:]


def _none(state: GpuState, detail: str) -> Gpus:
    return Gpus(VENDOR, state, detail, None, ())
