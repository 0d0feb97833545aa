"""Cards that ONNX Runtime's package has no code for: said to run nothing, and never advised."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sigrun_hwcheck import Machine, check, cli, on_cards, predicted, probe, report_gpus
from sigrun_hwcheck.card_code import CODE, objection
from sigrun_hwcheck.cards import cards
from sigrun_hwcheck.machine import ExecutionProvider, OnnxRuntime
from sigrun_hwcheck.units import GIB
from sigrun_hwcheck.whatif import suppose
from tests.hwcheck_golden import machine

PASCAL = (6, 1)


@pytest.mark.parametrize(
    ("capability", "architecture", "runs"),
    [
        ((7, 5), "x86_64", True),
        ((8, 0), "x86_64", True),
        ((8, 7), "x86_64", True),  # code of 8.6 runs on later cards of the same first number
        ((8, 9), "x86_64", True),
        ((9, 0), "x86_64", True),
        ((12, 0), "x86_64", True),
        ((12, 1), "x86_64", True),
        ((6, 1), "x86_64", False),
        ((7, 0), "x86_64", False),  # and not on earlier ones
        ((10, 0), "x86_64", False),  # nor on those of a later first number
        ((8, 7), "arm64", False),
        ((8, 6), "arm64", False),
        ((7, 5), "arm64", False),
        ((9, 0), "arm64", True),
        ((12, 1), "arm64", True),
        (None, "x86_64", True),
        ((6, 1), "riscv64", True),  # nothing is known, so nothing is said
    ],
)
def test_code_runs_on_cards_of_the_same_first_number(
    capability: tuple[int, int] | None, architecture: str, runs: bool
) -> None:
    said = objection(capability, architecture)
    assert (said is None) == runs
    assert runs or "capability " + ".".join(map(str, capability or ())) in (said or "")


def test_code_is_listed_in_order_and_once() -> None:
    for listed in CODE.values():
        assert list(listed) == sorted(set(listed))


def with_cards(there: Machine, capability: tuple[int, int], loads: bool | None) -> Machine:
    """A machine whose cards are of another kind, with the provider tried or not."""
    gpus = tuple(
        replace(one, cards=tuple(replace(card, compute_capability=capability) for card in one.cards))
        for one in there.gpus
    )
    tried = (ExecutionProvider("cuda", loads, None), ExecutionProvider("cpu", True, None))
    return replace(there, gpus=gpus, onnxruntime=OnnxRuntime("1.31.1", ("onnxruntime-gpu",), tried, None))


def test_a_card_without_code_is_left_for_the_cpu() -> None:
    there = machine("two_rtx_4090")
    assert check(machine=with_cards(there, (8, 9), None)).advice.provider == "cuda"
    found = check(machine=with_cards(there, PASCAL, None))
    assert [place.state for place in found.places] == ["ready", "no code", "no code"]
    assert (found.judged, found.advice.device) == (("ram",), "ram")
    assert found.auto is not None and found.auto.key == "ram"


def test_a_build_that_was_seen_to_load_is_believed() -> None:
    found = check(machine=with_cards(machine("two_rtx_4090"), PASCAL, True))
    assert found.advice.provider == "cuda"


def test_a_board_that_pip_has_nothing_for_has_a_build_of_its_own() -> None:
    there = machine("jetson_orin_nano")
    assert "cuda" not in {p.asked_as for p in check(machine=there).places if p.usable}
    found = check(machine=with_cards(there, (8, 7), None))
    assert "cuda" in {p.asked_as for p in found.places if p.usable}


@pytest.mark.parametrize("name", ["GTX 1080 Ti", "V100 SXM2 32GB", "B200", "Jetson Orin Nano 8GB"])
def test_supposing_such_a_card(name: str) -> None:
    there, supposed = suppose(machine("laptop_8gb"), gpus=[name])
    found = check(machine=there, supposed=supposed)
    assert found.outcome == "does not fit"
    assert found.advice.variant is None and found.advice.command is None
    assert found.advice.sentence.startswith("Nothing runs on ")
    there, supposed = suppose(machine("laptop_8gb"), gpus=["GTX 1080 Ti", "RTX 4090"])
    assert check(machine=there, supposed=supposed).advice.device == "nvidia:1"
    there, supposed = suppose(machine("laptop_8gb"), gpus=["GTX 1080 Ti"], ram=8 * GIB)
    assert check(machine=there, supposed=supposed).advice.device == "ram"


def test_the_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(probe, "read_machine", lambda: machine("laptop_8gb"))
    assert cli.main(["--gpu", "GTX 1080"]) == 1
    words = " ".join(capsys.readouterr().out.split())
    assert "Not used: onnxruntime-gpu as pip installs it has no code for" in words
    assert words.endswith("--ram SIZE answers for the CPU beside it.")


def test_the_list_of_cards_says_so() -> None:
    found = on_cards(predicted())
    barred = {card.name for card in cards() if card.vendor == "nvidia" and found_problem(found, card.name)}
    assert {"GeForce GTX 1080", "Tesla V100 SXM2 16GB", "B200", "Jetson AGX Orin"} <= barred
    assert not barred & {
        "GeForce GTX 1650",
        "GeForce RTX 3060 12GB",
        "A100 40GB",
        "H200 SXM",
        "GB10",
        "Tesla T4",
    }
    words = " ".join(report_gpus.text(found).split())
    listed, _, without = words.partition("has no code for these, whatever their memory: ")
    assert "GTX 1080" not in listed
    assert without.startswith("GeForce GTX 10, Tesla P, Tesla P100, Tesla V100, B200, Jetson Nano")
    (line,) = (
        li for li in report_gpus.text(found, full=True).splitlines() if li.startswith("GeForce GTX 1080  ")
    )
    assert line.split()[-4:] == ["no", "code", "no", "code"]
    as_json = {
        one["name"]: one["problem"] for one in json.loads(json.dumps(report_gpus.to_json(found)))["cards"]
    }
    assert {name for name, problem in as_json.items() if problem} == barred


def found_problem(found: object, name: str) -> str | None:
    """Why nothing runs on a card, as the report has it."""
    from sigrun_hwcheck import CardReport

    assert isinstance(found, CardReport)
    return next(one.problem for one in found.on_cards if one.card.name == name)
