"""Predictions beside what processes of their own really take, and their parts beside what exports really hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sigrun_exporters.export import Exported
from sigrun_hwcheck.conditions import Conditions, installed_version, instruction_set
from sigrun_hwcheck.constants import constants
from sigrun_hwcheck.devices import devices
from sigrun_hwcheck.measure import jobs, measure
from sigrun_hwcheck.measured import Measured
from sigrun_hwcheck.memory import default_compute, need
from sigrun_hwcheck.probe import read_machine
from sigrun_hwcheck.quantities import quantities
from sigrun_hwcheck.stored import FORMS, Form, Stored, from_file, from_plan
from sigrun_hwcheck.where import conditions, threads
from sigrun_recipes import TOWERS, default_model, load, names, plan

WITHIN = 0.2
"""How far the best figure may be from what is measured. So small a model is all libraries, of which each version and
each system maps other parts; true sizes are measured by ``python -m benchmarks.memory``."""

SO400M = default_model().architecture


@pytest.fixture(scope="module")
def here() -> Conditions:
    machine = read_machine()
    return conditions(machine, devices(machine)[0], installed_version())


@pytest.mark.parametrize("form", FORMS)
def test_the_peak_lies_within_the_prediction(emoji_q4: Path, form: Form, here: Conditions) -> None:
    stored = from_file(str(emoji_q4))
    outcome = measure(stored, jobs(stored, "cpu", forms=[form], batches=[8]), "cpu", here)
    assert not outcome.failures
    assert {entry.tower for entry in outcome.measured} == {"image", "text"}
    for entry in outcome.measured:
        _check(stored, entry, form, here)


def _check(stored: Stored, entry: Measured, form: Form, here: Conditions) -> None:
    tower = "image" if entry.tower == "image" else "text"
    found = need(stored, tower, form, entry.batch, "cpu", here, cached=entry.cached)
    assert found is not None
    expected = found.resident_bytes
    peak = max(entry.load_peak_bytes, entry.run_peak_bytes)
    assert expected.low_bytes <= peak <= expected.high_bytes
    assert abs(expected.best_bytes / peak - 1) < WITHIN
    load = found.phases[0].resident_bytes
    assert load.low_bytes <= entry.load_peak_bytes <= load.high_bytes
    assert entry.mapped_bytes < entry.run_peak_bytes
    assert entry.item_s > 0


@pytest.mark.parametrize("variant", names())
def test_a_recipe_foretells_how_graphs_take_each_weight(
    variant: str, emoji_variant: Callable[[str], Exported]
) -> None:
    """The exporter's graphs are the oracle; form int8 may leave more exact than the recipe can know."""
    file = emoji_variant(variant).path
    stored = from_file(str(file))
    foretold = {t.name: t for t in from_plan("m", plan(load(variant), stored.architecture)).tensors}
    assert {t.name for t in stored.tensors} == set(foretold)
    for tensor in stored.tensors:
        expected = dict(foretold[tensor.name].packings)
        taken = dict(tensor.packings)
        if taken.get("int8") != expected.get("int8"):
            assert (taken.pop("int8"), expected.pop("int8")) == (expected["exact"], "int8")
        assert taken == expected
        assert tensor.nbytes == foretold[tensor.name].nbytes


def test_a_copy_of_a_file_has_the_same_weights(tiny_q4: Path, emoji_q4: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny_q4.read_bytes())
    assert from_file(str(copy)).weights_sha256 == from_file(str(tiny_q4)).weights_sha256
    assert from_file(str(emoji_q4)).weights_sha256 != from_file(str(tiny_q4)).weights_sha256


def test_the_runtime_chooses_the_form_that_is_predicted(tiny_q4: Path, emoji_q4: Path) -> None:
    """An unverified file runs exact; a verified one as its verification allows."""
    from sigrun.artifact import Artifact
    from sigrun.choice import candidates

    for file in (tiny_q4, emoji_q4):
        with Artifact.open(file) as artifact:
            chosen = [candidates(artifact, tower, "auto", "cpu")[0].form for tower in artifact.towers]
        assert set(chosen) == {default_compute(from_file(str(file)), "cpu")}


def test_what_is_not_exported_yet_is_taken_to_pass() -> None:
    stored = from_plan("so400m", plan(load("q4_k_m"), SO400M))
    assert default_compute(stored, "cpu") == "int8"
    assert default_compute(stored, "cuda", 24 << 30) == "f16"
    assert default_compute(stored, "cuda", 1 << 30) == "w4f16"


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("variant", names())
def test_forms_hold_what_their_names_say(variant: str, tower: str) -> None:
    """Bytes a weight of the layers, SO400M: 1 in int8, 2 in f16; w4f16 never more than exact."""
    stored = from_plan("so400m", plan(load(variant), SO400M))
    name = "image" if tower == "image" else "text"
    int8, f16, exact, w4f16 = (quantities(stored, name, form) for form in ("int8", "f16", "exact", "w4f16"))
    assert 400e6 < int8.int8 < 450e6
    head = 2 * SO400M.tower(name).width ** 2 if tower == "image" else 0  # type: ignore[union-attr]
    assert f16.dense16 == 2 * (
        int8.int8 - head
    )  # the pooling head's keys and values are rounded in int8 alone
    assert w4f16.used + w4f16.dense + w4f16.dense16 <= exact.used + exact.dense
    assert exact.dense16 == exact.int8 == 0


def test_elsewhere_measured_figures_are_estimates_with_more_room() -> None:
    known = constants("cpu")
    same = constants("cpu", known.conditions)
    assert same.same and same.runtime.source == "measured"
    for other in (
        Conditions("Windows", "1.31.1", "avx512_vnni"),
        Conditions("Linux", "1.40.0", "avx512_vnni"),
        Conditions("Linux", "1.31.1", "avx2"),
        Conditions(),
    ):
        there = constants("cpu", other)
        assert not there.same and there.runtime.source == "estimated"
        assert there.runtime.best == known.runtime.best
        assert there.runtime.high > known.runtime.high
        assert there.forms["exact"].activations.high > known.forms["exact"].activations.high


def test_more_threads_round_more_matrices_at_once() -> None:
    stored = from_plan("so400m", plan(load("q4_k_m"), SO400M))
    few, many = (
        need(stored, "image", "int8", 1, "cpu", Conditions("Linux", "1.31.1", "avx512_vnni", None, count))
        for count in (2, 64)
    )
    assert few is not None and many is not None
    assert few.phases[0].bytes.high_bytes < many.phases[0].bytes.high_bytes


def test_conditions_here(here: Conditions) -> None:
    assert here.onnxruntime == installed_version() is not None
    assert here.device is not None and here.threads is not None


def test_the_best_instruction_set_counts() -> None:
    assert (
        instruction_set({"avx2": True, "avx512f": True, "avx512_vnni": True, "amx_int8": False})
        == "avx512_vnni"
    )
    assert instruction_set({"avx2": None, "neon": True}) == "neon"
    assert instruction_set({}) is None


def test_threads_are_the_runtimes() -> None:
    from sigrun.cpus import default_threads

    assert threads(read_machine().cpu) == default_threads()
