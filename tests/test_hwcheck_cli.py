"""The command hwcheck and the function behind it: golden verdicts, exit codes, text, JSON, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sigrun_hwcheck import Machine, MachineFileError, StoredFileError, api, check, cli, options, report
from sigrun_hwcheck.memory import need
from sigrun_hwcheck.stored import from_plan
from sigrun_hwcheck.verdict import Verdict
from sigrun_recipes import default_model, names, plan
from tests.checkpoints import TINY
from tests.conftest import roomy
from tests.hwcheck_golden import MACHINES, NAMES, TEXTS, machine, schema, texts, verdicts

GOLDEN = json.loads((MACHINES / "golden.json").read_text("utf-8"))


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the command believe that it runs on a recorded machine."""

    def pretend(name: str) -> None:
        monkeypatch.setattr(api, "read_machine", lambda: machine(name))

    return pretend


@pytest.mark.parametrize("name", NAMES)
def test_golden_verdicts(name: str) -> None:
    assert verdicts(name) == GOLDEN[name]


def test_golden_texts() -> None:
    """What a few machines are told, word for word."""
    kept = {path.stem: path.read_text("utf-8") for path in TEXTS.glob("*.txt")}
    assert texts() == kept


@pytest.mark.parametrize("name", NAMES)
def test_machines_survive_json(name: str) -> None:
    read = machine(name)
    assert Machine.from_json(json.loads(json.dumps(read.to_json()))) == read


