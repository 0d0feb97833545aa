"""A report as JSON for programs: ``report.schema.json`` describes it. Sizes are bytes, ``null`` is unknown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sigrun_hwcheck.api import Report
from sigrun_hwcheck.constants import Range
from sigrun_hwcheck.places import Place
from sigrun_hwcheck.rows import Row
from sigrun_hwcheck.speed import Speed
from sigrun_hwcheck.stored import Stored
from sigrun_hwcheck.tables import position

FORMAT = 2


def to_json(report: Report, exit_code: int) -> dict[str, Any]:
    """The report as a plain dictionary."""
    return {
        "format": FORMAT,
        "supposed": {"summary": report.supposed.summary, "devices": list(report.supposed.keys)}
        if report.supposed.summary
        else None,
        "machine": report.machine.to_json(),
        "devices": [_device(report, place) for place in report.places],
        "variants": [_stored(stored) for stored in report.variants],
        "rows": [_row(report, row) for row in report.rows],
        "question": report.question,
        "judged_batches": list(report.judged_batches),
        "judged_devices": list(report.judged),
        "outcome": report.outcome,
        "exit_code": exit_code,
        "advice": {**asdict(report.advice), "notes": list(report.advice.notes)},
    }


def _device(report: Report, place: Place) -> dict[str, Any]:
    device = place.device
    return {
        "key": device.key,
        "label": device.label,
        "total_bytes": device.total_bytes,
        "free_bytes": device.free_bytes,
        "shares_ram": device.shares_ram,
        "estimated": device.estimated,
        "provider": place.provider,
        "asked_as": place.asked_as,
        "state": place.state,
        "usable": place.usable,
        "auto": place is report.auto,
        "problem": device.problem or place.problem,
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
        "variant": position(report.variants, row.stored),
        "device": row.place.key,
        "tower": row.tower,
        "compute": row.compute,
        "disk_bytes": row.disk_bytes,
        "reserve_bytes": row.reserve_bytes,
        "micro_batch": row.micro_batch,
        "largest_batch": "any" if row.every_batch else row.largest_batch,
        "items_per_s": None if row.speed is None else _speed(row.speed),
        "batches": [
            {
                "batch": one.need.batch,
                "verdict": one.verdict,
                "need": asdict(one.need.bytes),
                "source": one.need.source,
                "limiting": one.need.limiting.name,
                "phases": [
                    {
                        "name": phase.name,
                        "need": asdict(phase.bytes),
                        "terms": [_term(t.name, t.bytes, t.source, t.reclaimable) for t in phase.terms],
                    }
                    for phase in one.need.phases
                ],
            }
            for one in row.batches
        ],
    }


def _speed(speed: Speed) -> dict[str, Any]:
    low, best, high = speed.items_per_s
    return {"low": low, "best": best, "high": high, "source": speed.source, "basis": speed.basis}


def _term(name: str, nbytes: Range, source: str, reclaimable: bool) -> dict[str, Any]:
    return {"name": name, **asdict(nbytes), "source": source, "reclaimable": reclaimable}
