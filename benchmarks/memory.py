"""Predicted beside measured peak memory: each tower and compute form of files in processes of their own.

Prints two Markdown tables: predicted over measured in short, by form, then every run. Without files it exports some
variants of the published size, random weights, and deletes them again. Measured figures may go into a JSON file, from
which the tables can be made again without measuring, so that constants can be fitted
(``hwcheck/sigrun_hwcheck/constants.toml``).

    python -m benchmarks.memory --plot docs/memory.svg
    python -m benchmarks.memory model.gguf [more.gguf ...] --batch 1 --batch 8 --batch 32 --record seen.json
    python -m benchmarks.memory model.gguf --from seen.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import MIB
from benchmarks.exports import WORK, convert, need_room, say
from benchmarks.memory_plot import Row, draw
from benchmarks.memory_spread import spread
from benchmarks.synthetic import checkpoint
from sigrun_hwcheck.conditions import Conditions, installed_version
from sigrun_hwcheck.constants import Range
from sigrun_hwcheck.devices import devices
from sigrun_hwcheck.measure import Job, jobs, measure
from sigrun_hwcheck.measured import Measured, Measurements, read, write
from sigrun_hwcheck.memory import Need, need
from sigrun_hwcheck.probe import read_machine
from sigrun_hwcheck.stored import FORMS, Form, Stored, from_file
from sigrun_hwcheck.where import conditions

VARIANTS = ("q4_k_m", "q8_0", "q6_k", "f16")
BATCHES = (1, 8, 32)  # each at most as many as the runtime runs at once
PHASES = ("loading", "running", "larger of both")
ROOM_BYTES = 8_000_000_000
OVER, UNDER = 1.05, 0.98
"""The bar for the best figure over the measured one."""


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
    with _files(arguments.artifact) as paths:
        found = _of(paths, arguments)
        again = _again(from_file(paths[0]), arguments.repeat) if arguments.repeat else ""
    if found and arguments.plot is not None:
        arguments.plot.write_text(draw(rows(found)), "utf-8")
        print(f"![Peak memory, predicted and measured]({arguments.plot})\n")
    print("\n".join([*summary(found), "", *table(found)]))
    if again:
        print(f"\nThe first file's runs of one item, {arguments.repeat} times each:\n\n{again}")
    return 0


@contextmanager
def _files(given: Sequence[str]) -> Iterator[Sequence[str]]:
    """The files to measure; made now and deleted again, where none were given."""
    if given:
        yield given
        return
    need_room(ROOM_BYTES)
    with tempfile.TemporaryDirectory(dir=WORK) as out:
        source = checkpoint()
        yield [str(convert(source, variant, Path(out), "--no-verify").path) for variant in VARIANTS]


def _again(stored: Stored, repeats: int) -> str:
    """A table of how far the peaks of the same run lie apart: one item, in the forms that a CPU computes in."""
    where = here()
    todo = jobs(stored, "cpu", forms=("exact", "int8"), batches=(1,))
    seen = []
    for number in range(repeats):
        outcome = measure(
            stored, todo, "cpu", where, on_progress=lambda job: say(f"{job}, run {number + 1}")  # noqa: B023
        )  # fmt: skip
        if not outcome.failures:
            seen.append(outcome.measured)
    return spread([str(job) for job in todo], seen)


def _of(paths: Sequence[str], arguments: argparse.Namespace) -> list[Line]:
    """What files take, measured now, or as it was recorded."""
    where = here()
    files = [from_file(path) for path in paths]
    seen = Measurements() if arguments.recorded is None else read(arguments.recorded)
    for stored in files if arguments.recorded is None else ():
        todo = jobs(stored, "cpu", forms=arguments.form, batches=arguments.batch or BATCHES)
        outcome = measure(stored, todo, "cpu", where, on_progress=lambda job: say(str(job)))
        for failure in outcome.failures:
            say(f"{failure.job}: {failure.reason}")
        seen = seen.with_new(outcome.measured)
    if arguments.record is not None:
        write(arguments.record, seen)
    return [line for stored in files for line in lines(stored, seen, where)]


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
    found_rows = [
        "| file | run | load, predicted | measured | running, predicted | measured | best / measured |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for line in found:
        load, run, peak = line.pairs
        cells = [_cells(*pair) for pair in (load, run)]
        ratio = peak[0].best_bytes / peak[1]
        found_rows.append(f"| {_variant(line.file)} | {line.job} | {cells[0]} | {cells[1]} | {ratio:.3f} |")
    return found_rows


def _cells(predicted: Range, measured: int) -> str:
    low, best, high = (
        round(b / MIB) for b in (predicted.low_bytes, predicted.best_bytes, predicted.high_bytes)
    )
    return f"{low:,} – {best:,} – {high:,} | {measured / MIB:,.0f}"


def summary(found: Sequence[Line]) -> list[str]:
    """The errors in short, by form and phase, as a Markdown table."""
    if not found:
        return ["nothing was measured"]
    said = [
        "| form | peak | runs | within the bar | best / measured: min | median | max | measured above best | "
        "above high | below low |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for form in FORMS:
        of = [line for line in found if line.job.form == form]
        for number, name in enumerate(PHASES if of else ()):
            pairs = [line.pairs[number] for line in of]
            ratios = sorted(predicted.best_bytes / measured for predicted, measured in pairs)
            above = sum(measured > predicted.high_bytes for predicted, measured in pairs)
            below = sum(measured < predicted.low_bytes for predicted, measured in pairs)
            more = sum(measured > predicted.best_bytes for predicted, measured in pairs)
            met = sum(meets_bar(predicted, measured) for predicted, measured in pairs)
            said.append(
                f"| {form} | {name} | {len(pairs)} | {met} | {ratios[0]:.3f} | {statistics.median(ratios):.3f} | "
                f"{ratios[-1]:.3f} | {more} | {above} | {below} |"
            )
    return said


def meets_bar(predicted: Range, measured: int) -> bool:
    """Whether the best figure is as near to what was measured as it is meant to be."""
    return UNDER <= predicted.best_bytes / measured <= OVER


def rows(found: Sequence[Line]) -> list[Row]:
    """What is drawn: the larger peak of each run."""
    return [
        Row(
            f"{_variant(line.file)}, {line.job.tower}, {line.job.form}{', cached' if line.job.cached else ''}, "
            f"batch {line.job.batch}",
            predicted.low_bytes,
            predicted.best_bytes,
            predicted.high_bytes,
            measured,
        )
        for line in found
        for predicted, measured in line.pairs[2:]
    ]


def _variant(file: str) -> str:
    return file.rpartition("-")[2]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact", nargs="*", help="files; none exports some of the published size")
    parser.add_argument("--form", action="append", choices=FORMS, default=[])
    parser.add_argument("--batch", action="append", type=int, default=[])
    parser.add_argument("--record", type=Path, help="where to keep what was measured")
    parser.add_argument("--from", dest="recorded", type=Path, help="compare with what was recorded")
    parser.add_argument("--plot", type=Path, help="where to draw them")
    parser.add_argument(
        "--repeat",
        type=int,
        default=0,
        help="also run one item of the first file so often, to see how far that varies",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
