"""The wheelhouse: what is missing from it, for which machine, and that it installs without a network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.checkpoints import ROOT

PACKAGING = ROOT / "packaging"
sys.path.append(str(PACKAGING))

import bare  # noqa: E402
import wheelhouse  # noqa: E402
from freezing.targets import TARGETS, Target  # noqa: E402
from freezing.wheels import Wheel, missing, read_wheel  # noqa: E402

HERE = Target.named("here")


def wheel(folder: Path, name: str, version: str, *requires: str, code: str = "") -> Wheel:
    """A wheel with one module, as small as wheels are."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    extras = "".join(f"Provides-Extra: {extra}\n" for extra in ("cpu", "export"))
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    with zipfile.ZipFile(path, "w") as file:
        told = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{extras}{needs}"
        file.writestr(f"{info}/METADATA", told)
        tag = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr(f"{info}/WHEEL", tag)
        file.writestr(f"{name.replace('-', '_')}.py", code)
        file.writestr(f"{info}/RECORD", "".join(f"{n},,\n" for n in [*file.namelist(), f"{info}/RECORD"]))
    return read_wheel(path)


def lacking(wheels: list[Wheel], extras: list[str], target: Target = HERE) -> list[str]:
    return [str(found) for found in missing(wheels, "sigrun", extras, target.environment())]


def test_what_is_missing_is_found_through_others_and_extras(tmp_path: Path) -> None:
    own = wheel(
        tmp_path, "sigrun", "1.0", "numpy>=2", 'onnxruntime>=1 ; extra == "cpu"', 'gguf ; extra == "export"'
    )
    numpy = wheel(tmp_path, "numpy", "2.1")
    ort = wheel(tmp_path, "onnxruntime", "1.31", "protobuf", "Flat_Buffers>=24")
    flat = wheel(tmp_path, "flat-buffers", "25.1")
    assert lacking([own], []) == ["numpy>=2"]
    assert lacking([own, numpy], []) == []
    assert lacking([own, numpy], ["cpu"]) == ["onnxruntime>=1"]
    assert lacking([own, numpy, ort, flat], ["cpu"]) == ["protobuf"]
    assert lacking([own, numpy, ort, flat], ["cpu", "export"]) == ["gguf", "protobuf"]
    old = wheel(tmp_path, "numpy", "1.26")
    assert lacking([own, old], []) == ["numpy>=2"]


def test_markers_are_those_of_the_other_machine(tmp_path: Path) -> None:
    """pip evaluates them for the machine that it runs on, and would forget what Windows needs besides."""
    own = wheel(
        tmp_path,
        "sigrun",
        "1.0",
        'colorama ; platform_system == "Windows"',
        'pywin32 ; sys_platform == "win32" and platform_machine != "ARM64"',
        'applescript ; sys_platform == "darwin"',
        'backport ; python_version < "3.12"',
    )
    assert lacking([own], [], Target.named("windows-x86_64", "3.12")) == ["colorama", "pywin32"]
    assert lacking([own], [], Target.named("windows-arm64", "3.11")) == ["backport", "colorama"]
    assert lacking([own], [], Target.named("macos-arm64", "3.13")) == ["applescript"]
    assert lacking([own], [], Target.named("linux-aarch64", "3.14")) == []


def test_pip_is_told_of_the_other_machine() -> None:
    assert HERE.options() == []
    words = Target.named("windows-x86_64", "3.12").options()
    assert words[words.index("--platform") + 1] == "win_amd64"
    assert words[words.index("--python-version") + 1] == "3.12"
    assert "cp312" in words
    assert "3.14" in Target.named("here", "3.14").options()
    assert all(tags and len(facts) == 4 for tags, facts in TARGETS.values())


