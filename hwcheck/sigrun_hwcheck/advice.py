"""What to do next: a sentence, what else to know, and one command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sigrun_hwcheck.memory import Compute, TowerChoice
from sigrun_hwcheck.places import Place, package
from sigrun_hwcheck.rows import Row
from sigrun_hwcheck.stored import Form
from sigrun_hwcheck.units import size
from sigrun_hwcheck.verdict import Verdict, works
from sigrun_hwcheck.wording import TERMS, pace

PREFERRED = "q4_k_m"
"""The variant to take where it fits: the smallest whose accuracy its recipe's gate holds close to fp32."""

WORDS: dict[TowerChoice, str] = {
    "both": "both towers fit",
    "image": "the image tower fits",
    "text": "the text tower fits",
}


@dataclass(frozen=True)
class Advice:
    """What to take.

    Attributes:
        variant: which; ``None``: nothing fits, or it cannot be told.
        path: the file, if there is one.
        tower: which tower, or both.
        compute: the compute form.
        provider: as ``--provider`` takes it.
        device: the device's key.
        sentence: all that in words.
        notes: what else to know, a sentence each.
        command: to run next.
    """

    variant: str | None
    path: str | None
    tower: TowerChoice | None
    compute: Form | None
    provider: str | None
    device: str | None
    sentence: str
    notes: tuple[str, ...]
    command: str | None


def advise(
    table: Sequence[Row],
    batches: Sequence[int],
    *,
    auto: Place | None,
    compute: Compute = "auto",
    others: Sequence[Row] = (),
    limited: bool = False,
    barred: Sequence[Place] = (),
) -> Advice:
    """The advice on a table.

    Both towers come before one. Variants that are larger than the preferred one come last; among the others comfort
    comes before tightness, then the place that the runtime takes by itself, the preferred variant, the least memory.

    Args:
        table: rows of places that are to be judged.
        batches: judged at these.
        auto: the place that the runtime takes by itself.
        compute: the compute form that was asked for.
        others: rows of other compute forms, to look for a way out where not all fits.
        limited: a container bounds main memory.
        barred: places that cannot run anything, where there are no others to be judged.
    """
    if barred:
        nothing = "; ".join(f"nothing runs on {place.device.label}: {place.problem}" for place in barred)
        sentence = f"{nothing[0].upper()}{nothing[1:]}. It would have to be built for such a card."
        note = "--ram SIZE answers for the CPU beside it."
        return Advice(None, None, None, None, None, None, sentence, (note,), None)
    judged = [(row, row.verdict(batches)) for row in table]
    for tower in WORDS:
        fitting = [(row, verdict) for row, verdict in judged if row.tower == tower and works(verdict)]
        if not fitting:
            continue
        most = max((r.disk_bytes for r, _ in fitting if r.stored.variant == PREFERRED), default=None)
        row, verdict = min(fitting, key=lambda entry: _rank(entry[0], entry[1], auto, most))
        alone = tower != "both" and any(r.tower == "both" and r.stored is row.stored for r, _ in judged)
        return Advice(
            row.stored.variant,
            row.stored.path,
            tower,
            row.compute,
            row.place.asked_as,
            row.place.key,
            _sentence(row, verdict, alone, batches, _image_row(row, table)),
            (*(_another_form(others, ("both",)) if alone else ()), *_to_install(row.place)),
            _command(row, auto, compute),
        )
    sentence, notes = _refusal(judged, others, limited)
    return Advice(None, None, None, None, None, None, sentence, notes, None)


def _rank(
    row: Row, verdict: Verdict, auto: Place | None, most_bytes: int | None
) -> tuple[bool, bool, bool, bool, bool, int]:
    return (
        most_bytes is not None and row.disk_bytes > most_bytes,
        verdict != "fits",
        row.place is not auto,
        row.place.key == "ram",
        row.stored.variant != PREFERRED,
        row.batches[0].need.bytes.best_bytes,
    )


def _image_row(row: Row, table: Sequence[Row]) -> Row:
    """The row whose speed says most of a row for both towers: that of its image tower."""
    if row.tower != "both":
        return row
    alike = (r for r in table if r.stored is row.stored and r.place is row.place and r.tower == "image")
    return next(alike, row)


