"""``hwcheck --measure``: runs what was predicted, and says how far off the prediction was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sigrun.errors import SigrunError
from sigrun_hwcheck import measured as measurements
from sigrun_hwcheck.conditions import installed_version
from sigrun_hwcheck.machine import Machine
from sigrun_hwcheck.measure import Failure, Job, jobs, measure
from sigrun_hwcheck.measured import Measured
from sigrun_hwcheck.memory import Compute, Need, TowerChoice, need
from sigrun_hwcheck.places import MEASURED_AS, Place, places
from sigrun_hwcheck.stored import Stored, from_file
from sigrun_hwcheck.table import Column, Table, wrapped
from sigrun_hwcheck.tables import label, position
from sigrun_hwcheck.units import size
from sigrun_hwcheck.where import conditions
from sigrun_recipes import TowerName

FORMAT = 1


class MeasureError(SigrunError):
    """There is nothing to measure, or nothing to measure it on."""


@dataclass(frozen=True)
class Comparison:
    """One run: what was predicted of it, and what it took."""

    stored: Stored
    job: Job
    predicted: Need
    measured: Measured

    @property
    def share(self) -> float:
        """The predicted peak over the measured one."""
        peak = max(self.measured.load_peak_bytes, self.measured.run_peak_bytes)
        return self.predicted.resident_bytes.best_bytes / max(1, peak)


@dataclass(frozen=True)
class Measuring:
    """What came of measuring some files, and where it is kept (``None``: nowhere)."""

    variants: tuple[Stored, ...]
    comparisons: tuple[Comparison, ...]
    failures: tuple[tuple[Stored, Failure], ...]
    kept: Path | None


def measure_files(
    files: Sequence[str | Path],
    machine: Machine,
    *,
    tower: TowerChoice | None = None,
    compute: Compute = "auto",
    provider: str = "auto",
    batches: Sequence[int] = (),
    anyway: bool = False,
    on_progress: Callable[[int, int, str], object] | None = None,
) -> Measuring:
    """Measure files, each tower and form in a process of its own, and keep what comes of it for later predictions.

    Args:
        files: exported ``.gguf`` files.
        machine: this machine.
        tower: one of them; ``None`` or ``both``: every one.
        compute: one compute form; ``auto`` for all that the file has.
        provider: ``auto`` and ``cpu`` for the CPU, ``cuda`` for the first card.
        batches: batch sizes; none: one item, and as many as are run at once.
        anyway: also run what needs more than is free by prediction.
        on_progress: called before each run with its number, how many there are, and which it is.

    Raises:
        StoredFileError: a file is missing, unreadable, damaged or foreign.
        MeasureError: ONNX Runtime is not installed, or the provider cannot be measured.
        OutputError: what was measured cannot be kept.
    """
    place = _place(machine, provider)
    variants = tuple(from_file(str(file)) for file in files)
    towers: tuple[TowerName, ...] = () if tower in (None, "both") else (tower,)  # type: ignore[assignment]
    forms = () if compute == "auto" else (compute,)
    where = conditions(machine, place.device, installed_version())
    if where.onnxruntime is None:
        raise MeasureError(
            "ONNX Runtime is not installed: nothing can be run",
            hint="pip install 'sigrun[cpu]' (in a clone: pip install '.[cpu]')",
        )
    todo = [
        (s, jobs(s, place.costs, towers=[t for t in towers if t in s.towers], forms=forms, batches=batches))
        for s in variants
        if not towers or set(towers) & set(s.towers)
    ]
    count = sum(len(of_file) for _, of_file in todo)
    if not count:
        raise MeasureError("no file has a tower and compute form as asked for")
    comparisons: list[Comparison] = []
    failures: list[tuple[Stored, Failure]] = []
    done = 0

    def begin(job: Job) -> None:
        nonlocal done
        if on_progress is not None:
            on_progress(done, count, str(job))
        done += 1

    for stored, of_file in todo:
        outcome = measure(
            stored,
            of_file,
            place.costs,
            where,
            card=None if place.device.shares_ram else place.key.partition(":")[2],
            free_bytes=None if anyway else place.device.free_bytes,
            on_progress=begin,
        )
        failures += [(stored, failure) for failure in outcome.failures]
        for job in of_file:
            found = next((m for m in outcome.measured if _of(m, job)), None)
            predicted = need(stored, job.tower, job.form, job.batch, place.costs, where, cached=job.cached)
            if found is not None and predicted is not None:
                comparisons.append(Comparison(stored, job, predicted, found))
    kept = _keep([c.measured for c in comparisons])
    return Measuring(variants, tuple(comparisons), tuple(failures), kept)


def _place(machine: Machine, provider: str) -> Place:
    name = "cpu" if provider == "auto" else provider
    found = next((p for p in places(machine) if p.asked_as == name), None)
    if name not in ("cpu", MEASURED_AS) or found is None:
        raise MeasureError(
            f"'{provider}' cannot be measured here",
            hint="measured are cpu and, on the first NVIDIA card, cuda",
        )
    return found


def _of(one: Measured, job: Job) -> bool:
    return (one.tower, one.form, one.batch, one.cached) == (job.tower, job.form, job.batch, job.cached)


def _keep(new: Sequence[Measured]) -> Path | None:
    file = measurements.default_file()
    if file is None or not new:
        return None
    try:
        measurements.write(file, measurements.read(file).with_new(new))
    except OSError:
        return None  # the answer stands without it
    return file


def text(found: Measuring) -> str:
    """A line for each run, ending in a newline."""
    parts = []
    if found.comparisons:
        parts.append([*_table(found).text()])
        parts.append(
            wrapped(
                "Peaks of resident memory: the best prediction and what was measured. Off: how far the prediction of "
                "the higher peak is from it."
            )
        )
    if found.failures:
        parts.append(
            [line for stored, failure in found.failures for line in _failure(found, stored, failure)]
        )
    if found.comparisons:
        end = "hwcheck uses these from now on, for these files on this machine."
        parts.append(
            wrapped(
                end if found.kept is not None else "Nothing of it is kept: there is no cache to keep it in."
            )
        )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _failure(found: Measuring, stored: Stored, failure: Failure) -> list[str]:
    return wrapped(f"{label(found.variants, stored)}, {failure.job}: {failure.reason}", rest="  ")


def _table(found: Measuring) -> Table:
    lines = []
    for one in found.comparisons:
        load, run = one.predicted.phases
        form = f"{one.job.form}, cached" if one.job.cached else one.job.form
        lines.append(
            (
                label(found.variants, one.stored),
                one.job.tower,
                form,
                str(one.job.batch),
                size(load.resident_bytes.best_bytes),
                size(one.measured.load_peak_bytes),
                size(run.resident_bytes.best_bytes),
                size(one.measured.run_peak_bytes),
                f"{100 * (one.share - 1):+.1f} %",
                f"{one.measured.item_s:.3g}",
            )
        )
    columns = (
        Column("variant"),
        Column("tower"),
        Column("form"),
        Column("batch", right=True),
        Column("load:", right=True),
        Column("measured", right=True),
        Column("run:", right=True),
        Column("measured", right=True),
        Column("off", right=True),
        Column("s/item", right=True),
    )
    return Table(columns, tuple(lines))


def to_json(found: Measuring) -> dict[str, Any]:
    """What was measured as a plain dictionary: ``measure.schema.json`` describes it."""
    return {
        "format": FORMAT,
        "variants": [{"model": s.model, "variant": s.variant, "path": s.path} for s in found.variants],
        "runs": [
            {
                "variant": position(found.variants, one.stored),
                "predicted": {phase.name: asdict(phase.resident_bytes) for phase in one.predicted.phases},
                "source": one.predicted.source,
                "measured": asdict(one.measured),
                "share": one.share,
            }
            for one in found.comparisons
        ],
        "failures": [
            {"variant": position(found.variants, stored), **asdict(failure.job), "reason": failure.reason}
            for stored, failure in found.failures
        ],
        "kept": found.kept is not None,
    }
