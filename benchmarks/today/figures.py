"""From what was seen in rounds to one row a peer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.today.catalogue import ONNX, TORCH
from benchmarks.today.given import Tower
from benchmarks.today.rounds import Results, Seen


@dataclass(frozen=True)
class Row:
    """A peer's figures for one tower.

    Attributes:
        name: the peer.
        median_s, least_s: seconds an item, one at a time: the median of the rounds' medians, and the least of all.
        to_onnx, to_torch: times as long as plain fp32 ONNX and transformers in fp32 took: the median of the rounds'
            ratios; none where those were not measured.
        batch_rate: items a second in the batch; none where no batch was run.
        start_s: from process start to the first embedding.
        load_s: reading the weights.
        peak_bytes: largest resident memory of the process.
        mean_cosine, worst_cosine: with transformers' float32 embeddings.
        disk_bytes: of both towers' files.
        cache_bytes: of what is kept in a cache beside them.
    """

    name: str
    median_s: float
    least_s: float
    to_onnx: float | None
    to_torch: float | None
    batch_rate: float | None
    start_s: float
    load_s: float
    peak_bytes: int
    mean_cosine: float
    worst_cosine: float
    disk_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class Disk:
    """What a peer keeps on disk: its files, and a cache beside them."""

    files: int
    cache: int = 0


def rows(
    results: Results, tower: Tower, truth: NDArray[np.float32], disk: Mapping[str, Disk], batch: int
) -> list[Row]:
    """One row a peer, in the order of ``disk``."""
    seen = {name: found for (name, where), found in results.seen.items() if where == tower}
    return [_row(name, seen, truth, disk[name], batch) for name in disk if name in seen]


def _row(
    name: str, everyone: Mapping[str, Sequence[Seen]], truth: NDArray[np.float32], disk: Disk, batch: int
) -> Row:
    seen = everyone[name]
    cosines = (seen[0].vectors * truth).sum(axis=1)
    batches = [each.batch_s for each in seen if each.batch_s is not None]
    return Row(
        name=name,
        median_s=statistics.median(map(_median, seen)),
        least_s=min(min(each.seconds) for each in seen),
        to_onnx=_ratio(seen, everyone.get(ONNX)),
        to_torch=_ratio(seen, everyone.get(TORCH)),
        batch_rate=batch / statistics.median(batches) if batches else None,
        start_s=statistics.median(each.start_s for each in seen),
        load_s=statistics.median(each.load_s for each in seen),
        peak_bytes=max(each.peak_bytes for each in seen),
        mean_cosine=float(cosines.mean()),
        worst_cosine=float(cosines.min()),
        disk_bytes=disk.files,
        cache_bytes=disk.cache,
    )


def _median(seen: Seen) -> float:
    return statistics.median(seen.seconds)


def _ratio(seen: Sequence[Seen], base: Sequence[Seen] | None) -> float | None:
    """Each round against the same round of the other."""
    if base is None or len(base) != len(seen):
        return None
    return statistics.median(_median(a) / _median(b) for a, b in zip(seen, base, strict=True))
