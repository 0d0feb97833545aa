"""Rows of a report: one variant, one tower choice, one device, judged at each batch size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sigrun_hwcheck.devices import Device
from sigrun_hwcheck.memory import Need, TowerChoice, need
from sigrun_hwcheck.stored import Stored
from sigrun_hwcheck.verdict import Verdict, judge, worst


@dataclass(frozen=True)
class BatchVerdict:
    """What one batch size needs, and whether it fits the device."""

    need: Need
    verdict: Verdict


@dataclass(frozen=True)
class Row:
    """One variant's tower, or both, on one device.

    Attributes:
        stored: the variant.
        tower: which tower, or both in one process.
        device: where.
        disk_bytes: what it takes on disk: the tower's weights; for both, the whole file where there is one.
        batches: by batch size, ascending.
    """

    stored: Stored
    tower: TowerChoice
    device: Device
    disk_bytes: int
    batches: tuple[BatchVerdict, ...]

    def verdict(self, batches: Iterable[int]) -> Verdict:
        """The verdict on several batch sizes together."""
        wanted = set(batches)
        return worst(b.verdict for b in self.batches if b.need.batch in wanted)


def rows(
    variants: Sequence[Stored],
    towers: Sequence[TowerChoice],
    places: Sequence[Device],
    batches: Sequence[int],
) -> tuple[Row, ...]:
    """Every combination, by device, then variant, then tower; towers that a file lacks are left out."""
    found = []
    for device in places:
        for stored in variants:
            for tower in towers:
                needs = [need(stored, tower, batch, device.provider) for batch in sorted(set(batches))]
                judged = tuple(
                    BatchVerdict(n, judge(n.bytes, device.free_bytes, device.total_bytes))
                    for n in needs
                    if n is not None
                )
                if judged:
                    found.append(Row(stored, tower, device, disk_bytes(stored, tower), judged))
    return tuple(found)


def disk_bytes(stored: Stored, tower: TowerChoice) -> int:
    """Bytes on disk: of one tower its weights; of both the file, or all weights where there is none yet."""
    if tower != "both":
        return stored.nbytes(tower)
    if stored.file_bytes is not None:
        return stored.file_bytes
    return sum(stored.nbytes(t) for t in stored.towers)
