"""hwcheck for machines that nobody sits at, hwcheck gpus, hwcheck --measure: options, JSON, exit codes, bad input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sigrun_hwcheck import api, cli, probe
from sigrun_hwcheck.cards import cards
from sigrun_hwcheck.units import GIB, MIB, parse_size, size
from tests.hwcheck_golden import MACHINES, NAMES, machine, schema
from tests.test_hwcheck_cli import assert_readable


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A recorded machine, an empty folder and an empty cache."""
    for module in (api, probe):
        monkeypatch.setattr(module, "read_machine", lambda: machine("laptop_8gb"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIGRUN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("8GiB", 8 * GIB),
        ("8 gib", 8 * GIB),
        ("6GB", 6 * 10**9),
        ("512MiB", 512 * MIB),
        ("1.5GiB", 3 * GIB // 2),
        ("100B", 100),
        ("2TiB", 2048 * GIB),
        ("0", 0),
        ("0MiB", 0),
        (" 4KiB ", 4096),
    ],
)
def test_sizes(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "8 bananas",
        "-1GiB",
        "GiB",
        "1e3MiB",
        "8G",
        "1,5GiB",
        "nan",
        "inf GiB",
        "٣GiB",
        "8GiB8",
        "9" * 20 + "B",
        "9999TiB",
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        parse_size(text)


def test_sizes_are_read_as_they_are_written() -> None:
    for nbytes in (512 * MIB, 3 * GIB, 100 * GIB):
        assert parse_size(size(nbytes)) == nbytes


@pytest.mark.parametrize(
    ("arguments", "code", "judged"),
    [
        (["--ram", "8GiB"], 0, ["ram"]),
        (["--ram", "512MiB"], 1, ["ram"]),
        (["--vram", "8GiB"], 0, ["nvidia:0"]),
        (["--vram", "1GiB"], 1, ["nvidia:0"]),
        (["--vram", "1GiB", "--ram", "8GiB"], 0, ["ram", "nvidia:0"]),
        (["--gpu", "RTX 3060 12GB"], 0, ["nvidia:0"]),
        (["--gpu", "RTX 3060", "--vram", "12GiB"], 0, ["nvidia:0"]),
        (["--gpu", "RTX 3060", "--vram", "12GB"], 0, ["nvidia:0"]),
        (["--gpu", "RTX 4090", "--gpu", "GT 1030"], 0, ["nvidia:0", "nvidia:1"]),
        (["--gpu", "RTX 4090", "--gpu", "RX 7600"], 0, ["nvidia:0", "amd:0"]),
        (["--gpu", "GT 1030"], 1, ["nvidia:0"]),
        (["--gpu", "M2", "--ram", "8GiB"], 0, ["apple:0"]),
        (["--gpu", "Jetson Nano"], 1, ["nvidia:0"]),
        (["--machine", str(MACHINES / "two_rtx_4090.json")], 0, ["ram", "nvidia:0", "nvidia:1"]),
        (["--machine", str(MACHINES / "memory_unknown.json")], 3, ["ram"]),
        (["--machine", str(MACHINES / "container_512mib.json")], 1, ["ram"]),
        (["--machine", str(MACHINES / "container_512mib.json"), "--vram", "8GiB"], 0, ["nvidia:0"]),
    ],
)
def test_supposed_machines(
    arguments: list[str], code: int, judged: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema("report"))
    assert found["judged_devices"] == judged
    assert found["supposed"]["summary"]
    made_up = found["supposed"]["devices"]
    assert made_up == ([] if "--machine" in arguments and "--vram" not in arguments else judged)
    assert {d["state"] for d in found["devices"] if d["key"] in made_up} <= {"supposed", "ready", "no code"}
    assert cli.main(arguments) == code
    printed = capsys.readouterr()
    assert printed.out.startswith("SUPPOSED MACHINE, not this one: ")
    assert_readable(printed, 80)


def test_this_machine_is_not_marked_as_supposed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema("report"))
    assert found["supposed"] is None
    cli.main([])
    assert "SUPPOSED" not in capsys.readouterr().out


def test_supposed_memory_is_not_all_free(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--ram", "16GiB", "--vram", "8GiB", "--json"])
    ram, card = json.loads(capsys.readouterr().out)["devices"]
    assert (ram["total_bytes"], ram["free_bytes"]) == (16 * GIB, 14 * GIB)
    assert (card["total_bytes"], card["free_bytes"]) == (8 * GIB, 8 * GIB - 512 * MIB)
    assert card["estimated"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--ram", "8 bananas"], "is no size"),
        (["--vram", "6"], "is no size"),
        (["--ram", "0"], "without memory"),
        (["--reserve", "-1GiB"], "is no size"),
        (["--gpu", "RTX 3060"], "GeForce RTX 3060 8GB, GeForce RTX 3060 12GB"),
        (["--gpu", "banana"], "there is no 'banana'"),
        (["--gpu", "RTX 3060", "--vram", "6GiB"], "comes with"),
        (["--gpu", "M2"], "several sizes"),
        (["--gpu", "M1", "--ram", "8GiB", "--vram", "16GiB"], "main memory"),
        (["--gpu", "M1", "--ram", "8GiB", "--gpu", "RTX 4090"], "one card"),
        (["--gpu", "RTX 4090", "--vram", "24GiB", "--vram", "8GiB"], "cannot be told"),
        (["--provider", "gpu"], "there is no provider 'gpu'"),
        (["--provider", "cuda"], "no device"),
        (["--compute", "int4"], "invalid choice"),
        (["--measure"], "needs a file"),
        (["--measure", "x.gguf", "--ram", "8GiB"], "this machine"),
        (["--anyway"], "--measure"),
        (["--machine", "nowhere.json"], "cannot be read"),
        (["gpus", "--batch", "0"], "no batch size"),
        (["gpus", "nowhere.gguf"], "nowhere.gguf"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = cli.main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert word in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"nonsense",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"machine": {}}',
        b"[" * 100_000,
        b" " * (1 << 21),
    ],
)
def test_files_that_describe_no_machine(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.json").write_bytes(content)
    assert cli.main(["--machine", "x.json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: x.json: ")


def test_unknown_keys_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    data = machine("laptop_8gb").to_json() | {"gpu": "fast"}
    Path("x.json").write_text(json.dumps(data))
    assert cli.main(["--machine", "x.json"]) == 2
    assert "no field 'gpu'" in capsys.readouterr().err


def test_a_machine_travels(capsys: pytest.CaptureFixture[str]) -> None:
    """Saved here, judged there: the same verdicts; and never over another file."""
    assert cli.main(["--save-machine", "m.json", "--json"]) == 0
    printed = capsys.readouterr()
    assert "m.json" in printed.err
    here = json.loads(printed.out)
    assert json.loads(Path("m.json").read_text("utf-8")) == here["machine"]
    assert cli.main(["--machine", "m.json", "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there.pop("supposed") is not None
    assert here.pop("supposed") is None
    assert there == here
    Path("report.json").write_text(printed.out)
    assert cli.main(["--machine", "report.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == here["rows"]
    before = Path("m.json").read_bytes()
    assert cli.main(["--save-machine", "m.json"]) == 2
    assert "exists" in capsys.readouterr().err
    assert Path("m.json").read_bytes() == before


def test_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gpus"]) == 0
    assert_readable(capsys.readouterr(), 100)
    assert cli.main(["gpus", "--all"]) == 0
    printed = capsys.readouterr()
    assert_readable(printed, 100)
    assert all(card.name in printed.out for card in cards())
    assert cli.main(["gpus", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| GeForce RTX 4090 |") for line in lines) == 1
    assert cli.main(["gpus", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema("gpus"))
    assert {card["name"] for card in found["cards"]} == {card.name for card in cards()}


def test_gpus_of_a_file(tiny_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gpus", str(tiny_q4), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [v["origin"] for v in found["variants"]] == ["file"]
    assert all(v["verdicts"]["both"] != "does not fit" for card in found["cards"] for v in card["variants"])


def test_a_file_named_gpus_is_not_shadowed_silently(
    tiny_q4: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("gpus").write_bytes(tiny_q4.read_bytes())
    assert cli.main(["gpus", "--json"]) == 0
    printed = capsys.readouterr()
    assert "./gpus" in printed.err
    assert {v["origin"] for v in json.loads(printed.out)["variants"]} == {"recipe"}
    assert cli.main(["./gpus", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out)["variants"][0]["path"] == "./gpus"


def test_files_may_stand_between_options(
    tiny_q4: Path, emoji_q4: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([str(tiny_q4), "--batch", "2", str(emoji_q4), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["variants"]) == 2


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    tables = [
        [*group]
        for is_table, group in itertools.groupby(lines, lambda line: line.startswith("|"))
        if is_table
    ]
    assert len(tables) == 2
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    assert any("q4_k_m" in line for line in tables[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_report_meets_the_schema(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["--machine", str(MACHINES / f"{name}.json"), "--json", "--tower", "image"])
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema("report"))
    assert found["exit_code"] == code


@pytest.mark.parametrize("name", ["report", "gpus", "measure"])
def test_schemas_are_schemas_and_closed(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))

    def closed(part: Any) -> None:
        if isinstance(part, dict):
            if "required" in part and "format" not in part["required"]:
                assert part["additionalProperties"] is False
            for inner in part.values():
                closed(inner)

    closed(schema(name))


def test_measuring(
    tiny_q4: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One real run: measured beside predicted, and used from then on."""
    asked = [str(tiny_q4), "--tower", "text", "--compute", "exact"]
    assert cli.main(["--measure", *asked, "--batch", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    jsonschema.validate(found, schema("measure"))
    (run,) = found["runs"]
    assert (found["kept"], found["failures"]) == (True, [])
    assert run["measured"]["load_peak_bytes"] > run["measured"]["base_bytes"] > 0
    cli.main([*asked, "--json"])
    (row,) = [r for r in json.loads(capsys.readouterr().out)["rows"] if r["device"] == "ram"]
    assert row["batches"][0]["source"] == "measured here"
    monkeypatch.setattr(probe, "read_machine", lambda: machine("container_512mib"))
    assert cli.main(["--measure", *asked, "--provider", "cuda"]) == 2
    assert "cannot be measured" in capsys.readouterr().err
