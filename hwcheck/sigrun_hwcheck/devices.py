"""What of a machine could hold a model: main memory, and each graphics card or slice of one for itself.

Memory of several cards is never added up, nor a card's to main memory. A card that works in main memory, or borrows of
it, is bound by what is free there: what is put on it is gone from main memory, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass

from sigrun_hwcheck.constants import Provider
from sigrun_hwcheck.machine import Card, Machine, Ram

PROVIDERS: dict[str, Provider] = {"nvidia": "cuda"}
"""Vendors of whose cards it is known what a model needs there."""

BORROWED_SHARE = 2
"""Of main memory, what integrated graphics may take where the system sets no limit: one half, as drivers do."""


@dataclass(frozen=True)
class Device:
    """A place for weights.

    Attributes:
        key: short and stable: ``ram``, ``nvidia:0``, ``nvidia:0.1`` for the second slice of a card.
        label: in words.
        provider: what runs a model there; ``None`` if nothing is known of what a model needs there.
        total_bytes: its memory, or as much of it as a container may use.
        free_bytes: what is free now.
        problem: in words, why a figure is unknown.
        shares_ram: whether its memory is main memory, and counted there too.
        estimated: whether a figure is a rule of thumb instead of a reading.
    """

    key: str
    label: str
    provider: Provider | None
    total_bytes: int | None
    free_bytes: int | None
    problem: str | None
    shares_ram: bool = False
    estimated: bool = False


def devices(machine: Machine) -> tuple[Device, ...]:
    """Main memory first, then every card that this process may use; whole cards that are cut up are no place."""
    ram = machine.ram
    found = [Device("ram", "the CPU, in RAM", "cpu", ram.budget_bytes, ram.free_bytes, ram.problem, True)]
    for gpus in machine.gpus:
        found += [
            _card(gpus.vendor, card, ram)
            for card in gpus.cards
            if card.kind != "divided" and card.hidden is None
        ]
    return tuple(found)


def card_key(vendor: str, card: Card) -> str:
    """The key of a card, or of a slice of one."""
    return f"{vendor}:{card.index}" + ("" if card.slice is None else f".{card.slice}")


def _card(vendor: str, card: Card, ram: Ram) -> Device:
    part = "" if card.slice is None else f".{card.slice}"
    kind = "integrated graphics" if card.kind == "integrated" else "slice" if part else "card"
    total, free = card.total_bytes, card.free_bytes
    shares, estimated = card.memory != "own", card.estimated
    if card.memory == "unified":
        total = _least(ram.budget_bytes, card.shared_total_bytes)
        free = _least(ram.free_bytes, card.shared_total_bytes)
    elif card.memory == "shared":
        total, free, shares, estimated = _borrowing(card, ram)
    problem = card.problem
    if free is None and problem is None:
        problem = ram.problem or "what is free in main memory is not known"
    return Device(
        key=card_key(vendor, card),
        label=f"{kind} {card.index}{part}, {card.name or 'name unknown'}",
        provider=PROVIDERS.get(vendor),
        total_bytes=total,
        free_bytes=None if card.problem is not None and card.memory != "own" else free,
        problem=problem,
        shares_ram=shares,
        estimated=estimated,
    )


def _borrowing(card: Card, ram: Ram) -> tuple[int | None, int | None, bool, bool]:
    """Total and free bytes of graphics that borrow of main memory, whether they do, and whether that is estimated.

    What is set aside for them is no part of main memory. Where it is the larger pool, it is what drivers use.
    """
    own, own_free = card.total_bytes, card.free_bytes
    limit, limit_free = card.shared_total_bytes, card.shared_free_bytes
    if own is not None and limit is not None and own >= limit:
        return own, own_free, False, False
    if limit is None and card.estimated:
        half = None if ram.budget_bytes is None else ram.budget_bytes // BORROWED_SHARE
        return half, _least(half, ram.free_bytes), True, True
    if limit is None or limit_free is None or ram.free_bytes is None:
        return limit, None, True, False
    free = min(limit_free + (own_free or 0), ram.free_bytes)
    return _least(limit + (own or 0), ram.budget_bytes), free, True, False


def _least(known: int | None, limit: int | None) -> int | None:
    """The first, at most the second; unknown stays unknown, and no limit limits nothing."""
    if known is None:
        return None
    return known if limit is None else min(known, limit)
