"""Bad input of the command hwcheck, end to end: a clear message, the documented exit code, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sigrun_hwcheck import cli
from sigrun_hwcheck.probe import Sources, read_machine
from tests.hwcheck_golden import MACHINES
from tests.machine_roots import pci_card, tree

MACHINE = json.loads((MACHINES / "laptop_8gb.json").read_text("utf-8"))


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    try:
        code = cli.main(arguments)
    except SystemExit as stopped:
        assert isinstance(stopped.code, int)
        code = stopped.code
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of input that is refused: on stderr, with code 2, and nothing on stdout."""
    code, out, said = run(arguments, capsys)
    assert (code, out) == (2, "")
    assert "error: " in said and "Traceback" not in said
    return said


@pytest.mark.parametrize("option", ["--ram", "--vram", "--reserve"])
@pytest.mark.parametrize(
    "size", ["8 bananas", "8", "GiB", "", "-1GiB", "1e9GiB", "8GiB8", "nan", "9999999TiB", "８GiB"]
)
def test_sizes_that_are_none(option: str, size: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([f"{option}={size}"], capsys)
    assert option in said
    assert "such as 8GiB" in said or "more than any machine has" in said


@pytest.mark.parametrize("command", [[], ["models"]])
@pytest.mark.parametrize("option", ["--ram", "--vram"])
def test_no_memory_at_all(command: list[str], option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a size above 0" in refused([*command, option, "0"], capsys)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("RTX 3061", "RTX 3060"),
        ("rtx5091", "RTX 5090"),
        ("Radeon 7900 XTZ", "7900 XTX"),
        ("M3 Maxx", "M3 Max"),
    ],
)
@pytest.mark.parametrize("command", [[], ["models"]])
def test_cards_that_nobody_knows(
    command: list[str], name: str, near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused([*command, "--gpu", name], capsys)
    assert name in said and near in said


@pytest.mark.parametrize("name", ["", " ", "banana", "\x1b[31m", "x" * 5000])
def test_names_like_no_card_at_all(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["--gpu", name], capsys)
    assert len(said) < 2000 and "\x1b" not in said


def changed(**fields: Any) -> str:
    """A machine's file with other fields."""
    return json.dumps({**MACHINE, **fields})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(colour="red"), "colour"),
        (changed(ram={**MACHINE["ram"], "swap_bytes": 1}), "swap_bytes"),
        (changed(ram={**MACHINE["ram"], "total_bytes": -1}), "total_bytes"),
        (changed(ram={**MACHINE["ram"], "total_bytes": "8 GiB"}), "total_bytes"),
        (changed(ram={"total_bytes": 1}), "available_bytes"),
        (changed(gpus=[{"vendor": "nvidia", "state": "fine"}]), "gpus"),
        (changed(surroundings="cellar"), "surroundings"),
        (changed(format=99), "99"),
        ("[]", "machine"),
        ("null", "machine"),
        ('"machine"', "machine"),
        ("{}", "machine"),
        ('{"machine": {}}', "machine"),
        ("{", "JSON"),
        ("", "JSON"),
        ("[" * 100_000, "JSON"),
        ("9" * 10_000, "machine"),
        (json.dumps({"ram": "x" * (1 << 20)}), "too large"),
    ],
)
@pytest.mark.parametrize("command", [[], ["models"]])
def test_files_that_describe_no_machine(
    command: list[str], content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content, "utf-8")
    said = refused([*command, "--machine", str(file)], capsys)
    assert "mine.json" in said and words in said
    assert len(said) < 2000


def test_machine_files_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(["--machine", str(tmp_path / "none.json")], capsys)
    refused(["--machine", str(tmp_path)], capsys)  # a folder
    (tmp_path / "bytes.json").write_bytes(bytes(range(256)))
    assert "bytes.json" in refused(["--machine", str(tmp_path / "bytes.json")], capsys)
    refused(["--machine", ""], capsys)


