"""Which graphics cards run each variant: the question of every model page, answered from our own table of cards.

Nothing here was measured on a card. For AMD, Intel and Apple the figures are reckoned as NVIDIA's: none of their
providers was ever at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sigrun.providers import PROVIDERS
from sigrun_hwcheck.card_code import objection
from sigrun_hwcheck.cards import CardModel, cards
from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.memory import Need, TowerChoice, need
from sigrun_hwcheck.places import MEASURED_AS, ON_CARDS
from sigrun_hwcheck.rows import disk_bytes, form_for
from sigrun_hwcheck.speed import CardRates, Speed, speed
from sigrun_hwcheck.stored import Form, Stored
from sigrun_hwcheck.units import GIB
from sigrun_hwcheck.verdict import Verdict, judge, reserve_bytes
from sigrun_hwcheck.whatif import CARD_IN_USE_BYTES, CARD_IN_USE_SHARE, card_memory, in_use

CARD_FORMS: tuple[Form, ...] = ("f16", "w4f16")
SIZES_GIB = (1, 2, 3, 4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128)
"""Sizes of memory that cards are sold with."""


@dataclass(frozen=True)
class LeastMemory:
    """What a card must have to run a variant's tower, or both, in a compute form.

    Attributes:
        stored: the variant.
        tower: which tower, or both.
        form: the compute form.
        disk_bytes: what it takes on disk.
        need: memory at the batch asked for.
        tight_gib: the least size of card on which it is tight or better.
        fits_gib: the least on which it fits.
    """

    stored: Stored
    tower: TowerChoice
    form: Form
    disk_bytes: int
    need: Need
    tight_gib: int | None
    fits_gib: int | None


@dataclass(frozen=True)
class OnCard:
    """A variant on a card, in the form that the runtime takes there by itself.

    Attributes:
        stored: the variant.
        card: the card.
        gib: its memory, or the main memory that it works in.
        total_bytes: what it may use of that.
        free_bytes: of that, what is taken to be free.
        form: the compute form.
        verdicts: by tower, and for both.
        speed: of the image tower.
    """

    stored: Stored
    card: CardModel
    gib: int
    total_bytes: int
    free_bytes: int
    form: Form
    verdicts: dict[TowerChoice, Verdict]
    speed: Speed | None

    @property
    def problem(self) -> str | None:
        """Why nothing runs there, however much memory there is."""
        return objection(self.card.compute_capability, "arm64" if self.card.unified else "x86_64")


@dataclass(frozen=True)
class CardReport:
    """The answer: what each variant needs, and each on every card."""

    variants: tuple[Stored, ...]
    batch: int
    least: tuple[LeastMemory, ...]
    on_cards: tuple[OnCard, ...]


def on_cards(variants: Sequence[Stored], batch: int = 1, reserve: int | None = None) -> CardReport:
    """Which cards of the table run some variants.

    Args:
        variants: the variants.
        batch: items handed over at once.
        reserve: bytes that stay free of a card; ``None`` for the usual share.
    """
    needs = {
        (id(stored), tower, form): found
        for stored in variants
        for tower in _towers(stored)
        for form in (*CARD_FORMS, "exact", "int8")
        if (found := need(stored, tower, form, batch, MEASURED_AS)) is not None
    }
    least = [
        LeastMemory(
            stored,
            tower,
            form,
            disk_bytes(stored, tower),
            found,
            _least_gib(found, reserve, ("fits", "tight")),
            _least_gib(found, reserve, ("fits",)),
        )
        for stored in variants
        for form in CARD_FORMS
        for tower in _towers(stored)
        if (found := needs.get((id(stored), tower, form))) is not None
    ]
    forms: dict[tuple[int, tuple[str, ...], int], Form] = {}
    speeds: dict[tuple[int, Form, CardRates], Speed | None] = {}
    placed = []
    for card in cards():
        for gib in card.memory_gib:
            total, free = card_memory(card, gib)
            for stored in variants:
                here = (id(stored), _forms(card), free)
                form = forms[here] = forms.get(here) or form_for(stored, _forms(card), MEASURED_AS, free)
                of_card = {t: needs.get((id(stored), t, form)) for t in _towers(stored)}
                verdicts = {
                    t: judge(n.bytes, free, reserve_bytes(total, reserve))
                    for t, n in of_card.items()
                    if n is not None
                }
                rated = (id(stored), form, card.rates)
                if rated not in speeds and "image" in stored.towers:
                    speeds[rated] = speed(
                        stored, "image", form, batch, MEASURED_AS, Conditions(), card=card.rates
                    )
                placed.append(OnCard(stored, card, gib, total, free, form, verdicts, speeds.get(rated)))
    return CardReport(tuple(variants), batch, tuple(least), tuple(placed))


def _towers(stored: Stored) -> tuple[TowerChoice, ...]:
    return (*stored.towers, "both") if len(stored.towers) > 1 else stored.towers


def _forms(card: CardModel) -> tuple[str, ...]:
    """What the runtime tries on such a card; its provider differs by system, the forms do not."""
    return PROVIDERS[next(iter(ON_CARDS[card.vendor].values()))].forms


def _least_gib(found: Need, reserve: int | None, good: Sequence[Verdict]) -> int | None:
    for gib in SIZES_GIB:
        total = gib * GIB
        free = total - in_use(total, CARD_IN_USE_BYTES, CARD_IN_USE_SHARE)
        if judge(found.bytes, free, reserve_bytes(total, reserve)) in good:
            return gib
    return None
