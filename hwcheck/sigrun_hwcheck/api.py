"""The check itself, without printing: for desktop apps, scripts and the command line alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from sigrun.errors import SigrunError
from sigrun.providers import PROVIDERS
from sigrun_hwcheck import measured as measurements
from sigrun_hwcheck.advice import Advice, advise
from sigrun_hwcheck.cards import rates_of
from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.memory import TOWER_CHOICES, Compute, TowerChoice
from sigrun_hwcheck.places import Place, places, preferred
from sigrun_hwcheck.probe import read_machine
from sigrun_hwcheck.rows import Row, Settings, rows
from sigrun_hwcheck.speed import CardRates
from sigrun_hwcheck.stored import FORMS, Stored, from_file, from_plan
from sigrun_hwcheck.verdict import Verdict, best, works, worst
from sigrun_hwcheck.whatif import Supposed
from sigrun_recipes import default_model, load, names, plan

DEFAULT_BATCHES = (1,)

Question = Literal["any", "all"]
"""``any``: does some variant fit (asked without files)? ``all``: does every given file fit?"""


class NoPlaceError(SigrunError):
    """There is no device on which the provider that was asked for could run."""


@dataclass(frozen=True)
class Report:
    """The answer.

    Attributes:
        machine: what the verdicts are about.
        supposed: what of it is made up.
        places: what could hold a model, and what runs it there.
        auto: the one that the runtime takes by itself, if it can use any.
        variants: what was checked.
        rows: place × variant × tower.
        question: what the outcome answers.
        judged_batches: the batch sizes that the outcome and the advice are about.
        judged: keys of the devices that they are about.
        outcome: the answer; see :func:`check`.
        advice: what to do next.
    """

    machine: Machine
    supposed: Supposed
    places: tuple[Place, ...]
    auto: Place | None
    variants: tuple[Stored, ...]
    rows: tuple[Row, ...]
    question: Question
    judged_batches: tuple[int, ...]
    judged: tuple[str, ...]
    outcome: Verdict
    advice: Advice


def check(
    files: Sequence[str | Path] = (),
    *,
    batches: Sequence[int] = (),
    tower: TowerChoice | None = None,
    machine: Machine | None = None,
    compute: Compute = "auto",
    provider: str = "auto",
    reserve: int | None = None,
    supposed: Supposed | None = None,
    variants: Sequence[Stored] = (),
) -> Report:
    """Predict what fits.

    With files, the outcome is about all of them; without, about the recipes of the default model, of which
    one that fits is enough. It is judged on the devices that the runtime can use as things are (or on those of the
    provider asked for, or on those that are made up), of which one is enough; at every batch size given, or at 1
    if none is given; with both towers loaded, or the one asked for, or the one a file has.

    Args:
        files: exported ``.gguf`` files; none: every recipe of the default model.
        batches: items handed over at once; none: 1.
        tower: the tower to look at; ``None``: each, and both together.
        machine: a machine to judge for; ``None``: this one.
        compute: the compute form; ``auto`` for what the runtime takes by itself.
        provider: what runs it, as the runtime calls it: ``cpu``, ``cuda``, ``cuda:1``; ``auto`` for whatever can.
        reserve: bytes that stay free of each device; ``None``: 5 % of it, 128 MiB to 1 GiB.
        supposed: what of ``machine`` is made up; see :func:`sigrun_hwcheck.whatif.suppose`.
        variants: without files: what to check instead of the default model's recipes.

    Raises:
        StoredFileError: a file is missing, unreadable, damaged or foreign.
        NoPlaceError: there is no such provider, or no device for it.
        ValueError: a batch is below 1, the reserve below 0, or there is no such compute form.
    """
    if any(b < 1 for b in batches):
        raise ValueError(f"a batch has at least one input, not {min(batches)}")
    if compute not in ("auto", *FORMS):
        raise ValueError(f"there is no compute form {compute!r}; there are: auto, {', '.join(FORMS)}")
    if reserve is not None and reserve < 0:
        raise ValueError(f"a reserve has at least 0 bytes, not {reserve}")
    variants = tuple(from_file(str(f)) for f in files) if files else tuple(variants) or predicted()
    here = machine is None
    machine = read_machine() if machine is None else machine
    supposed = Supposed() if supposed is None else supposed
    found = places(machine, supposed.keys)
    auto = preferred(found)
    wanted = _judged(found, provider, supposed)
    towers = TOWER_CHOICES if tower is None else (tower,)
    settings = Settings(
        batches=tuple(sorted(set(batches))) or DEFAULT_BATCHES,
        compute=compute,
        reserve=reserve,
        measured=measurements.read(measurements.default_file()) if here and files else None,
        rates=_rates(machine, supposed),
    )
    table = rows(variants, towers, found, settings)
    able = [place for place in wanted if place.state != "no code"]
    of_judged = [row for row in table if row.place in able]
    others: list[Row] = []
    if not any(works(row.verdict(settings.batches)) for row in of_judged if row.tower == (tower or "both")):
        others = _in_other_forms(variants, towers, able, settings)
    question: Question = "all" if files else "any"
    return Report(
        machine=machine,
        supposed=supposed,
        places=found,
        auto=auto,
        variants=variants,
        rows=table,
        question=question,
        judged_batches=settings.batches,
        judged=tuple(place.key for place in wanted),
        outcome=_outcome(variants, of_judged, question, settings.batches, tower) if able else "does not fit",
        advice=advise(
            of_judged,
            settings.batches,
            auto=auto,
            compute=compute,
            others=others,
            barred=() if able else wanted,
            limited=machine.ram.limit_bytes is not None,
        ),
    )


@cache
def predicted() -> tuple[Stored, ...]:
    """Every recipe that comes with Sigrun, applied to the default model."""
    model = default_model()
    return tuple(from_plan(model.repo, plan(load(name), model.architecture)) for name in names())


def _judged(found: Sequence[Place], provider: str, supposed: Supposed) -> tuple[Place, ...]:
    """The places that the outcome is about."""
    if provider != "auto":
        base, _, number = provider.partition(":")
        if base not in PROVIDERS or (number and not number.isdecimal()):
            raise NoPlaceError(f"there is no provider '{provider}'; there are: auto, {', '.join(PROVIDERS)}")
        wanted = [p for p in found if p.provider == base]
        if number:
            wanted = [p for p in wanted if p.asked_as == (base if number == "0" else provider)]
        if not wanted:
            devices = ", ".join(p.asked_as for p in found if p.asked_as is not None)
            raise NoPlaceError(
                f"no device of this machine is known to run '{provider}'; there are devices for: {devices}",
                hint="--gpu NAME or --vram SIZE answers for a card that is not there",
            )
        return tuple(wanted)
    if supposed.keys:
        return tuple(p for p in found if p.key in supposed.keys)
    return tuple(p for p in found if p.usable)


def _rates(machine: Machine, supposed: Supposed) -> dict[str, CardRates]:
    """What the cards can do on paper: of supposed ones what was said, of others what their names tell."""
    found = {
        f"{gpus.vendor}:{card.index}": rates
        for gpus in machine.gpus
        for card in gpus.cards
        if card.slice is None and (rates := rates_of(card)) is not None
    }
    return found | dict(supposed.rates)


def _in_other_forms(
    variants: Sequence[Stored], towers: Sequence[TowerChoice], wanted: Sequence[Place], settings: Settings
) -> list[Row]:
    found = []
    for form in FORMS:
        asked = Settings((1,), form, settings.reserve, settings.measured)
        found += [row for row in rows(variants, towers, wanted, asked) if form in row.place.forms]
    return found


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
        of_it = [r for r in table if r.stored is stored and r.tower == whole]
        verdicts.append(best(row.verdict(batches) for row in of_it))
    return worst(verdicts) if question == "all" else best(verdicts)
