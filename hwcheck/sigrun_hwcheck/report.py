"""A report as text for people, at most 80 columns wide, and as JSON for programs. Plain ASCII, no colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from sigrun_hwcheck.api import Report
from sigrun_hwcheck.constants import Range, constants
from sigrun_hwcheck.devices import Device
from sigrun_hwcheck.machine import Cpu, Gpus, Machine, Ram
from sigrun_hwcheck.rows import Row
from sigrun_hwcheck.stored import Stored
from sigrun_hwcheck.units import size

FORMAT = 1
WIDTH = 80
BATCHES_ABREAST = 3


def text(report: Report) -> str:
    """The whole report, ending in a newline."""
    parts = [
        [*_machine(report.machine)],
        [*_subjects(report.variants)],
        *([*_table(report, device)] for device in report.devices),
        [*_notes(report)],
        [*_advice(report)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _machine(machine: Machine) -> Iterator[str]:
    yield from _field("System", f"{machine.system}, {machine.cpu.architecture}")
    yield from _field("RAM", _ram(machine.ram))
    yield from _field("CPU", _cpu(machine.cpu))
    for gpus in machine.gpus:
        name = gpus.vendor.upper()
        lines = list(_gpus(gpus))
        yield from _field(name, lines[0])
        for line in lines[1:]:
            yield from _field("", line)


def _field(name: str, value: str) -> Iterator[str]:
    yield from textwrap.wrap(value, WIDTH, initial_indent=f"{name:<8}", subsequent_indent=" " * 8)


def _ram(ram: Ram) -> str:
    parts = [f"{size(ram.total_bytes)}, {size(ram.available_bytes)} free"]
    if ram.limit_bytes is not None:
        left = "" if ram.limit_free_bytes is None else f", of which {size(ram.limit_free_bytes)} free"
        parts.append(f"this container may use {size(ram.limit_bytes)}{left} ({ram.limit_source})")
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
    if not gpus.cards:
        yield gpus.detail or "no card"
        return
    for card in gpus.cards:
        memory = f"{size(card.total_bytes)}, {size(card.free_bytes)} free"
        if card.problem is not None:
            memory = f"memory unknown: {card.problem}"
        capability = (
            ""
            if card.compute_capability is None
            else f", compute {'.'.join(map(str, card.compute_capability))}"
        )
        yield f"card {card.index}: {card.name or 'name unknown'}, {memory}{capability}"


def _subjects(variants: Sequence[Stored]) -> Iterator[str]:
    for i, stored in enumerate(variants):
        if stored.path is None:
            yield from textwrap.wrap(
                f"{stored.model}, not exported yet: sizes follow from the recipes", WIDTH
            )
            return
        number = f"[{i + 1}] " if len(variants) > 1 else ""
        yield f"{number}{_shortened(stored.path, WIDTH - len(number))}"
        yield from textwrap.wrap(
            f"{stored.model}, {stored.variant}, {size(stored.file_bytes)}",
            WIDTH,
            initial_indent="    ",
            subsequent_indent="    ",
        )


def _shortened(path: str, width: int) -> str:
    """The path, or as much of its end as there is room for."""
    if len(path) <= width:
        return path
    return (
        f"...{path[3 - width :]}"
        if len(Path(path).name) > width - 4
        else f".../{path[4 - width :].partition('/')[2]}"
    )


def _table(report: Report, device: Device) -> Iterator[str]:
    of_device = [row for row in report.rows if row.device is device]
    yield from textwrap.wrap(_heading(device), WIDTH)
    sizes = [b.need.batch for b in of_device[0].batches] if of_device else []
    for start in range(0, len(sizes), BATCHES_ABREAST):
        if start:
            yield ""
        yield from _part(report.variants, of_device, sizes[start : start + BATCHES_ABREAST])


def _heading(device: Device) -> str:
    free = "free memory unknown" if device.free_bytes is None else f"{size(device.free_bytes)} free"
    later = "" if device.usable else " (a look ahead: this version runs on the CPU only)"
    why = "" if device.problem is None else f": {device.problem}"
    return f"On {device.label}, {free}{why}{later}"


def _part(variants: Sequence[Stored], table: Sequence[Row], batches: Sequence[int]) -> Iterator[str]:
    wide = max([7, *(len(_label(variants, row.stored)) for row in table)])
    head = f"{'variant':<{wide}}  tower  {'on disk':>9}"
    needs = "".join(f"  {f'batch {b}':>9}" for b in batches)
    yield f"{'':<{len(head)}}  needs, with"
    yield f"{head}{needs}  verdict"
    for _, group in groupby(table, key=lambda row: id(row.stored)):
        for i, row in enumerate(group):
            label = _label(variants, row.stored) if i == 0 else ""
            shown = [b for b in row.batches if b.need.batch in batches]
            cells = "".join(f"  {size(b.need.bytes.best_bytes):>9}" for b in shown)
            line = f"{label:<{wide}}  {row.tower:<5}  {size(row.disk_bytes):>9}{cells}"
            words = _verdict(row, batches)
            room = WIDTH - len(line) - 2
            if len(words) <= room:
                yield f"{line}  {words}"
            else:
                first, _, rest = words.partition("; ")
                yield f"{line}  {first}"
                yield from (f"{'':<{len(line)}}  {part}" for part in rest.split("; "))


def _label(variants: Sequence[Stored], stored: Stored) -> str:
    """A variant's name in the table, with its number where there are several files."""
    if stored.path is None or len(variants) == 1:
        return stored.variant
    return f"[{_place(variants, stored) + 1}] {stored.variant}"


