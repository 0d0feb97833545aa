"""Checkpoints worth comparing: which are there, how good they are said to be, and which of them fit a machine.

What is known of them are published facts (``models.toml`` of the recipes); sizes and needs are predicted as for any
variant that is not exported yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sigrun_hwcheck.api import Report, check
from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.memory import Compute, TowerChoice
from sigrun_hwcheck.places import Place
from sigrun_hwcheck.rows import Row, disk_bytes
from sigrun_hwcheck.speed import Speed
from sigrun_hwcheck.stored import Stored, from_plan
from sigrun_hwcheck.verdict import Verdict, works
from sigrun_hwcheck.whatif import Supposed
from sigrun_recipes import TOWERS, KnownModel, TowerName, known, load, plan

SMALLER = 0.6
"""Of the default model's need, what a step down may take at most."""

BETTER = 0.5
"""Points of accuracy that a step up must bring: less is in how the sources measure."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint as one variant of it would be on a machine.

    Attributes:
        known: the published facts.
        stored: the variant.
        parameters: weights by tower, in the checkpoint.
        disk_bytes: what the variant's weights take on disk, of the towers asked for.
        row: the judgement in the place that the table is about; ``None``: nothing is known to run there.
        speed: of the image tower there; of the text tower where that one was asked for.
    """

    known: KnownModel
    stored: Stored
    parameters: dict[TowerName, int]
    disk_bytes: int
    row: Row | None
    speed: Speed | None

    @property
    def verdict(self) -> Verdict:
        """Whether it fits."""
        return "unknown" if self.row is None else self.row.last.verdict

    @property
    def top1(self) -> float | None:
        """Published zero-shot accuracy on ImageNet-1k in per cent."""
        return None if self.known.zero_shot is None else self.known.zero_shot.imagenet_top1


@dataclass(frozen=True)
class Comparison:
    """The answer.

    Attributes:
        report: the check behind it.
        variant: name of the recipe.
        tower: the tower that was asked for, or both.
        batch: items handed over at once.
        place: the place that the table is about: the one that the runtime takes by itself, unless more fits elsewhere.
        candidates: by family, then from small to large.
        up: the least that fits and is said to be better than the default model.
        down: the best that needs clearly less than the default model.
    """

    report: Report
    variant: str
    tower: TowerChoice
    batch: int
    place: Place | None
    candidates: tuple[Candidate, ...]
    up: Candidate | None
    down: Candidate | None

    @property
    def default(self) -> Candidate:
        """The model that commands mean when none is named."""
        return next(one for one in self.candidates if one.known.default)


def compare(
    variant: str = "q4_k_m",
    *,
    tower: TowerChoice = "both",
    batch: int = 1,
    machine: Machine | None = None,
    compute: Compute = "auto",
    provider: str = "auto",
    reserve: int | None = None,
    supposed: Supposed | None = None,
) -> Comparison:
    """Every known checkpoint as one variant, judged on a machine.

    Args:
        variant: name of a recipe.
        tower: the tower that is wanted, or both.
        batch: items handed over at once.
        machine: a machine to judge for; ``None``: this one.
        compute: the compute form; ``auto`` for what the runtime takes by itself.
        provider: what runs it, as the runtime calls it; ``auto`` for whatever can.
        reserve: bytes that stay free of each device; ``None`` for the usual share.
        supposed: what of ``machine`` is made up.

    Raises:
        NoPlaceError: there is no such provider, or no device for it.
        RecipeFileError: there is no such recipe.
        ValueError: the batch is below 1, or there is no such compute form.
    """
    models, variants = _stored(variant)
    report = check(
        variants=variants,
        batches=(batch,),
        machine=machine,
        compute=compute,
        provider=provider,
        reserve=reserve,
        supposed=supposed,
    )
    place = _place(report, tower)
    found = tuple(
        _candidate(model, stored, report, place, tower)
        for model, stored in zip(models, variants, strict=True)
    )
    return Comparison(report, variant, tower, batch, place, found, *_steps(found))


@cache
def _stored(variant: str) -> tuple[tuple[KnownModel, ...], tuple[Stored, ...]]:
    """Every known checkpoint, in order, and what the variant of each would be."""
    recipe = load(variant)
    models = tuple(sorted(known(), key=_order))
    return models, tuple(from_plan(m.repo, plan(recipe, m.architecture)) for m in models)


def _order(model: KnownModel) -> tuple[str, int, int]:
    """By family, then by how wide the image tower is, then by how many tokens it sees."""
    image = model.architecture.image
    return (model.family, 0, 0) if image is None else (model.family, image.width, image.tokens)


def _place(report: Report, tower: TowerChoice) -> Place | None:
    """The place where most fits; of equal ones that which the runtime takes by itself."""
    judged = [p for p in report.places if p.key in report.judged]

    def fitting(place: Place) -> tuple[int, bool]:
        of_place = [r for r in report.rows if r.place is place and r.tower == tower]
        return sum(works(r.last.verdict) for r in of_place), place is report.auto

    return max(judged, key=fitting, default=None)


def _candidate(
    model: KnownModel, stored: Stored, report: Report, place: Place | None, tower: TowerChoice
) -> Candidate:
    rows = {row.tower: row for row in report.rows if row.stored is stored and row.place is place}
    timed = rows.get("text" if tower == "text" else "image")
    return Candidate(
        model,
        stored,
        {name: model.architecture.parameters(name) for name in TOWERS},
        disk_bytes(stored, tower),
        rows.get(tower),
        None if timed is None else timed.speed,
    )


def _steps(found: Sequence[Candidate]) -> tuple[Candidate | None, Candidate | None]:
    """One step up and one step down from the default model, among those that fit and have a published figure."""
    default = next(one for one in found if one.known.default)
    if default.row is None or default.top1 is None:
        return None, None
    most = default.row.last.need.bytes.best_bytes
    of = {id(one): one.row.last.need.bytes.best_bytes for one in found if one.row is not None}
    able = [one for one in found if works(one.verdict) and one.top1 is not None and one is not default]
    better = [one for one in able if (one.top1 or 0) >= default.top1 + BETTER]
    lighter = [one for one in able if of[id(one)] <= SMALLER * most]
    return (
        min(better, key=lambda one: (of[id(one)], -(one.top1 or 0)), default=None),
        max(lighter, key=lambda one: (one.top1 or 0, -of[id(one)]), default=None),
    )
