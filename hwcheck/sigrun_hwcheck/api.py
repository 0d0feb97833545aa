"""The check itself, without printing: for desktop apps, scripts and the command line alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sigrun_hwcheck.advice import Advice, advise
from sigrun_hwcheck.devices import Device, devices
from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.memory import TOWER_CHOICES, TowerChoice
from sigrun_hwcheck.probe import read_machine
from sigrun_hwcheck.rows import Row, rows
from sigrun_hwcheck.stored import Stored, from_file, from_plan
from sigrun_hwcheck.verdict import Verdict, best, worst
from sigrun_recipes import default_model, load, names, plan

DEFAULT_BATCHES = (1, 8)

Question = Literal["any", "all"]
"""``any``: does some variant fit (asked without files)? ``all``: does every given file fit?"""


@dataclass(frozen=True)
class Report:
    """The answer.

    Attributes:
        machine: what the verdicts are about.
        devices: what could hold a model.
        variants: what was checked.
        rows: device × variant × tower.
        question: what the outcome answers.
        judged_batches: the batch sizes that the outcome and the advice are about.
        outcome: the answer; see :func:`check`.
        advice: what to do next.
    """

    machine: Machine
    devices: tuple[Device, ...]
    variants: tuple[Stored, ...]
    rows: tuple[Row, ...]
    question: Question
    judged_batches: tuple[int, ...]
    outcome: Verdict
    advice: Advice


def check(
    files: Sequence[str | Path] = (),
    *,
    batches: Sequence[int] = (),
    tower: TowerChoice | None = None,
    machine: Machine | None = None,
) -> Report:
    """Predict what fits.

    With files, the outcome is about all of them; without, about the recipes of the default model, of which
    one that fits is enough. It is judged on the device that the runtime uses (the CPU), at every batch size
    given, or at 1 if none is given; with both towers loaded, or the one asked for, or the one a file has.

    Args:
        files: exported ``.gguf`` files; none: every recipe of the default model.
        batches: batch sizes to show; none: 1 and 8.
        tower: the tower to look at; ``None``: each, and both together.
        machine: a machine to judge for; ``None``: this one.

    Raises:
        StoredFileError: a file is missing, unreadable, damaged or foreign.
        ValueError: a batch is below 1.
    """
    if any(b < 1 for b in batches):
        raise ValueError(f"a batch has at least one input, not {min(batches)}")
    variants = tuple(from_file(str(f)) for f in files) if files else predicted()
    machine = read_machine() if machine is None else machine
    places = devices(machine)
    table = rows(variants, TOWER_CHOICES if tower is None else (tower,), places, batches or DEFAULT_BATCHES)
    judged = tuple(sorted(set(batches))) or (1,)
    question: Question = "all" if files else "any"
    return Report(
        machine=machine,
        devices=places,
        variants=variants,
        rows=table,
        question=question,
        judged_batches=judged,
        outcome=_outcome(variants, table, question, judged, tower),
        advice=advise(table, judged),
    )


def predicted() -> tuple[Stored, ...]:
    """Every recipe that comes with Sigrun, applied to the default model."""
    model = default_model()
    return tuple(from_plan(model.repo, plan(load(name), model.architecture)) for name in names())


def _outcome(
    variants: Sequence[Stored],
    table: Sequence[Row],
    question: Question,
    batches: Sequence[int],
    tower: TowerChoice | None,
) -> Verdict:
    verdicts = []
    for stored in variants:
        whole: TowerChoice = tower or ("both" if len(stored.towers) > 1 else stored.towers[0])
        of_it = [r for r in table if r.stored is stored and r.tower == whole and r.device.usable]
        verdicts.append(best(row.verdict(batches) for row in of_it))
    return worst(verdicts) if question == "all" else best(verdicts)
