"""Measuring on the spot: what is run, what its failures are called, what is kept, and that predictions use it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from sigrun.batches import micro_batch
from sigrun_hwcheck import measure_child, measured, peaks
from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.measure import Job, Start, jobs, measure
from sigrun_hwcheck.measured import FILE, Measured, Measurements, default_file, read, write
from sigrun_hwcheck.memory import need
from sigrun_hwcheck.speed import speed
from sigrun_hwcheck.stored import FORMS, Stored, from_file

HERE = Conditions("Linux", "1.31.1", "avx2", "a CPU, 2 threads", 2)
SEEN = {
    "base_bytes": 60_000_000,
    "load_peak_bytes": 300_000_000,
    "loaded_bytes": 290_000_000,
    "run_peak_bytes": 250_000_000,
    "apart": True,
    "mapped_bytes": 20_000_000,
    "device_bytes": None,
    "load_s": 1.5,
    "item_s": 0.25,
    "threads": 2,
}
ENTRY = Measured(
    weights_sha256="0" * 64,
    tower="image",
    form="exact",
    provider="cpu",
    device="a CPU, 2 threads",
    onnxruntime="1.31.1",
    threads=2,
    batch=1,
    cached=False,
    base_bytes=60_000_000,
    load_peak_bytes=300_000_000,
    run_peak_bytes=250_000_000,
    mapped_bytes=20_000_000,
    load_s=1.5,
    item_s=0.25,
)


@pytest.fixture(scope="module")
def stored(tiny_q4: Path) -> Stored:
    return from_file(str(tiny_q4))


def answers(code: int, out: str = "", err: str = "") -> Start:
    """A child that ends so."""

    def start(
        command: Sequence[str], environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(list(command), code, out, err)

    return start


def test_every_tower_and_form_is_measured_at_one_item_and_at_the_most(stored: Stored) -> None:
    todo = jobs(stored, "cpu")
    assert {job.tower for job in todo} == {"image", "text"}
    assert {job.form for job in todo} == {"exact", "int8", "f16", "w4f16"}
    for form in FORMS:
        sizes = {job.batch for job in todo if job.tower == "text" and job.form == form}
        assert sizes == {1, micro_batch(64, form)}
    for before, job in pairwise(todo):
        if job.cached:  # the run before fills the cache
            assert before == replace(job, cached=False)
    assert all((job.form == "int8") == (replace(job, cached=True) in todo) for job in todo if not job.cached)


def test_batches_beyond_the_micro_batch_are_measured_once(stored: Stored) -> None:
    todo = jobs(stored, "cpu", towers=["text"], forms=["exact"], batches=[2, 100, 1000])
    assert todo == (Job("text", "exact", 2), Job("text", "exact", micro_batch(64, "exact")))


def test_a_child_is_asked_for_exactly_the_job(stored: Stored) -> None:
    asked: list[list[str]] = []
    caches: list[str] = []

    def start(
        command: Sequence[str], environment: dict[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        asked.append(list(command))
        caches.append(environment["SIGRUN_CACHE"])
        return subprocess.CompletedProcess(list(command), 0, json.dumps(SEEN), "")

    todo = (Job("text", "int8", 3), Job("text", "int8", 3, cached=True), Job("text", "int8", 1))
    outcome = measure(stored, todo, "cpu", HERE, start=start)
    assert not outcome.failures
    assert asked[0][:3] == [sys.executable, "-m", "sigrun_hwcheck.measure_child"]
    assert asked[0][3:6] == [stored.path, "text", "int8"]
    assert asked[0][asked[0].index("--batch") + 1] == "3"
    assert caches[0] == caches[1] != caches[2]  # only the second finds what another left
    first = outcome.measured[0]
    assert (first.tower, first.form, first.batch, first.cached) == ("text", "int8", 3, False)
    assert (first.load_peak_bytes, first.run_peak_bytes, first.item_s) == (300_000_000, 250_000_000, 0.25)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (answers(-9), "lack of memory"),
        (answers(137), "lack of memory"),
        (answers(-11), "signal 11"),
        (answers(3, err="warning\nArtifactError: x.gguf: is damaged\n"), "ArtifactError: x.gguf: is damaged"),
        (answers(1), "said nothing"),
        (answers(0, out="hello"), "no figures"),
        (answers(0, out='{"load_peak_bytes": null}'), "no figures"),
    ],
)
def test_a_child_that_fails_is_told(stored: Stored, start: Start, reason: str) -> None:
    outcome = measure(stored, [Job("image", "exact", 1)], "cpu", HERE, start=start)
    assert not outcome.measured
    assert [failure.job for failure in outcome.failures] == [Job("image", "exact", 1)]
    assert reason in outcome.failures[0].reason


def test_a_run_that_takes_too_long_is_stopped_and_told(stored: Stored) -> None:
    outcome = measure(stored, [Job("image", "exact", 1)], "cpu", HERE, timeout_s=0.001)
    assert "longer than 0.001 s" in outcome.failures[0].reason


def test_a_run_that_will_not_fit_is_left_out(stored: Stored) -> None:
    outcome = measure(
        stored,
        [Job("image", "exact", 1)],
        "cpu",
        HERE,
        free_bytes=1 << 20,
        start=answers(0, json.dumps(SEEN)),
    )
    assert "1.00 MiB is free" in outcome.failures[0].reason


def test_what_is_not_exported_cannot_be_measured(stored: Stored) -> None:
    with pytest.raises(ValueError, match="not exported"):
        measure(replace(stored, weights_sha256=None), [], "cpu", HERE)
    with pytest.raises(ValueError, match="version"):
        measure(stored, [], "cpu", replace(HERE, onnxruntime=None))


def test_measured_figures_replace_predicted_ones(stored: Stored) -> None:
    entry = replace(ENTRY, weights_sha256=stored.weights_sha256 or "", mapped_bytes=20_000_000)
    found = need(stored, "image", "exact", 1, "cpu", HERE, measured=Measurements((entry,)))
    assert found is not None
    load, run = found.phases
    assert (load.resident_bytes.best_bytes, run.resident_bytes.best_bytes) == (300_000_000, 250_000_000)
    assert found.bytes.best_bytes == 280_000_000  # pages of files can be taken back
    assert found.bytes.low_bytes < found.bytes.best_bytes < found.bytes.high_bytes
    assert found.source == "measured here"
    fast = speed(stored, "image", "exact", 1, "cpu", HERE, measured=Measurements((entry,)))
    assert fast is not None
    assert (fast.best_s, fast.source) == (0.25, "measured here")


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "1" * 64},
        {"device": "another CPU"},
        {"onnxruntime": "1.32.0"},
        {"provider": "cuda"},
        {"form": "int8"},
        {"tower": "text"},
        {"batch": 2},
    ],
)
def test_what_was_measured_of_something_else_is_not_used(stored: Stored, change: dict[str, object]) -> None:
    entry = replace(ENTRY, **{"weights_sha256": stored.weights_sha256, **change})  # type: ignore[arg-type]
    predicted = need(stored, "image", "exact", 1, "cpu", HERE)
    assert need(stored, "image", "exact", 1, "cpu", HERE, measured=Measurements((entry,))) == predicted


def test_both_towers_in_one_process_share_the_libraries(stored: Stored) -> None:
    sha = stored.weights_sha256 or ""
    image, text = (
        replace(ENTRY, weights_sha256=sha, tower=t, load_peak_bytes=240_000_000) for t in ("image", "text")
    )
    found = need(stored, "both", "exact", 1, "cpu", HERE, measured=Measurements((image, text)))
    assert found is not None
    assert found.resident_bytes.best_bytes == 2 * 250_000_000 - 60_000_000
    one = need(stored, "both", "exact", 1, "cpu", HERE, measured=Measurements((image,)))
    assert one == need(stored, "both", "exact", 1, "cpu", HERE)


def test_measurements_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "new" / FILE
    write(file, Measurements((ENTRY,)))
    assert read(file) == Measurements((ENTRY,))
    newer = replace(ENTRY, item_s=0.5)
    other = replace(ENTRY, batch=2)
    write(file, read(file).with_new([newer, other]))
    assert read(file) == Measurements((newer, other))
    assert [p.name for p in file.parent.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"format": 99, "measured": []}',
        '{"format": 1, "measured": 3}',
        '{"format": 1, "measured": [3, {}, {"tower": "image"}]}',
    ],
)
def test_a_damaged_file_of_measurements_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / FILE
    file.write_text(text, "utf-8")
    assert read(file) == Measurements()
    assert read(tmp_path / "none") == read(None) == Measurements()


@pytest.mark.parametrize(("name", "value"), [("item_s", "1"), ("batch", -1), ("batch", True), ("tower", 3)])
def test_an_entry_with_a_wrong_value_is_left_out(tmp_path: Path, name: str, value: object) -> None:
    file = tmp_path / FILE
    write(file, Measurements((ENTRY, replace(ENTRY, batch=2))))
    data = json.loads(file.read_text("utf-8"))
    data["measured"][0][name] = value
    file.write_text(json.dumps(data), "utf-8")
    assert read(file) == Measurements((replace(ENTRY, batch=2),))


def test_where_measurements_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIGRUN_CACHE", "off")
    assert default_file() is None
    monkeypatch.setenv("SIGRUN_CACHE", str(tmp_path))
    assert default_file() == tmp_path / measured.FILE


def test_a_child_says_in_one_line_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_child.main([str(tmp_path / "none.gguf"), "image", "exact"]) == measure_child.FAILED
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert "none.gguf" in shown.err


def test_a_peak_is_seen_and_forgotten() -> None:
    before = peaks.peak_bytes()
    held = bytearray(96 << 20)
    held[:: 1 << 12] = b"\1" * len(held[:: 1 << 12])
    after = peaks.peak_bytes()
    assert before is not None and after is not None
    assert after >= peaks.resident_bytes() - (8 << 20)  # type: ignore[operator]
    del held
    if peaks.forget_peak():
        now = peaks.peak_bytes()
        assert now is not None and now <= after - (64 << 20)
