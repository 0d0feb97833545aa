"""A machine as text: what was read of it, in lines of at most 80 columns of plain ASCII."""

from __future__ import annotations

from collections.abc import Iterator

from sigrun_hwcheck.machine import Card, Cpu, Disk, Gpus, Machine, OnnxRuntime, Ram
from sigrun_hwcheck.table import wrapped
from sigrun_hwcheck.units import size

INDENT = 8

SURROUNDINGS = {
    "native": "",
    "container": ", in a container",
    "wsl1": ", in WSL 1 (no graphics card works here; WSL 2 has them)",
    "wsl2": ", in WSL 2",
}


def lines(machine: Machine) -> Iterator[str]:
    """The facts, one subject after another."""
    yield from _field(
        "System", f"{machine.system}, {machine.cpu.architecture}{SURROUNDINGS[machine.surroundings]}"
    )
    yield from _field("RAM", _ram(machine.ram))
    yield from _field("CPU", _cpu(machine.cpu))
    for gpus in machine.gpus:
        for i, line in enumerate(_gpus(gpus)):
            yield from _field(gpus.vendor.upper() if i == 0 else "", line)
    if machine.npus:
        names = ", ".join(npu.name for npu in machine.npus)
        yield from _field("NPU", f"{names} (listed only: Sigrun does not use it)")
    if machine.disks:
        yield from _field("Disk", "; ".join(_disk(disk) for disk in machine.disks))
    if machine.onnxruntime is not None:
        yield from _field("ORT", _onnxruntime(machine.onnxruntime))


def _field(name: str, value: str) -> Iterator[str]:
    yield from wrapped(value, first=f"{name:<{INDENT}}", rest=" " * INDENT)


def _ram(ram: Ram) -> str:
    parts = [f"{size(ram.total_bytes)}, {size(ram.available_bytes)} free"]
    if ram.limit_bytes is not None:
        left = "" if ram.limit_free_bytes is None else f", of which {size(ram.limit_free_bytes)} free"
        source = "" if ram.limit_source is None else f" ({ram.limit_source})"
        parts.append(f"this container may use {size(ram.limit_bytes)}{left}{source}")
    if ram.problem is not None:
        parts.append(ram.problem)
    return "; ".join(parts)


def _cpu(cpu: Cpu) -> str:
    parts = [cpu.name or "name unknown"]
    if cpu.physical_cores is not None:
        parts.append(_count(cpu.physical_cores, "core"))
    if cpu.usable_cpus is not None:
        parts.append(f"{_count(cpu.usable_cpus, 'thread')} usable")
    if cpu.quota_cpus is not None:
        parts.append(f"limited to {cpu.quota_cpus:g} at a time")
    unknown = [name for name, there in cpu.features.items() if there is None]
    sets = " ".join(cpu.present) or ("none known of" if unknown else "no vector extensions that matter")
    if unknown:
        sets += f" (not told: {' '.join(unknown)})"
    return f"{', '.join(parts)}; {sets}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _gpus(gpus: Gpus) -> Iterator[str]:
    for card in gpus.cards:
        yield _card(card)
    if gpus.detail is not None:
        yield gpus.detail
    elif not gpus.cards:
        yield "no card"


def _card(card: Card) -> str:
    number = f"{card.index}" if card.slice is None else f"{card.index}.{card.slice}"
    what = {"slice": "slice", "integrated": "integrated"}.get(card.kind, "card")
    parts = [f"{what} {number}: {card.name or 'name unknown'}"]
    if card.hidden is not None:
        parts.append(f"not for this process: {card.hidden}")
    elif card.kind == "divided":
        parts.append(card.problem or "cut into slices")
    else:
        parts.append(_memory(card))
    if card.compute_capability is not None:
        parts.append(f"compute {'.'.join(map(str, card.compute_capability))}")
    return ", ".join(parts)


def _memory(card: Card) -> str:
    if card.memory == "own":
        if card.total_bytes is None:
            return f"memory unknown: {card.problem or 'not told'}"
        if card.free_bytes is None:
            return f"{size(card.total_bytes)}, what is free is unknown: {card.problem or 'not told'}"
        return f"{size(card.total_bytes)}, {size(card.free_bytes)} free"
    guess = " (a guess)" if card.estimated and card.shared_total_bytes is not None else ""
    limit = (
        "" if card.shared_total_bytes is None else f", at most {size(card.shared_total_bytes)} of it{guess}"
    )
    own = "" if card.total_bytes is None else f"{size(card.total_bytes)} set aside, and "
    why = "" if card.problem is None else f": {card.problem}"
    return f"{own}works in main memory{limit}{why}"


def _disk(disk: Disk) -> str:
    if disk.free_bytes is None:
        return f"{disk.purpose}: free space unknown: {disk.problem or 'not told'}"
    return f"{size(disk.free_bytes)} free for {disk.purpose}"


def _onnxruntime(found: OnnxRuntime) -> str:
    if found.version is None:
        return found.problem or "not installed"
    words = {True: "loads", False: "does not load", None: "not tried"}
    each = ", ".join(
        f"{p.name} ({words[p.loads]}{f': {p.problem}' if p.problem else ''})" for p in found.providers
    )
    trouble = f"; {found.problem}" if found.problem else ""
    return f"ONNX Runtime {found.version}: {each}{trouble}"
