"""How far the peaks of one and the same run lie apart: no prediction can be nearer than that."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.children import MIB
from benchmarks.markdown import table
from sigrun_hwcheck.measured import Measured

HEAD = ("run", "loading, least – most", "apart", "running, least – most", "apart")


def spread(runs: Sequence[str], repeats: Sequence[Sequence[Measured]]) -> str:
    """A Markdown table of the least and the largest peak of each run, in MiB, and how far these lie apart.

    Args:
        runs: what was run, in words.
        repeats: what was measured each time: of each run, in order.
    """
    rows = []
    for said, seen in zip(runs, zip(*repeats, strict=True), strict=True):
        load, run = [m.load_peak_bytes for m in seen], [m.run_peak_bytes for m in seen]
        rows.append((said, *_range(load), *_range(run)))
    return table(HEAD, rows)


def _range(peaks: Sequence[int]) -> tuple[str, str]:
    least, most = min(peaks), max(peaks)
    return f"{least / MIB:,.0f} – {most / MIB:,.0f}", f"{100 * (most - least) / least:.1f} %"