@pytest.mark.parametrize("name", NAMES)
def test_text_fits_80_columns_of_ascii(name: str, on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on(name)
    cli.main([])
    assert_readable(capsys.readouterr(), 80)


@pytest.mark.parametrize("name", ["two_rtx_4090", "container_512mib", "memory_unknown"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["--all", "--batch", "1", "--batch", "64"],
        ["--explain"],
        ["--tower", "text"],
        ["--compute", "exact", "--all"],
    ],
)
def test_tables_fit_100_columns(
    name: str, arguments: list[str], on: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    on(name)
    cli.main(arguments)
    assert_readable(capsys.readouterr(), 100)


def assert_readable(printed: Any, columns: int) -> None:
    """Nothing on stderr, plain ASCII, no line too long but a command, no unknown shown as None."""
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert [line for line in lines if len(line) > columns and not line.startswith("  sigrun")] == []
    assert printed.out.isascii()
    assert not any(line != line.rstrip() for line in lines)
    assert "None" not in printed.out


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("laptop_without_gpu", [], 0),
        ("container_2gib", [], 0),
        ("container_2gib", ["--batch", "8"], 0),
        ("container_512mib", [], 1),
        ("container_512mib", ["--tower", "image"], 1),
        ("memory_unknown", [], 3),
        ("desktop_8gb_card", ["--json"], 0),
    ],
)
def test_exit_codes(
    name: str, arguments: list[str], code: int, on: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    on(name)
    assert cli.main(arguments) == code
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch", "0"],
        ["--batch", "many"],
        ["--batch", "-1"],
        ["--batch", "99999"],
        ["--tower", "x"],
        ["--no"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_advice_is_the_preferred_variant_and_a_command(
    on: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    on("laptop_without_gpu")
    cli.main([])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"  sigrun-export convert {default_model().repo} --variant q4_k_m -o models"


def test_json(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on("two_unequal_cards")
    assert cli.main(["--json", "--batch", "2", "--batch", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Machine.from_json(found["machine"]) == machine("two_unequal_cards")
    assert [d["key"] for d in found["devices"]] == ["ram", "nvidia:0", "nvidia:1"]
    assert [v["variant"] for v in found["variants"]] == list(names())
    assert len(found["rows"]) == 3 * len(names()) * 3
    jsonschema.validate(found, schema("report"))
    assert found["judged_batches"] == [1, 2]
    for row in found["rows"]:
        assert [b["batch"] for b in row["batches"]] == [1, 2]
        for entry in row["batches"]:
            assert [phase["name"] for phase in entry["phases"]] == ["load", "run"]
            for phase in entry["phases"]:
                kept = [t for t in phase["terms"] if not t["reclaimable"]]
                assert phase["need"]["best_bytes"] == sum(t["best_bytes"] for t in kept)
            assert entry["need"]["high_bytes"] == max(p["need"]["high_bytes"] for p in entry["phases"])


def test_cards_are_never_added_up() -> None:
    found = check(machine=machine("two_unequal_cards"))
    of_card = {
        r.place.key: r.last.verdict for r in found.rows if (r.stored.variant, r.tower) == ("q4_k_m", "both")
    }
    assert (of_card["nvidia:0"], of_card["nvidia:1"]) == ("fits", "does not fit")


def test_an_exported_file(tiny_q4: Path, on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on("laptop_without_gpu")
    assert cli.main([str(tiny_q4)]) == 0
    out = capsys.readouterr().out
    assert "sigrun classify" in out
    assert tiny_q4.name in out
    found = check([tiny_q4], machine=machine("laptop_without_gpu"))
    both = next(row for row in found.rows if row.tower == "both")
    assert both.disk_bytes == tiny_q4.stat().st_size
    assert found.variants[0].origin == "file"


def test_a_file_needs_what_its_recipe_predicted(tiny_q4: Path) -> None:
    """A recipe's prediction and the file made by it differ in nothing but the file's own overhead."""
    from_file = check([tiny_q4], machine=machine("laptop_without_gpu")).variants[0]
    predicted = from_plan("tiny", plan(roomy(from_file.variant), TINY))
    assert need(from_file, "both", "exact", 8) == need(predicted, "both", "exact", 8)


def test_all_files_must_fit(
    tiny_q4: Path, emoji_q4: Path, on: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    on("container_512mib")
    assert cli.main([str(tiny_q4), str(emoji_q4)]) == 0
    out = capsys.readouterr().out
    assert "[1] " in out
    assert "[2] " in out


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"not a model at all" * 100])
def test_bad_files(tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    assert cli.main([str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert str(path) in printed.err
    assert "Traceback" not in printed.err


def test_a_truncated_file(tiny_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tiny_q4.read_bytes()
    for share in (0.01, 0.5, 0.999):
        path = tmp_path / "x.gguf"
        path.write_bytes(whole[: int(len(whole) * share)])
        assert cli.main([str(path)]) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_folder_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_without_the_runtime_a_file_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sigrun.artifact", None)
    with pytest.raises(StoredFileError, match="pip install"):
        check(["x.gguf"])


def test_long_paths_are_shortened() -> None:
    long = "/very" * 30 + "/models/file.gguf"
    short = report._shortened(long, 76)
    assert len(short) <= 76
    assert short.endswith("/models/file.gguf")
    assert short.startswith(".../")
    assert len(report._shortened("x" * 200, 76)) == 76
    assert report._shortened("a.gguf", 76) == "a.gguf"


def test_a_plain_check_loads_no_runtime() -> None:
    """It answers before anything of the runtime is installed, and fast."""
    code = (
        "import sys\nfrom sigrun_hwcheck.cli import main\nmain([])\n"
        "sys.exit(', '.join({'numpy', 'onnxruntime', 'PIL'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_stops_early_does_no_harm() -> None:
    code = "import sys\nfrom sigrun_hwcheck.cli import main\nsys.exit(main(['--json']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() in (0, 1, 3)


def test_every_verdict_has_an_exit_code() -> None:
    assert set(options.EXIT_CODES) == set(Verdict.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 99}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"ram": {}}, "missing"),
        ({"ram": 5}, "must be an object"),
        ({"gpus": {}}, "must be a list"),
        ({"system": None}, "must be a string"),
    ],
)
def test_a_foreign_machine_file_is_refused(change: dict[str, Any], word: str) -> None:
    data = machine("desktop_8gb_card").to_json()
    with pytest.raises(MachineFileError, match=word):
        Machine.from_json(data | change)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("ram", "total_bytes"), -1),
        (("ram", "total_bytes"), True),
        (("ram", "available_bytes"), "8 bananas"),
        (("cpu", "quota_cpus"), 0),
        (("cpu", "features"), {"avx2": "yes"}),
        (("gpus", 0, "state"), "fine"),
        (("gpus", 0, "cards", 0, "compute_capability"), [8]),
        (("gpus", 0, "cards", 0, "index"), None),
    ],
)
def test_wrong_values_in_a_machine_file_are_refused(place: tuple[Any, ...], value: object) -> None:
    data = json.loads(json.dumps(machine("desktop_8gb_card").to_json()))
    at = data
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with pytest.raises(MachineFileError):
        Machine.from_json(data)
