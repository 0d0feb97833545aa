"""Rows of a report: one variant, one tower or both, one place, judged at each batch size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sigrun_hwcheck.constants import Provider, constants
from sigrun_hwcheck.measured import Measurements
from sigrun_hwcheck.memory import Compute, Need, TowerChoice, default_compute, need
from sigrun_hwcheck.places import Place
from sigrun_hwcheck.quantities import quantities
from sigrun_hwcheck.speed import CardRates, Speed, speed
from sigrun_hwcheck.stored import FORMS, Form, Stored
from sigrun_hwcheck.terms import micro_batch
from sigrun_hwcheck.verdict import Verdict, judge, reserve_bytes, works, worst
from sigrun_recipes import TowerName

FORMS_BY_SIZE: tuple[Form, ...] = ("f16", "exact")
"""What the runtime tries on cards that have no kernels for 4-bit weights, the smaller first."""


@dataclass(frozen=True)
class Settings:
    """What a table is made with.

    Attributes:
        batches: items handed over at once, ascending.
        compute: the compute form asked for.
        reserve: bytes that stay free of each device; ``None`` for the usual share of it.
        measured: what was measured on this machine; ``None`` to predict only.
        rates: device key → what a card can do on paper.
    """

    batches: tuple[int, ...] = (1,)
    compute: Compute = "auto"
    reserve: int | None = None
    measured: Measurements | None = None
    rates: Mapping[str, CardRates] | None = None


@dataclass(frozen=True)
class BatchVerdict:
    """What one batch size needs, and whether it fits the device."""

    need: Need
    verdict: Verdict


@dataclass(frozen=True)
class Row:
    """One variant's tower, or both, in one place.

    Attributes:
        stored: the variant.
        tower: which tower, or both in one process.
        place: where.
        compute: the compute form.
        disk_bytes: what it takes on disk: the tower's weights; for both, the whole file where there is one.
        reserve_bytes: what stays free of the device.
        batches: by batch size, ascending.
        micro_batch: items that are run at once at most; larger batches take no more memory.
        largest_batch: the most items that may be run at once, at most a micro-batch; ``None`` where it is not known.
        speed: how long an item takes; ``None`` for both towers, and where it is not known.
    """

    stored: Stored
    tower: TowerChoice
    place: Place
    compute: Form
    disk_bytes: int
    reserve_bytes: int
    batches: tuple[BatchVerdict, ...]
    micro_batch: int
    largest_batch: int | None
    speed: Speed | None

    @property
    def every_batch(self) -> bool:
        """Whether every batch fits: what fits at a micro-batch fits however many items are handed over."""
        return self.largest_batch == self.micro_batch

    @property
    def last(self) -> BatchVerdict:
        """The one at the largest batch size."""
        return self.batches[-1]

    def verdict(self, batches: Iterable[int]) -> Verdict:
        """The verdict on several batch sizes together."""
        wanted = set(batches)
        return worst(b.verdict for b in self.batches if b.need.batch in wanted)


def rows(
    variants: Sequence[Stored],
    towers: Sequence[TowerChoice],
    found: Sequence[Place],
    settings: Settings,
) -> tuple[Row, ...]:
    """Every combination, by place, then variant, then tower.

    What a file lacks, towers or compute forms, is left out; so are places that nothing is known to run on.
    """
    table = (
        _row(stored, tower, place, settings)
        for place in found
        if place.provider is not None
        for stored in variants
        for tower in towers
    )
    return tuple(row for row in table if row is not None)


def _row(stored: Stored, tower: TowerChoice, place: Place, settings: Settings) -> Row | None:
    names: tuple[TowerName, ...] = ("image", "text") if tower == "both" else (tower,)
    if any(name not in stored.towers for name in names):
        return None
    free = place.device.free_bytes
    form = (
        form_for(stored, place.forms, place.costs, free) if settings.compute == "auto" else settings.compute
    )
    reserve = reserve_bytes(place.device.total_bytes, settings.reserve)

    def at(batch: int) -> BatchVerdict | None:
        found = need(stored, tower, form, batch, place.costs, place.where, measured=settings.measured)
        return None if found is None else BatchVerdict(found, judge(found.bytes, free, reserve))

    judged = [b for batch in settings.batches if (b := at(batch)) is not None]
    if not judged:
        return None
    most = max(micro_batch(quantities(stored, name, form), constants(place.costs), form) for name in names)
    low, high = 0, most
    if free is not None and (whole := at(most)) is not None and works(whole.verdict):
        low = most  # the usual case, and the end of the search
    while low < high and free is not None:  # memory grows with the batch, so halving finds the last that fits
        middle = (low + high + 1) // 2
        one = at(middle)
        low, high = (middle, high) if one is not None and works(one.verdict) else (low, middle - 1)
    rates = (settings.rates or {}).get(place.key)
    pace = (
        None
        if tower == "both"
        else speed(
            stored,
            tower,
            form,
            settings.batches[-1],
            place.costs,
            place.where,
            card=rates,
            measured=settings.measured,
        )
    )
    return Row(
        stored,
        tower,
        place,
        form,
        disk_bytes(stored, tower),
        reserve,
        tuple(judged),
        most,
        None if free is None else low,
        pace,
    )


def form_for(stored: Stored, forms: Sequence[str], costs: Provider, free_bytes: int | None) -> Form:
    """The compute form that the runtime takes by itself.

    Args:
        stored: the variant.
        forms: those that it tries on such a device.
        costs: whose constants stand for the device.
        free_bytes: what is free there.
    """
    chosen = default_compute(stored, costs, free_bytes)
    if chosen in forms:
        return chosen
    offered = {form for form in FORMS if all(form in of_tower for of_tower in stored.forms.values())}
    return next((form for form in FORMS_BY_SIZE if form in offered and form in forms), chosen)


def disk_bytes(stored: Stored, tower: TowerChoice) -> int:
    """Bytes on disk: of one tower its weights; of both the file, or all weights where there is none yet."""
    if tower != "both":
        return stored.nbytes(tower)
    if stored.file_bytes is not None:
        return stored.file_bytes
    return sum(stored.nbytes(t) for t in stored.towers)