@pytest.mark.parametrize(
    ("platform", "python", "said"),
    [
        ("amiga", None, "there is no platform 'amiga'; there are: here, linux-x86_64"),
        ("here", "3", "'3' is no version"),
        ("here", "three.twelve", "is no version"),
        ("here", "3.9", "needs Python 3.11"),
    ],
)
def test_what_is_no_machine_is_refused(platform: str, python: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Target.named(platform, python)


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine")
    assert wheelhouse.main([str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_wheel_without_metadata_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty-1-py3-none-any.whl", "w") as file:
        file.writestr("empty.py", "")
    with pytest.raises(ValueError, match="holds no metadata"):
        read_wheel(tmp_path / "empty-1-py3-none-any.whl")


def test_a_later_round_replaces_what_an_earlier_one_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``colours`` is found in the second round only, and with it comes another ``helper``."""
    asked: list[str] = []

    def pip(kind: str, *words: str) -> None:
        if kind == "wheel":
            folder = Path(words[words.index("--wheel-dir") + 1])
            wheel(folder, "sigrun", "1.0", "helper>=1", "same", "colours")
            return
        folder = Path(words[words.index("--dest") + 1])
        asked.append(words[-1])
        wheel(folder, "same", "1.0")
        if len(asked) == 1:
            wheel(folder, "helper", "2.10")  # sorts before 2.9, but is newer
        else:
            wheel(folder, "colours", "1.0", "helper<2.10")
            wheel(folder, "helper", "2.9")

    monkeypatch.setattr(wheelhouse, "pip", pip)
    out = tmp_path / "out"
    wheels = wheelhouse.gather(out, HERE, "cpu")
    assert asked[1:] == ["colours"]
    told = {(wheel.name, wheel.version) for wheel in wheels}
    assert told == {("sigrun", "1.0"), ("helper", "2.9"), ("same", "1.0"), ("colours", "1.0")}
    assert len(wheels) == len(told)
    listed = [line.split(" ")[0] for line in (out / "requirements.txt").read_text("utf-8").splitlines()]
    assert listed == ["colours==1.0", "helper==2.9", "same==1.0", "sigrun[cpu]==1.0"]


def hand_made(folder: Path) -> Path:
    """A wheelhouse of two small wheels."""
    (folder / "wheels").mkdir(parents=True)
    wheels = [
        wheel(
            folder / "wheels", "sigrun", "1.0", "helper>=2", code="import helper\nanswer = helper.answer\n"
        ),
        wheel(folder / "wheels", "helper", "2.0", code="answer = 42\n"),
    ]
    (folder / "requirements.txt").write_text(wheelhouse.requirements(wheels, "cpu"), "utf-8")
    shutil.copyfile(PACKAGING / "freezing" / "install.py", folder / "install.py")
    return folder


def install(folder: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """Install, with settings around that would lead pip astray."""
    astray = {"PIP_INDEX_URL": "file:///nowhere", "PIP_FIND_LINKS": "/nowhere", "PIP_NO_DEPS": "1"}
    return subprocess.run(
        [sys.executable, str(folder / "install.py"), "--to", str(to)],
        env={**os.environ, **astray},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_folder_installs_and_its_hashes_are_held(tmp_path: Path) -> None:
    folder, to = hand_made(tmp_path / "hús með bili"), tmp_path / "env þ"
    done = install(folder, to)
    assert done.returncode == 0, done.stderr
    python = to / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    told = subprocess.run(
        [python, "-I", "-c", "import sigrun; print(sigrun.answer)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["42"]
    with zipfile.ZipFile(folder / "wheels" / "helper-2.0-py3-none-any.whl", "a") as file:
        file.writestr("evil.py", "")
    refused = install(folder, tmp_path / "second")
    assert refused.returncode == 1
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real wheelhouse for this machine; gathering it needs a network."""
    out = tmp_path_factory.mktemp("wheelhouse") / "out"
    done = subprocess.run(
        [sys.executable, str(PACKAGING / "wheelhouse.py"), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.app
@pytest.mark.timeout(600)
def test_a_real_one_is_complete_and_names_its_wheels(gathered: Path) -> None:
    wheels = {path.name: path for path in (gathered / "wheels").iterdir()}
    listed = (gathered / "requirements.txt").read_text("utf-8").splitlines()
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels.values()}
    assert {line.rpartition("sha256:")[2] for line in listed} == digests
    assert lacking([read_wheel(path) for path in wheels.values()], ["cpu", "export", "hwcheck"]) == []
    text = "".join(
        (gathered / name).read_text("utf-8") for name in ("requirements.txt", "README.txt", "install.py")
    )
    assert "://" not in text


@pytest.mark.app
@pytest.mark.timeout(600)
@pytest.mark.skipif(not bare.possible(), reason="needs Linux, and root or user namespaces")
def test_without_a_network_it_installs_and_runs_the_demo(gathered: Path, tmp_path: Path) -> None:
    moved = tmp_path / "USB lykill"
    shutil.copytree(gathered, moved)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "heima"), "LC_ALL": "C.UTF-8"}
    words = [str(moved / "install.py"), "--to", str(tmp_path / "env"), "--demo"]
    done = subprocess.run(
        [
            "unshare",
            *([] if os.geteuid() == 0 else ["--map-root-user"]),
            "--net",
            sys.executable,
            "-I",
            *words,
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "fits" in done.stdout
    drawing, best, *_ = done.stdout.partition("red-apple.png")[1:][1].splitlines()
    assert (drawing, best.split()[-2:]) == ("", ["red", "apple"])