def damaged(file: Path, folder: Path) -> dict[str, bytes]:
    """Files that are no artifact, or no longer."""
    whole = file.read_bytes()
    return {
        "empty.gguf": b"",
        "magic.gguf": whole[:4],
        "head.gguf": whole[:1000],
        "half.gguf": whole[: len(whole) // 2],
        "zeros.gguf": bytes(len(whole)),
        "version.gguf": whole[:4] + b"\xff\xff\xff\xff" + whole[8:],
        "counts.gguf": whole[:8] + b"\xff" * 16 + whole[24:],
        "text.gguf": b"this is a letter\n" * 100,
        "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }


@pytest.mark.parametrize("command", [[], ["gpus"]])
def test_files_that_are_no_artifact(
    command: list[str], tiny_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in damaged(tiny_q4, tmp_path).items():
        (tmp_path / name).write_bytes(content)
        assert name in refused([*command, str(tmp_path / name)], capsys)
    assert "none.gguf" in refused([*command, str(tmp_path / "none.gguf")], capsys)
    refused([*command, str(tmp_path)], capsys)
    refused([*command, ""], capsys)
    # one bad file among good ones is an error, not half an answer
    refused([*command, str(tiny_q4), str(tmp_path / "half.gguf")], capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--measure"],
        ["--measure", "x.gguf", "--ram", "8GiB"],
        ["--json", "--markdown"],
        ["--batch", "0"],
        ["--batch", "1.5"],
        ["--tower", "church"],
        ["--compute", "int3"],
        ["--provider", "abacus"],
        ["--provider", "cuda:x"],
        ["--vram", "4GiB", "--vram", "8GiB", "--gpu", "RTX 3060 12GB"],
        ["gpus", "--ram", "8GiB"],
        ["models", "--variant", "q2_k"],
        ["doctor", "something"],
        ["doctor", "-o"],
        ["--no-such-option"],
    ],
)
def test_options_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refused(arguments, capsys)


@pytest.mark.parametrize("arguments", [["--save-machine"], ["doctor", "--quick", "-o"]])
def test_files_that_cannot_be_written(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.json").write_text("mine", "utf-8")
    for target in (tmp_path / "no folder" / "x.json", tmp_path, tmp_path / "there.json"):
        refused([*arguments, str(target)], capsys)
    assert (tmp_path / "there.json").read_text("utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]


def test_what_is_said_of_a_file_that_is_there_can_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hint names --force, and --force there is: of the check as of the doctor."""
    target = tmp_path / "m.json"
    for arguments in (["--save-machine", str(target)], ["doctor", "--quick", "-o", str(target)]):
        target.write_text("mine", "utf-8")
        assert "--force" in refused(arguments, capsys)
        assert run([*arguments, "--force"], capsys)[0] == 0
        assert json.loads(target.read_text("utf-8"))
    assert "--save-machine" in refused(["--force"], capsys)
    assert "--save-machine" in refused(["--measure", "x.gguf", "--save-machine", "y.json"], capsys)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no endless file")
def test_a_machine_file_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert "too large" in refused(["--machine", "/dev/zero"], capsys)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_machine_files_as_shells_write_them(
    encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PowerShell's ``>`` writes UTF-16."""
    file = tmp_path / "m.json"
    file.write_text(json.dumps(MACHINE), encoding)
    assert run(["--machine", str(file)], capsys)[0] == 0


@pytest.mark.parametrize("arguments", [[], ["--all"], ["--explain"], ["--markdown"]])
def test_a_stranger_s_machine_file_gives_the_terminal_no_commands(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((MACHINES / "desktop_8gb_card.json").read_text("utf-8"))
    evil = "\x1b[2J\x07\u202ered\x9b31m"
    data["cpu"]["name"] = data["gpus"][0]["detail"] = data["gpus"][0]["cards"][0]["name"] = evil
    file = tmp_path / "m.json"
    file.write_text(json.dumps(data), "utf-8")
    code, out, said = run(["--machine", str(file), *arguments], capsys)
    assert (code, said) == (0, "")
    assert all(c.isprintable() or c == "\n" for c in out)


def test_what_a_machine_file_leaves_open_is_said_to_be_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(json.dumps(MACHINE))
    data["ram"] |= {"limit_bytes": 4 << 30, "limit_free_bytes": 3 << 30, "limit_source": None}
    data["disks"] = [{"purpose": "output", "total_bytes": None, "free_bytes": None, "problem": None}]
    file = tmp_path / "m.json"
    file.write_text(json.dumps(data), "utf-8")
    code, out, _ = run(["--machine", str(file)], capsys)
    assert code == 0
    assert "None" not in out
    assert "free space unknown: not told" in out


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and /sys are Linux's")
def test_nothing_of_proc_and_sys_may_be_read(tmp_path: Path) -> None:
    """What cannot be opened is unknown, and said to be; a folder in a file's place fails even for root."""
    files = ("proc/meminfo", "proc/cpuinfo", "proc/self/status", "proc/self/cgroup", "proc/self/mountinfo")
    for name in (*files, "proc/sys/kernel/osrelease", "sys/class/drm/card0/device/vendor"):
        (tmp_path / name).mkdir(parents=True)

    def untold() -> tuple[int, int]:
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    def none() -> Any:
        raise ImportError

    found = read_machine(Sources(root=tmp_path, system="Linux", memory=untold, binding=none))
    assert found.ram.total_bytes is None and found.ram.free_bytes is None
    assert found.ram.problem is not None and "Permission denied" in found.ram.problem
    assert "/proc" not in found.ram.problem
    assert found.cpu.name is None and set(found.cpu.features.values()) == {None}


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() == 0, reason="needs Linux and a user who is not root"
)
def test_files_without_permission(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/meminfo": "MemTotal: 8 kB\n", **pci_card("0000:01:00.0", 0x10DE, 0x2504)})
    (root / "proc/meminfo").chmod(0)
    (root / "sys/bus/pci/devices").chmod(0)
    try:
        read_machine(Sources(root=root, system="Linux"))
    finally:
        (root / "sys/bus/pci/devices").chmod(0o755)


def test_memory_that_is_not_known_is_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "unknown.json"
    file.write_text((MACHINES / "memory_unknown.json").read_text("utf-8"), "utf-8")
    code, out, said = run(["--machine", str(file)], capsys)
    assert (code, said) == (3, "") and "unknown" in out


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close otherwise there")
@pytest.mark.parametrize("command", [[], ["gpus", "--all"], ["models"], ["doctor", "--quick"]])
def test_a_reader_that_has_had_enough(command: list[str]) -> None:
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "sigrun_hwcheck", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    assert child.wait() == 0
    assert said == b""
