"""Predicted beside measured peak memory: each tower and compute form of files in processes of their own.

Prints a Markdown table, then the errors in short: predicted over measured, and how many measured peaks lie above the
predicted high end. Measured figures go into a JSON file, from which the table can be made again without measuring, so
that constants can be fitted (``hwcheck/sigrun_hwcheck/constants.toml``).

    python -m benchmarks.memory model.gguf [more.gguf ...] --batch 1 --batch 2 --batch 8 --record seen.json
    python -m benchmarks.memory model.gguf --from seen.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import MIB
from benchmarks.exports import say
from sigrun_hwcheck.conditions import Conditions, installed_version
from sigrun_hwcheck.constants import Range
from sigrun_hwcheck.devices import devices
from sigrun_hwcheck.measure import Job, jobs, measure
from sigrun_hwcheck.measured import Measured, Measurements, read, write
from sigrun_hwcheck.memory import Need, need
from sigrun_hwcheck.probe import read_machine
from sigrun_hwcheck.stored import FORMS, Form, Stored, from_file
from sigrun_hwcheck.where import conditions


@dataclass(frozen=True)
class Line:
    """One peak, predicted and measured."""

    file: str
    job: Job
    predicted: Need
    measured: Measured

    @property
    def pairs(self) -> tuple[tuple[Range, int], ...]:
        """Load, run, and the larger of both: predicted, measured."""
        load, run = (phase.resident_bytes for phase in self.predicted.phases)
        seen = self.measured
        peak = max(seen.load_peak_bytes, seen.run_peak_bytes)
        return (
            (load, seen.load_peak_bytes),
            (run, seen.run_peak_bytes),
            (self.predicted.resident_bytes, peak),
        )


def main() -> int:
    """Measure and print."""
    arguments = _parser().parse_args()
    where = here()
    files = [from_file(path) for path in arguments.artifact]
    if arguments.recorded is None:
        seen = Measurements()
        for stored in files:
            todo = jobs(stored, "cpu", forms=arguments.form, batches=arguments.batch)
            outcome = measure(stored, todo, "cpu", where, on_progress=lambda job: say(str(job)))
            for failure in outcome.failures:
                say(f"{failure.job}: {failure.reason}")
            seen = seen.with_new(outcome.measured)
        if arguments.record is not None:
            write(arguments.record, seen)
    else:
        seen = read(arguments.recorded)
    found = [line for stored in files for line in lines(stored, seen, where)]
    print("\n".join([*table(found), "", *summary(found)]))
    return 0


def here() -> Conditions:
    """This machine's conditions, in main memory."""
    machine = read_machine()
    return conditions(machine, devices(machine)[0], installed_version())


def lines(stored: Stored, seen: Measurements, where: Conditions) -> list[Line]:
    """What was measured of a file, each beside its prediction, which knows nothing of it."""
    found = []
    for entry in sorted(seen.entries, key=lambda e: (FORMS.index(_form(e)), e.cached, e.tower, e.batch)):
        if entry.weights_sha256 != stored.weights_sha256:
            continue
        job = Job("image" if entry.tower == "image" else "text", _form(entry), entry.batch, entry.cached)
        predicted = need(stored, job.tower, job.form, job.batch, "cpu", where, cached=job.cached)
        assert predicted is not None  # it was measured
        found.append(Line(Path(stored.path or "").stem, job, predicted, entry))
    return found


def _form(entry: Measured) -> Form:
    return next(form for form in FORMS if form == entry.form)


def table(found: Sequence[Line]) -> list[str]:
    """The Markdown table, in MiB: low, best and high end of the prediction, then what was measured."""
    rows = [
        "| file | run | load, predicted | measured | running, predicted | measured | best / measured |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for line in found:
        load, run, peak = line.pairs
        cells = [_cells(*pair) for pair in (load, run)]
        ratio = peak[0].best_bytes / peak[1]
        rows.append(f"| {line.file} | {line.job} | {cells[0]} | {cells[1]} | {ratio:.3f} |")
    return rows


def _cells(predicted: Range, measured: int) -> str:
    low, best, high = (
        round(b / MIB) for b in (predicted.low_bytes, predicted.best_bytes, predicted.high_bytes)
    )
    return f"{low:,} – {best:,} – {high:,} | {measured / MIB:,.0f}"


def summary(found: Sequence[Line]) -> list[str]:
    """The errors in short."""
    if not found:
        return ["nothing was measured"]
    said = []
    for number, name in enumerate(("load", "running", "the larger of both")):
        pairs = [line.pairs[number] for line in found]
        ratios = sorted(predicted.best_bytes / measured for predicted, measured in pairs)
        above = sum(measured > predicted.high_bytes for predicted, measured in pairs)
        below = sum(measured < predicted.low_bytes for predicted, measured in pairs)
        said.append(
            f"{name}: best / measured {ratios[0]:.3f} to {ratios[-1]:.3f}, median {statistics.median(ratios):.3f}; "
            f"of {len(pairs)} measured, {above} above the high end, {below} below the low end"
        )
    return said


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", nargs="+")
    parser.add_argument("--form", action="append", choices=FORMS, default=[])
    parser.add_argument("--batch", action="append", type=int, default=[])
    parser.add_argument("--record", type=Path, help="where to keep what was measured")
    parser.add_argument("--from", dest="recorded", type=Path, help="compare with what was recorded")
    return parser


if __name__ == "__main__":
    sys.exit(main())
