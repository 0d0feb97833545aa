"""The environment variable CUDA_VISIBLE_DEVICES: which cards and slices CUDA shows to this process.

Its entries are numbers, UUIDs of cards or the beginnings of them, or UUIDs of MIG slices. CUDA reads them up to the
first one that is none of that. Numbers count in CUDA's own order, which is the order of the slots only where
CUDA_DEVICE_ORDER says PCI_BUS_ID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

VARIABLE = "CUDA_VISIBLE_DEVICES"
HIDDEN = "CUDA_VISIBLE_DEVICES leaves it out"


@dataclass(frozen=True)
class Visible:
    """What the variable says.

    Attributes:
        entries: the entries; ``None`` where the variable is not set, and everything is visible.
        by_slot: whether numbers count the cards in the order of their slots.
    """

    entries: tuple[str, ...] | None
    by_slot: bool

    def all(self) -> bool:
        """Whether nothing is hidden."""
        return self.entries is None

    def card(self, place: int, uuid: str | None, uuids: Sequence[str | None]) -> bool | None:
        """Whether a card is shown: by its place among all cards or its UUID; ``None`` if that cannot be told."""
        if self.entries is None:
            return True
        for entry in self.entries:
            if entry == str(place):
                return True
            if entry.startswith("GPU-"):
                if uuid is None:
                    return None
                if uuid.startswith(entry) and sum(u is not None and u.startswith(entry) for u in uuids) == 1:
                    return True
        return False

    def slice(self, uuid: str | None, parent_uuid: str | None) -> bool | None:
        """Whether a slice is shown by its own UUID; older drivers name it after its card."""
        named = [e for e in self.entries or () if e.startswith("MIG-")]
        if named and uuid is None and parent_uuid is None:
            return None
        return any(
            (uuid is not None and uuid.startswith(e))
            or (parent_uuid is not None and e.startswith(f"MIG-{parent_uuid}/"))
            for e in named
        )

    def numbers(self) -> bool:
        """Whether an entry is a number."""
        return any(entry.isdigit() for entry in self.entries or ())


def read(environ: Mapping[str, str], count: int) -> Visible:
    """The variable, cut off at its first entry that CUDA would not take; ``count`` is the number of cards."""
    order = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    value = environ.get(VARIABLE)
    if value is None:
        return Visible(None, order)
    entries: list[str] = []
    for raw in value.split(","):
        entry = raw.strip()
        number = entry.isascii() and entry.isdigit()
        if number:
            entry = str(int(entry))
        if not (number and int(entry) < count) and not entry.startswith(("GPU-", "MIG-")):
            break
        if entry in entries:  # CUDA shows nothing at all if one is named twice
            return Visible((), order)
        entries.append(entry)
    return Visible(tuple(entries), order)
