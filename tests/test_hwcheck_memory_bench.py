"""What the benchmark of memory says: its tables and its drawing, from figures made up."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.memory import Line, lines, rows, summary, table
from benchmarks.memory_plot import Row, draw
from benchmarks.memory_spread import spread
from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.measured import Measured, Measurements
from sigrun_hwcheck.stored import from_file

HERE = Conditions("Linux", "1.31.1", "avx512_vnni", "a processor", 2)
MIB = 1 << 20


@pytest.fixture
def found(tiny_q4: Path) -> list[Line]:
    """Three runs of one file: as foretold, a tenth more than the best figure, and beyond the high end."""
    stored = from_file(str(tiny_q4))
    assert stored.weights_sha256 is not None
    blank = Measured(
        stored.weights_sha256, "image", "exact", "cpu", "a processor", "1.31.1", 2, 1, False, 0, 1, 1, 0, 1.0, 1.0
    )  # fmt: skip
    runs = [blank, replace(blank, tower="text"), replace(blank, tower="text", batch=8)]
    foreign = replace(blank, weights_sha256="0")
    expected = [line.predicted for line in lines(stored, Measurements((*runs, foreign)), HERE)]
    assert len(expected) == 3
    seen = []
    for run, need, share in zip(runs, expected, (1.0, 1.1, None), strict=True):
        load, high = (phase.resident_bytes for phase in need.phases)
        bytes_ = [r.high_bytes + MIB if share is None else round(share * r.best_bytes) for r in (load, high)]
        seen.append(replace(run, load_peak_bytes=bytes_[0], run_peak_bytes=bytes_[1]))
    return lines(stored, Measurements(tuple(seen)), HERE)


def test_the_summary_counts_what_was_missed(found: list[Line]) -> None:
    _, _, *said = summary(found)
    assert [line.split(" | ")[:3] for line in said] == [
        ["| exact", name, "3"] for name in ("loading", "running", "larger of both")
    ]
    for line in said:
        _, name, _, met, least, median, most, above_best, above_high, below_low = line.strip("| ").split(
            " | "
        )
        assert float(least) < float(median) == 0.909
        assert float(most) == 1.0
        assert met == "1", name  # of three, one is as predicted
        assert (above_best, above_high, below_low) == ("2", "1", "0")
    assert summary([]) == ["nothing was measured"]


def test_the_table_has_every_run(found: list[Line]) -> None:
    head, rule, *runs = table(found)
    assert len(runs) == 3
    assert {line.count("|") for line in (head, rule, *runs)} == {head.count("|")}
    assert "image tower, exact, batch 1" in runs[0]


def test_the_drawing_shows_every_run(found: list[Line]) -> None:
    drawn = rows(found)
    assert [row.name for row in drawn] == [
        "q4_k_m, image, exact, batch 1",
        "q4_k_m, text, exact, batch 1",
        "q4_k_m, text, exact, batch 8",
    ]
    text = draw(drawn)
    root = ET.fromstring(text)
    namespace = {"s": "http://www.w3.org/2000/svg"}
    assert len(root.findall("s:g", namespace)) == 3
    assert "prefers-color-scheme: dark" in text
    first = root.findall("s:g", namespace)[0]
    interval, mark = first.findall("s:rect", namespace)
    assert float(interval.attrib["x"]) < float(mark.attrib["x"]) + 3.5
    assert first.findall("s:text", namespace)[1].text == f"{drawn[0].measured / MIB:,.0f}   +0.0 %"


def test_twice_the_memory_is_as_far_everywhere() -> None:
    """The scale doubles; intervals keep to it."""
    text = draw(
        [Row("one", 1 << 30, 1 << 30, 2 << 30, 1 << 30), Row("two", 2 << 30, 2 << 30, 4 << 30, 4 << 30)]
    )
    namespace = {"s": "http://www.w3.org/2000/svg"}
    widths = [
        float(g.findall("s:rect", namespace)[0].attrib["width"])
        for g in ET.fromstring(text).findall("s:g", namespace)
    ]
    assert widths[0] == widths[1] > 0


def test_the_spread_is_that_between_the_least_and_the_largest(found: list[Line]) -> None:
    one = found[0].measured
    peaks = ((100, 200), (104, 202), (101, 230))
    repeats = [[replace(one, load_peak_bytes=load * MIB, run_peak_bytes=run * MIB)] for load, run in peaks]
    assert spread(["a run"], repeats).splitlines()[-1] == "| a run | 100 – 104 | 4.0 % | 200 – 230 | 15.0 % |"