def _place(variants: Sequence[Stored], stored: Stored) -> int:
    """Where a variant stands in the list; the same file may have been given twice."""
    return next(i for i, other in enumerate(variants) if other is stored)


def _verdict(row: Row, batches: Sequence[int]) -> str:
    """One word for all, or the first and where it changes: ``fits; 8: tight``."""
    words: list[str] = []
    last = ""
    for b in row.batches:
        if b.need.batch in batches and b.verdict != last:
            words.append(f"{b.need.batch}: {b.verdict}" if words else b.verdict)
            last = b.verdict
    return "; ".join(words)


def _notes(report: Report) -> Iterator[str]:
    if not report.rows:
        return
    known = constants("cpu")
    shares = [
        b.need.bytes.high_bytes / b.need.bytes.best_bytes
        for row in report.rows
        for b in row.batches
        if row.device.usable
    ]
    cards = "" if all(d.usable for d in report.devices) else " Figures for cards are rough estimates."
    more = f"{100 * (max(shares) - 1):.0f} %"
    yield from textwrap.wrap(
        f"Needs are best guesses. A row fits only if the high end, up to {more} more, would fit too. "
        f"Weights follow from their bytes, activations are {known.activations.source} ({known.label}). Large "
        f"batches run in parts of {known.micro_batch_tokens} tokens.{cards}",
        WIDTH,
    )


def _advice(report: Report) -> Iterator[str]:
    yield from textwrap.wrap(report.advice.sentence, WIDTH)
    if report.advice.command is not None:
        yield f"  {report.advice.command}"


def to_json(report: Report, exit_code: int) -> dict[str, Any]:
    """The report as a plain dictionary; ``null`` is unknown, sizes are bytes."""
    return {
        "format": FORMAT,
        "machine": report.machine.to_json(),
        "devices": [{**asdict(device), "usable": device.usable} for device in report.devices],
        "variants": [_stored(stored) for stored in report.variants],
        "rows": [_row(report, row) for row in report.rows],
        "question": report.question,
        "judged_batches": list(report.judged_batches),
        "outcome": report.outcome,
        "exit_code": exit_code,
        "advice": asdict(report.advice),
    }


def _stored(stored: Stored) -> dict[str, Any]:
    return {
        "model": stored.model,
        "variant": stored.variant,
        "origin": stored.origin,
        "path": stored.path,
        "file_bytes": stored.file_bytes,
        "tower_bytes": {tower: stored.nbytes(tower) for tower in stored.towers},
    }


def _row(report: Report, row: Row) -> dict[str, Any]:
    return {
        "variant": _place(report.variants, row.stored),
        "device": row.device.key,
        "tower": row.tower,
        "disk_bytes": row.disk_bytes,
        "batches": [
            {
                "batch": b.need.batch,
                "verdict": b.verdict,
                "need": asdict(b.need.bytes),
                "phases": [
                    {
                        "name": phase.name,
                        "need": asdict(phase.bytes),
                        "terms": [_term(t.name, t.bytes, t.source, t.reclaimable) for t in phase.terms],
                    }
                    for phase in b.need.phases
                ],
            }
            for b in row.batches
        ],
    }


def _term(name: str, nbytes: Range, source: str, reclaimable: bool) -> dict[str, Any]:
    return {"name": name, **asdict(nbytes), "source": source, "reclaimable": reclaimable}
