"""Predicts the memory that running a tower takes, term by term, before anything is loaded.

Two moments matter: while a tower is **loaded** there are arrays that go once its session stands; when it **runs**,
activations have come. What is needed is the larger of the two. Where the same file was measured on the same device
(:mod:`sigrun_hwcheck.measure`), the measured peaks stand for the predicted ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.constants import Constants, Provider, Range, Source, constants
from sigrun_hwcheck.measured import Measured, Measurements
from sigrun_hwcheck.quantities import KEPT, quantities
from sigrun_hwcheck.stored import FORMS, Form, Stored
from sigrun_hwcheck.terms import Term, TermName, merged, micro_batch, terms, total
from sigrun_recipes import TowerName

__all__ = [
    "TOWER_CHOICES",
    "Compute",
    "Need",
    "Phase",
    "PhaseName",
    "Term",
    "TermName",
    "TowerChoice",
    "default_compute",
    "need",
]

TowerChoice = Literal["image", "text", "both"]
TOWER_CHOICES: tuple[TowerChoice, ...] = ("image", "text", "both")
Compute = Literal["auto", "exact", "int8", "f16", "w4f16"]
PhaseName = Literal["load", "run"]

WORKING_BYTES, SMALL_BYTES = 768 << 20, 2 << 30
"""By which the runtime chooses between forms on a card (``sigrun.choice``)."""

MEASURED_DOUBT = 0.02
"""What a repeated run may differ from a measured one."""


@dataclass(frozen=True)
class Phase:
    """A moment at which memory may peak."""

    name: PhaseName
    terms: tuple[Term, ...]

    @property
    def bytes(self) -> Range:
        """All terms that cannot be taken back."""
        return total(t for t in self.terms if not t.reclaimable)

    @property
    def resident_bytes(self) -> Range:
        """What a process monitor shows, pages of the file included."""
        return total(self.terms)


@dataclass(frozen=True)
class Need:
    """What one tower, or both in one process, take at one batch size.

    Attributes:
        tower: which.
        compute: the compute form; never ``auto``.
        batch: items handed over at once.
        micro_batch: items that are run at once, of the tower that runs more.
        phases: load, then run.
    """

    tower: TowerChoice
    compute: Form
    batch: int
    micro_batch: int
    phases: tuple[Phase, Phase]

    @property
    def bytes(self) -> Range:
        """What must be free: the larger of the phases."""
        return _larger(phase.bytes for phase in self.phases)

    @property
    def resident_bytes(self) -> Range:
        """What a process monitor will have shown at the peak."""
        return _larger(phase.resident_bytes for phase in self.phases)

    @property
    def source(self) -> Source:
        """How well it is known: as well as the least known term of the larger phase."""
        peak = max(self.phases, key=lambda phase: phase.bytes.best_bytes)
        order: tuple[Source, ...] = ("exact", "measured here", "measured", "estimated")
        return max((t.source for t in peak.terms), key=order.index)

    @property
    def limiting(self) -> Term:
        """The largest term of the larger phase: what to lower first."""
        peak = max(self.phases, key=lambda phase: phase.bytes.best_bytes)
        return max((t for t in peak.terms if not t.reclaimable), key=lambda t: t.bytes.best_bytes)


def default_compute(stored: Stored, provider: Provider, free_bytes: int | None = None) -> Form:
    """The form that ``compute="auto"`` of the runtime means for a variant (``sigrun.choice``).

    On a CPU ``int8`` where the export's verification passed it, or where the variant is not exported yet, else
    ``exact``. On a card ``f16`` where every tower fits into what is free, else ``w4f16``.

    Args:
        stored: the variant.
        provider: what runs it.
        free_bytes: free memory of a card, if known.
    """
    offered = [form for form in FORMS if all(form in forms for forms in stored.forms.values())]
    wanted: tuple[Form, ...] = ("int8", "exact") if provider == "cpu" else ("f16", "w4f16", "exact")
    refused: set[Form] = set()
    if not stored.passed.get("int8", stored.origin == "recipe"):
        refused.add("int8")
    if "w4f16" in offered and not all(_fits_in_half(stored, tower, free_bytes) for tower in stored.towers):
        refused.add("f16")
    chosen = [form for form in wanted if form in offered and form not in refused]
    return chosen[0] if chosen else (offered or ["exact"])[0]


def _fits_in_half(stored: Stored, tower: TowerName, free_bytes: int | None) -> bool:
    """Whether the runtime will take form ``f16`` on a card with so much free."""
    return _half_bytes(stored, tower) + WORKING_BYTES <= (SMALL_BYTES if free_bytes is None else free_bytes)


@lru_cache(KEPT)
def _half_bytes(stored: Stored, tower: TowerName) -> int:
    return sum(2 * t.size for t in stored.of(tower) if "f16" in t.packings)


def need(
    stored: Stored,
    tower: TowerChoice,
    compute: Compute = "auto",
    batch: int = 1,
    provider: Provider = "cpu",
    device: Conditions | None = None,
    *,
    measured: Measurements | None = None,
    cached: bool = False,
) -> Need | None:
    """Memory to run one tower, or both in one process.

    Towers do not run at the same time, but a session keeps what it once took: the second tower is loaded while
    the first still holds its activations.

    Args:
        stored: the variant.
        tower: which tower.
        compute: the compute form; ``auto`` for the runtime's choice.
        batch: items handed over at once.
        provider: what runs it.
        device: where; none takes the constants as they stand, with the threads they were measured with.
        measured: what was measured on this machine; none to predict.
        cached: the int8 matrices are in the runtime's cache already.

    Returns:
        The need, or ``None`` if the variant lacks the tower, or a graph of that form.

    Raises:
        ValueError: the batch is below 1, or there is no such compute form.
    """
    if batch < 1:
        raise ValueError(f"a batch has at least one input, not {batch}")
    if compute not in ("auto", *FORMS):
        raise ValueError(f"there is no compute form {compute!r}; there are: auto, {', '.join(FORMS)}")
    form = default_compute(stored, provider) if compute == "auto" else compute
    towers: tuple[TowerName, ...] = ("image", "text") if tower == "both" else (tower,)
    if any(form not in stored.forms.get(t, ()) for t in towers):
        return None
    known = constants(provider, device)
    threads = (device.threads if device is not None else known.conditions.threads) or 1
    of = {t: terms(stored, t, form, batch, known, threads=threads, cached=cached) for t in towers}
    runtime = Term("runtime", known.runtime.of(1), known.runtime.source)

    def phase(name: PhaseName, last: TowerName | None = None) -> Phase:
        there = [term for t in towers for term in (of[t].load if t == last else of[t].run)]
        return Phase(name, (*merged(there), runtime))

    load = max((phase("load", last) for last in towers), key=lambda p: p.resident_bytes.best_bytes)
    run = phase("run")
    items = {t: min(batch, micro_batch(quantities(stored, t, form), known, form)) for t in towers}
    if measured is not None and device is not None:
        seen = [measured.find(stored, t, form, provider, device, items[t], cached=cached) for t in towers]
        if all(s is not None for s in seen):
            load, run = _as_measured([s for s in seen if s is not None], load, run, known)
    return Need(tower, form, batch, max(items.values()), (load, run))


def _as_measured(seen: list[Measured], load: Phase, run: Phase, known: Constants) -> tuple[Phase, Phase]:
    """The phases with measured totals. Of several towers, each was measured alone: what they share counts once."""
    shared = (len(seen) - 1) * round(sum(s.base_bytes for s in seen) / len(seen))
    mapped = sum(s.mapped_bytes for s in seen)
    run_peak = sum(s.run_peak_bytes for s in seen) - shared
    # The last tower is loaded while the others stand as they ran.
    load_peak = run_peak + max(s.load_peak_bytes - s.run_peak_bytes for s in seen)
    return _measured_phase("load", load_peak, mapped), _measured_phase("run", run_peak, mapped)


def _measured_phase(name: PhaseName, peak: int, mapped: int) -> Phase:
    held = max(0, peak - mapped)
    doubt = round(MEASURED_DOUBT * held)
    return Phase(
        name,
        (
            Term("process", Range(held - doubt, held, held + doubt), "measured here"),
            Term("mapped", Range.exactly(mapped), "measured here", reclaimable=True),
        ),
    )


def _larger(ranges: Iterable[Range]) -> Range:
    low, best, high = zip(*((r.low_bytes, r.best_bytes, r.high_bytes) for r in ranges), strict=True)
    return Range(max(low), max(best), max(high))
