"""What hwcheck says, sentence by sentence, and how it looks in a narrow terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sigrun_hwcheck import api, check, cli, on_cards, predicted, probe, report, report_gpus, suppose
from sigrun_hwcheck.stored import from_file
from sigrun_hwcheck.table import LEAST_WIDTH, Column, Table, room, wrapped
from sigrun_hwcheck.units import GIB
from tests.hwcheck_golden import MACHINES, NAMES, machine


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (api, probe):
        monkeypatch.setattr(module, "read_machine", lambda: machine("laptop_8gb"))
    monkeypatch.setenv("SIGRUN_CACHE", str(tmp_path))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command prints, on one line."""

    def run(*words: str) -> str:
        cli.main([*words])
        return " ".join(capsys.readouterr().out.split())

    return run


@pytest.mark.parametrize(
    ("columns", "expected"), [("200", 80), ("80", 80), ("60", 60), ("7", LEAST_WIDTH), ("", 80)]
)
def test_a_text_is_as_wide_as_the_terminal_but_no_wider_than_80(
    columns: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert room() == expected
    assert max(map(len, wrapped("so many words " * 30))) <= expected


@pytest.mark.parametrize("columns", [60, 40])
@pytest.mark.parametrize(
    "arguments", [[], ["gpus"], ["models"], ["--all"], ["--ram", "1GiB", "--vram", "2GiB"]]
)
def test_narrow_terminals(
    columns: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(arguments)
    usual = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", str(columns))
    cli.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > columns and not line.startswith("  sigrun")] == []
    figures = re.compile(r"[\d.]+ [MG]iB")
    narrow = " ".join(line.strip() for line in lines)
    assert set(figures.findall(" ".join(usual.split()))) == set(figures.findall(narrow))


def test_a_table_that_a_narrow_terminal_has_no_room_for_is_paragraphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    columns = (
        Column("variant"),
        Column("on disk", right=True),
        Column("both ", right=True),
        Column("verdict"),
    )
    table = Table(columns, (("q4_k_m", "538 MiB", "1.01 GiB ", "fits"), ("", "1 GiB", "", "does not fit")))
    monkeypatch.setenv("COLUMNS", "45")
    assert next(table.text()).split() == ["variant", "on", "disk", "both", "verdict"]
    monkeypatch.setenv("COLUMNS", "38")
    assert [*table.text()] == [
        "q4_k_m",
        "  on disk 538 MiB, both 1.01 GiB,",
        "  verdict fits",
        "  on disk 1 GiB, verdict does not fit",
    ]


def test_the_tables_of_cards_fit_80_columns() -> None:
    lines = report_gpus.text(on_cards(predicted())).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("Form ") for line in lines) == 2


def test_a_card_of_no_size_is_said_to_be_none() -> None:
    found = on_cards(predicted()[:1], reserve=200 * GIB)
    assert all(one.fits_gib is None for one in found.least)
    printed = report_gpus.text(found)
    assert "None" not in printed
    assert re.search(r"f32 +3\.27 GiB +\S+ GiB +\d+ tight", printed)


def test_one_tower_needs_and_both_need(tiny_q4: Path, said: Callable[..., str]) -> None:
    words = said(str(tiny_q4), "--explain", "--all")
    assert "What the image tower of q4_k_m needs in form" in words
    assert "What both towers of q4_k_m need in form" in words


def test_a_file_says_why_the_fast_form_is_not_taken(emoji_q4: Path) -> None:
    stored = from_file(str(emoji_q4))
    for passed, words in (
        ({"int8": True}, None),
        ({"int8": False}, "form int8 missed its gate"),
        ({}, "form int8 was not verified"),
    ):
        changed = replace(stored, passed=passed)
        there = machine("laptop_8gb")
        found = replace(check([emoji_q4], machine=there), variants=(changed,))
        printed = " ".join(report.text(found).split())
        assert ("int8 missed" in printed or "int8 was not" in printed) == (words is not None)
        assert words is None or words in printed


def test_another_form_that_is_tight_is_said_to_be() -> None:
    there, supposed = suppose(machine("laptop_8gb"), vram=[2 * GIB])
    (note, _) = check(machine=there, supposed=supposed).advice.notes
    assert "In form w4f16 both towers fit on card 0" in note
    assert "tightly, in " in note
    tight = [
        row.last.verdict
        for row in check(machine=there, supposed=supposed, compute="w4f16").rows
        if (row.place.key, row.stored.variant, row.tower) == ("nvidia:0", "q4_k_m", "both")
    ]
    assert tight == ["tight"]


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["--gpu", "RTX 3060 12GB"], "pip install 'sigrun[gpu]'"),
        (["--gpu", "RX 7600"], "pip install 'onnxruntime-migraphx'"),
        (["--gpu", "M2", "--ram", "8GiB"], "pip install 'onnxruntime-ep-mlx'"),
        (["--ram", "8GiB"], None),
    ],
)
def test_what_a_supposed_card_needs_is_said(
    arguments: list[str], package: str | None, said: Callable[..., str]
) -> None:
    words = said(*arguments)
    assert ("pip install" in words.partition("Take ")[2]) == (package is not None)
    assert package is None or package in words


def test_what_is_not_supposed_is_said_to_be_as_here(said: Callable[..., str]) -> None:
    assert "(assumed); all else as here" in said("--ram", "4GiB")
    of_file = said("--machine", str(MACHINES / "two_rtx_4090.json"), "--ram", "4GiB")
    assert "one described in a file, but with 4.00 GiB" in of_file
    assert "as here" not in of_file


@pytest.mark.parametrize("option", ["--ram", "--vram", "--reserve"])
@pytest.mark.parametrize("value", ["-3GiB", "-1", "-.5GiB"])
def test_a_negative_size_is_called_no_size(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([option, value])
    assert stopped.value.code == 2
    assert f"argument {option}: '{value}' is no size" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_no_sentence_is_broken(name: str) -> None:
    """No doubled words, stops or blanks, and no value of Python's, on any machine."""
    printed = " ".join(report.text(check(machine=machine(name)), explain=True).split())
    assert not re.search(
        r"\b(the|of|a|is|in|to|and) \1\b|\.\.(?!\.)|,,| ,| \.(?!\.)|None|True|False|nan", printed
    )
