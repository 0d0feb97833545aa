"""The proof of the memory figures: predicted beside measured peaks of towers as wide as SO400M's, in child processes.

Peaks depend on the C library, the version of ONNX Runtime and the kernels that it picks for the processor: the bar
holds under the conditions that the constants name, on a machine that does nothing else, and is asked for with
``SIGRUN_PROOF=all``; elsewhere only that the high end is never below. So it is where int8 matrices are made and not
read from the cache, and in form f16: of arrays below 4 MiB threads leave behind what they happen to, up to 25 MiB,
which in so shallow a tower is more than the bar. Form exact meets it while it is loaded; while it runs, what its pieces
leave in the heap is up to 25 MiB too. At the published size the benchmark's table (``python -m benchmarks.memory``)
counts what meets the bar, in both phases. What misses the bar is measured once more. ``SIGRUN_PROOF=all`` runs
every combination, which takes minutes; by default a few are run.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from benchmarks.memory import Line, lines, meets_bar
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import Settings, export
from sigrun_hwcheck.conditions import Conditions, installed_version
from sigrun_hwcheck.constants import constants
from sigrun_hwcheck.devices import devices
from sigrun_hwcheck.measure import Job, jobs, measure
from sigrun_hwcheck.measured import Measurements
from sigrun_hwcheck.probe import read_machine
from sigrun_hwcheck.stored import Form, Stored, from_file
from sigrun_hwcheck.where import conditions
from sigrun_recipes import Architecture, default_model, load
from tests import checkpoints

EVERYTHING = os.environ.get("SIGRUN_PROOF") == "all"
CASES: tuple[tuple[str, Form], ...] = (
    *((variant, form) for variant in ("f32", "f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m") for form in ("exact", "int8")),
    ("q4_k_m", "f16"),
) if EVERYTHING else (("q4_k_m", "exact"), ("q4_k_m", "int8"), ("q8_0", "exact"))  # fmt: skip
BATCHES = (1, 8, 32)
ATTEMPTS = 2
SO400M = default_model().architecture
assert SO400M.image is not None and SO400M.text is not None
SHALLOW = Architecture(
    dataclasses.replace(SO400M.image, layers=2),
    dataclasses.replace(SO400M.text, layers=2, vocabulary=checkpoints.EMOJI_VOCABULARY),
)


@pytest.fixture(scope="module")
def here() -> Conditions:
    machine = read_machine()
    return conditions(machine, devices(machine)[0], installed_version())


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stored]:
    """A variant of a checkpoint of SO400M's widths, with two layers a tower."""
    folder = tmp_path_factory.mktemp("proof")
    source = checkpoints.write(folder / "shallow", SHALLOW)

    @cache
    def variant(name: str) -> Stored:
        recipe = dataclasses.replace(load(name), max_bits_per_weight=32.0)
        exported = export(open_checkpoint(str(source)), recipe, folder, Settings(verify=False))
        return from_file(str(exported.path))

    return variant


@pytest.mark.parametrize(("variant", "form"), CASES)
def test_predicted_peaks_are_the_measured_ones(
    variant: str, form: Form, shallow: Callable[[str], Stored], here: Conditions
) -> None:
    stored = shallow(variant)
    todo = _chosen(jobs(stored, "cpu", forms=[form], batches=BATCHES))
    same = EVERYTHING and constants("cpu").conditions.covers(here)
    met: set[Job] = set()
    missed: list[Line] = []
    for _ in range(ATTEMPTS):  # of all: a run from the cache needs the one before it
        outcome = measure(stored, todo, "cpu", here)
        assert not outcome.failures
        found = lines(stored, Measurements(outcome.measured), here)
        assert len(found) == len(todo) > 0
        for line in found:
            for predicted, measured in line.pairs:
                assert measured <= predicted.high_bytes, _said(line)
        met |= {line.job for line in found if _met(line)}
        missed = [line for line in found if same and _held(line.job) and line.job not in met]
        if not missed:
            return
    assert not missed, "\n".join(map(_said, missed))


def _held(job: Job) -> bool:
    """Whether what threads leave behind is less than the bar."""
    return job.cached if job.form == "int8" else job.form == "exact"


def _met(line: Line) -> bool:
    """Whether the best figures meet the bar: of both phases, in form exact of loading.

    How many pages of the file come with a row of the token table that is looked up depends on how the system happens to
    cache it, and it takes them back at need: those beyond the predicted ones are not counted.
    """
    (load, loading), (run, running), _ = line.pairs
    foreseen = sum(t.bytes.best_bytes for t in line.predicted.phases[1].terms if t.reclaimable)
    running -= max(0, line.measured.mapped_bytes - foreseen)
    pairs = ((load, loading),) if line.job.form == "exact" else ((load, loading), (run, running))
    return all(meets_bar(predicted, measured) for predicted, measured in pairs)


def _chosen(todo: tuple[Job, ...]) -> list[Job]:
    """Without ``SIGRUN_PROOF=all`` only the ends: one item, and as many as run at once."""
    if EVERYTHING:
        return list(todo)
    ends = {job.tower: max(j.batch for j in todo if j.tower == job.tower) for job in todo}
    return [job for job in todo if job.batch in (1, ends[job.tower])]


def _said(line: Line) -> str:
    load, run = (
        f"{r.low_bytes:,} - {r.best_bytes:,} - {r.high_bytes:,} bytes predicted, {measured:,} measured"
        for r, measured in line.pairs[:2]
    )
    return f"{line.file}, {line.job}: loading {load}; running {run}"


def test_files_are_measured_where_they_lie(shallow: Callable[[str], Stored]) -> None:
    """The widths are the published ones, so that kernels and pieces of memory are too."""
    stored = shallow("q4_k_m")
    assert Path(stored.path or "").is_file()
    image, text = stored.architecture.image, stored.architecture.text
    assert image is not None and text is not None
    hidden = {t.name: t.shape[0] for t in stored.tensors if t.name.endswith("ffn_up.weight")}
    assert (image.width, image.tokens, image.heads, hidden["v.blk.0.ffn_up.weight"]) == (1152, 729, 16, 4352)
    assert (text.width, text.context, text.heads, hidden["t.blk.0.ffn_up.weight"]) == (1152, 64, 16, 4352)
    assert {*hidden.values()} == {4352}
