"""Measuring on cards and their slices, as far as that goes without one: NVML is a fake below the real binding."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from sigrun_hwcheck import check, measuring, peaks
from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.devices import devices
from sigrun_hwcheck.measure import Job, Start, measure
from sigrun_hwcheck.measured import Measurements, write
from sigrun_hwcheck.measuring import measure_files
from sigrun_hwcheck.stored import from_file
from sigrun_hwcheck.where import conditions
from tests.hwcheck_golden import machine
from tests.nvml_fake import Library, Part, installed
from tests.test_hwcheck_measure import ENTRY, SEEN

MIB = 1 << 20
ON_CARD = Conditions("Linux", "1.31.1", "8.0", "a card, 5 bytes", None)


def child(seen: dict[str, object], asked: list[list[str]]) -> Start:
    """A child that prints so; what it was asked is kept."""

    def start(
        command: Sequence[str], environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        asked.append(list(command))
        return subprocess.CompletedProcess(list(command), 0, json.dumps(seen), "")

    return start


def test_what_this_process_holds_is_told_from_what_others_do() -> None:
    other, own = 3000 * MIB, 700 * MIB
    with installed(Library([Part(running={1: other, os.getpid(): own})])):
        assert peaks.card_bytes("0") == own


def test_a_driver_that_does_not_tell_processes_apart_tells_all_that_is_used() -> None:
    whole = Part(total=100 * MIB, free=60 * MIB)
    for library in (
        Library([whole]),
        Library([replace(whole, running={os.getpid(): pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value})]),
        Library([whole], missing={"nvmlDeviceGetComputeRunningProcesses_v3"}),
    ):
        with installed(library):
            assert peaks.card_bytes("0") == 40 * MIB


def test_a_slice_is_asked_and_not_its_card() -> None:
    slices: list[Part | None] = [None, Part(running={os.getpid(): 5 * MIB})]
    with installed(Library([Part(), Part(running={os.getpid(): 9 * MIB}, slices=slices)])):
        assert peaks.card_bytes("1.1") == 5 * MIB
        assert peaks.card_bytes("1.0") is None
        assert peaks.card_bytes("1") == 9 * MIB


def test_without_a_library_or_memory_nothing_is_known() -> None:
    with installed(None):
        assert peaks.card_bytes("0") is None
    silent = {"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_NO_PERMISSION}
    with installed(Library([Part(fails=silent)])):
        assert peaks.card_bytes("0") is None


def test_what_a_card_holds_is_what_the_driver_says(tiny_q4: Path) -> None:
    stored, asked = from_file(str(tiny_q4)), list[list[str]]()
    start = child({**SEEN, "device_bytes": 900 * MIB}, asked)
    outcome = measure(stored, [Job("image", "f16", 1)], "cuda", ON_CARD, card="0.1", start=start)
    assert asked[0][-2:] == ["--card", "0.1"]
    (entry,) = outcome.measured
    assert (entry.base_bytes, entry.mapped_bytes) == (0, 0)
    assert (entry.load_peak_bytes, entry.run_peak_bytes) == (900 * MIB, 900 * MIB)


def test_main_memory_never_stands_for_a_card_s(tiny_q4: Path) -> None:
    """Where the driver does not tell, there is no figure; a card that works in main memory has the process's peak."""
    stored, todo = from_file(str(tiny_q4)), [Job("image", "f16", 1)]
    start = child(SEEN, [])
    outcome = measure(stored, todo, "cuda", ON_CARD, card="0", start=start)
    assert not outcome.measured
    assert "the driver does not tell" in outcome.failures[0].reason
    outcome = measure(stored, todo, "cuda", ON_CARD, card=None, start=start)
    assert outcome.measured[0].run_peak_bytes == SEEN["run_peak_bytes"]


def test_every_card_and_slice_has_conditions_of_its_own() -> None:
    for name in ("a100_slices", "two_unequal_cards"):
        there = machine(name)
        cards = [device for device in devices(there) if device.key != "ram"]
        found = [conditions(there, device, "1.31.1") for device in cards]
        assert len({one.device for one in found}) == len(found) == 2
        assert all(one.device and one.instructions for one in found)


@pytest.mark.parametrize(
    ("name", "key", "card"), [("a100_slices", "nvidia:0.0", "0.0"), ("two_rtx_4090", "nvidia:0", "0")]
)
def test_what_was_measured_on_a_card_or_slice_is_used_there(
    name: str, key: str, card: str, tiny_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGRUN_CACHE", str(tmp_path))
    monkeypatch.setattr("sigrun_hwcheck.api.read_machine", lambda: machine(name))
    monkeypatch.setattr(measuring, "installed_version", lambda: "1.31.1")
    asked: list[list[str]] = []
    real = measuring.measure
    start = child({**SEEN, "device_bytes": 900 * MIB}, asked)
    monkeypatch.setattr(measuring, "measure", lambda *a, **k: real(*a, **k, start=start))
    found = measure_files([tiny_q4], machine(name), compute="f16", provider="cuda")
    assert not found.failures
    assert {command[-1] for command in asked} == {card}
    rows = {row.place.key: row for row in check([tiny_q4], compute="f16").rows if row.tower == "image"}
    assert rows[key].last.need.source == "measured here"
    assert rows[key].last.need.bytes.best_bytes == 900 * MIB
    others = {row.last.need.source for where, row in rows.items() if where != key}
    assert (
        "measured here" not in others or name == "two_rtx_4090"
    )  # twins: what holds for one holds for the other


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_keeping(
    tiny_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be", "utf-8")
    monkeypatch.setenv("SIGRUN_CACHE", str(tmp_path / "cache"))
    real = measuring.measure
    monkeypatch.setattr(measuring, "measure", lambda *a, **k: real(*a, **k, start=child(SEEN, [])))
    found = measure_files([tiny_q4], machine("laptop_8gb"), tower="text", compute="exact", batches=[1])
    assert found.comparisons
    assert found.kept is None
    assert "Nothing of it is kept" in " ".join(measuring.text(found).split())
    with pytest.raises(OSError, match="cache"):
        write(tmp_path / "cache" / "measured.json", Measurements((ENTRY,)))