def _sentence(row: Row, verdict: Verdict, alone: bool, batches: Sequence[int], timed: Row) -> str:
    counts = " and ".join(str(batch) for batch in sorted(set(batches)))
    where = f"on {row.place.device.label} ({row.place.asked_as})" if row.place.key != "ram" else "on the CPU"
    at = "at every batch" if row.every_batch else f"at batch {counts}"
    how = ", tightly: close other programs first" if verdict == "tight" else ""
    speed = "" if timed.speed is None else f"; {pace(timed.speed, timed.tower)}"
    but = " Both towers together do not: use one at a time." if alone else ""
    return (
        f"Take {row.stored.variant} in form {row.compute} {where}: {WORDS[row.tower]} {at}{how}{speed}.{but}"
    )


def _refusal(
    judged: Sequence[tuple[Row, Verdict]], others: Sequence[Row], limited: bool
) -> tuple[str, tuple[str, ...]]:
    if not judged:
        return "There is nothing to check: no file has what was asked for.", ()
    unknown = [row for row, verdict in judged if verdict == "unknown"]
    if unknown:
        device = unknown[0].place.device
        option = "--ram" if device.key == "ram" else "--vram"
        why = device.problem or "what is free there is not known"
        return (
            f"Whether it fits {device.label} cannot be told: {why}.",
            (f"{option} SIZE answers as if it had so much.",),
        )
    least = min((row for row, _ in judged), key=lambda row: row.batches[0].need.bytes.best_bytes)
    need = least.batches[0].need
    free = least.place.device.free_bytes or 0
    missing = need.bytes.best_bytes - free
    notes = [f"Most of it: {TERMS[need.limiting.name]}, {size(need.limiting.bytes.best_bytes)}."]
    notes += _another_form(others, tuple(WORDS))
    if missing > 0:
        raised = ", or raise the container's limit" if limited and least.place.device.shares_ram else ""
        sentence = (
            f"Nothing fits {least.place.device.label}: the least, the {least.tower} tower of "
            f"{least.stored.variant} in form {least.compute}, needs {size(need.bytes.best_bytes)}, and "
            f"{size(free)} is free. Free {size(missing)} more{raised}."
        )
    else:
        sentence = (
            f"Not at this batch: the {least.tower} tower of {least.stored.variant} fits "
            f"{least.place.device.label} at batch {least.largest_batch}."
        )
    return sentence, tuple(notes)


def _another_form(others: Sequence[Row], towers: Sequence[TowerChoice]) -> tuple[str, ...]:
    """Which compute form would do where the usual one does not."""
    found = [row for row in others if row.tower in towers and works(row.batches[0].verdict)]
    if not found:
        return ()
    row = min(
        found,
        key=lambda r: (
            towers.index(r.tower),
            r.stored.variant != PREFERRED,
            r.batches[0].need.bytes.best_bytes,
        ),
    )
    where = "" if row.place.key == "ram" else f" on {row.place.device.label}"
    how = "tightly, " if row.batches[0].verdict == "tight" else ""
    return (
        f"In form {row.compute} {WORDS[row.tower]}{where} with {row.stored.variant}, {how}in "
        f"{size(row.batches[0].need.bytes.best_bytes)}: --compute {row.compute}.",
    )


def _to_install(place: Place) -> tuple[str, ...]:
    """What a machine that is supposed would have to have installed."""
    if place.state != "supposed" or place.costs == "cpu" or place.provider is None:
        return ()
    return (f"There the runtime needs {place.provider}: pip install '{package(place.provider)}'.",)


def _command(row: Row, auto: Place | None, compute: Compute) -> str:
    stored = row.stored
    if stored.path is None:
        return f"sigrun-export convert {stored.model} --variant {stored.variant} -o models"
    file = shlex.quote(stored.path)
    options = "" if compute == "auto" else f" --compute {compute}"
    if row.place is not auto and row.place.asked_as is not None:
        options += f" --provider {row.place.asked_as}"
    if row.tower == "text":
        return f'sigrun embed {file} --text "a photo of a cat"{options}'
    if row.tower == "image":
        return f"sigrun embed {file} photo.jpg{options}"
    return f'sigrun classify {file} photo.jpg --label "a cat" --label "a dog"{options}'
