"""What frozen folders leave out, and what tells of it: lists, tables, sizes. Nothing is frozen here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from sigrun import decoders
from tests.checkpoints import ROOT

PACKAGING = ROOT / "packaging"
sys.path.append(str(PACKAGING))

import sizes  # noqa: E402
import start_time  # noqa: E402
from freezing import collect, left_out  # noqa: E402

DEMO = ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
BLOCK = f"""
import os, sys
sys.path.append({str(PACKAGING)!r})
from freezing.collect import installed_packages, picture_plugins
from freezing.left_out import excluded_modules
gone = tuple(excluded_modules(installed_packages(), picture_plugins()))
class Gone:
    def find_spec(self, name, path=None, target=None):
        if any(name == one or name.startswith(one + ".") for one in gone):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
for name in [n for n in sys.modules if any(n == one or n.startswith(one + ".") for one in gone)]:
    del sys.modules[name]
sys.meta_path.insert(0, Gone())
"""
"""Code after which nothing that frozen folders leave out can be imported."""


def without(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCK + code, *words], capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_the_picture_plugins_that_stay_are_those_that_the_runtime_reads_with() -> None:
    assert {*decoders._PLUGINS.values(), "MpoImagePlugin"} == left_out.PICTURE_PLUGINS
    assert set(collect.picture_plugins()) > left_out.PICTURE_PLUGINS
    gone = left_out.excluded_modules([], collect.picture_plugins())
    assert "PIL.EpsImagePlugin" in gone
    assert "PIL.AvifImagePlugin" not in gone


def test_the_runtime_runs_without_all_that_is_left_out(emoji_q4: Path) -> None:
    """The command line classifies, with as many decoders as ever, and says the same."""
    words = ["classify", str(emoji_q4), str(DEMO), "--labels", str(DEMO / "labels.txt"), "--json"]
    code = "from sigrun.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = without(code, *words)
    plain = subprocess.run(
        [sys.executable, "-m", "sigrun", *words], capture_output=True, text=True, check=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    kinds = without("from sigrun.decoders import _decoders\nprint(len(_decoders()))")
    assert kinds.stdout.split() == [str(len(decoders._decoders()))], kinds.stderr


def test_only_modules_of_extras_need_what_is_left_out() -> None:
    """Every module of the packages is imported; those that fail are those of extras."""
    code = """
import importlib, json
from freezing.collect import PACKAGES, modules_of
failed = {}
for package in PACKAGES:
    for name in modules_of(package):
        if not name.endswith("__main__") and "_child" not in name:
            try:
                importlib.import_module(name)
            except ImportError as error:
                failed[name] = str(error)
print(json.dumps(failed))
"""
    done = without(code)
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout)
    assert {name for name in failed if not name.startswith(("sigrun.serve", "sigrun.bulk"))} == set(), failed


def test_an_extra_that_is_asked_for_is_taken_in() -> None:
    here = ["numpy", "uvicorn", "h11", "pyarrow", "torch", "numpy.libs"]
    plain = set(left_out.excluded_modules(here, []))
    serving = set(left_out.excluded_modules(here, [], ["serve"]))
    assert plain - serving == {"uvicorn", "h11", "ssl", "_ssl"}
    assert {"pyarrow", "torch", "tkinter"} <= serving
    assert not {"numpy", "numpy.libs"} & plain
    with pytest.raises(ValueError, match=r"\['serv'\]; there are: heif"):
        left_out.excluded_modules(here, [], ["serv"])


@pytest.mark.parametrize(
    ("path", "stays"),
    [
        ("onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so", True),
        ("onnxruntime/capi/libonnxruntime_providers_shared.so", True),
        ("onnxruntime/capi/libonnxruntime.so.1.31.1", False),
        ("onnxruntime\\capi\\onnxruntime.dll", False),
        ("PySide6/Qt/plugins/platforms/libqxcb.so", True),
        ("PySide6/Qt/plugins/platforms/libqwayland.so", True),
        ("PySide6/plugins/platforms/qwindows.dll", True),
        ("PySide6/Qt/plugins/platforms/libqeglfs.so", False),
        ("PySide6/Qt/plugins/platforms/libqvnc.so", False),
        ("PySide6/Qt/plugins/platformthemes/libqgtk3.so", False),
        ("PySide6/Qt/plugins/iconengines/libqsvgicon.so", True),
        ("PySide6/Qt/translations/qtbase_de.qm", False),
        ("sigrun/external/weights", True),
        ("sigrun_recipes/q4_k_m.toml", True),
        ("numpy-2.4.6.dist-info/METADATA", True),
        ("numpy-2.4.6.dist-info/RECORD", False),
        ("licences/numpy/LICENSE.txt", True),
    ],
)
def test_rules(path: str, stays: bool) -> None:
    assert (left_out.rule_for(path) is None) is stays


def test_every_rule_has_a_reason_of_its_own_and_none_comes_twice() -> None:
    rules = [*left_out.MODULES, *left_out.FILES]
    assert len({rule.pattern for rule in rules}) == len(rules)
    assert all(rule.why for rule in rules)


def test_libraries_that_nothing_loads_any_more_go_too() -> None:
    entries = [
        ("numpy/_core/umath.so", "/np/umath.so", "EXTENSION"),
        ("numpy.libs/libblas.so", "/np/libblas.so", "BINARY"),
        ("libblas.so", "numpy.libs/libblas.so", "SYMLINK"),
        ("PySide6/Qt/plugins/platforms/libqxcb.so", "/qt/libqxcb.so", "BINARY"),
        ("PySide6/Qt/plugins/platformthemes/libqgtk3.so", "/qt/libqgtk3.so", "BINARY"),
        ("libxcb.so.1", "/usr/libxcb.so.1", "BINARY"),
        ("libgtk-3.so.0", "/usr/libgtk-3.so.0", "BINARY"),
        ("pillow.libs/libfreetype.so", "/pil/libfreetype.so", "BINARY"),
        ("libfreetype.so", "pillow.libs/libfreetype.so", "SYMLINK"),
        ("libpython3.11.so.1.0", "/usr/libpython3.11.so.1.0", "BINARY"),
        ("sigrun/external/weights", "/sigrun/weights", "DATA"),
    ]
    loads = {
        "/np/umath.so": [("libblas.so", "/np/libblas.so")],
        "/qt/libqxcb.so": [("libxcb.so.1", "/usr/libxcb.so.1")],
        "/qt/libqgtk3.so": [("libgtk-3.so.0", None)],
    }
    stay = {dest for dest, _, _ in collect.kept(entries, lambda path: loads.get(path, []))}
    assert stay == {entry[0] for entry in entries if "gtk" not in entry[0] and "freetype" not in entry[0]}


def test_what_goes_in_is_what_a_wheel_holds() -> None:
    for package in collect.PACKAGES:
        folder = collect.folder_of(package)
        assert set(collect.modules_of(package)) >= {package}
        data = {PurePosixPath(target) / Path(source).name for source, target in collect.data_of(package)}
        listed = {
            PurePosixPath(package) / path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "py.typed"
        }
        assert data == listed
    assert "sigrun.cli.classify" in collect.hidden_imports()
    with pytest.raises(ModuleNotFoundError):
        collect.folder_of("no_such_package")


def test_licences_go_along() -> None:
    found = collect.licences(["numpy", "onnxruntime", "pillow"])
    owners = {target.split("/")[1] for _, target in found}
    assert owners - {"python"} == {"numpy", "onnxruntime", "pillow"}
    places = [f"{target}/{Path(source).name}" for source, target in found]
    assert len(set(places)) == len(places), "one would lie over another"


@pytest.mark.parametrize("spec", sorted(PACKAGING.glob("*.spec")), ids=lambda path: path.stem)
def test_specs_name_scripts_that_are_there(spec: Path) -> None:
    text = spec.read_text("utf-8")
    compile(text, spec.name, "exec")
    scripts = [word for word in text.replace('"', " ").split() if word.startswith("start_")]
    assert scripts
    assert all((PACKAGING / "freezing" / script).is_file() for script in scripts)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-P", "-m", "sigrun_hwcheck.probe.provider_child", "cpu"], 0, "{"),
        (["-m", "sigrun_hwcheck.probe.provider_child", "none"], 0, "there is no provider 'none'"),
        (["-m", "os"], 2, "usage: "),
        (["--help"], 0, "usage: "),
    ],
)
def test_the_frozen_hwcheck_starts_its_own_modules_and_no_others(
    words: list[str], code: int, said: str
) -> None:
    script = PACKAGING / "freezing" / "start_hwcheck.py"
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr


def fake(folder: Path, **more: int) -> Path:
    """A frozen folder whose files are of known sizes."""
    files = {
        "sigrun": 1_000_000,
        "hwcheck": 7_000_000,
        "_internal/numpy/_core/umath.so": 20_000_000,
        "_internal/numpy.libs/libblas.so": 10_000_000,
        "_internal/numpy-2.4.6.dist-info/METADATA": 100_000,
        "_internal/libstdc++.so.6": 2_000_000,
        "_internal/python3.11/lib-dynload/_json.so": 300_000,
        "_internal/libpython3.11.so.1.0": 5_000_000,
        "_internal/sigrun_hwcheck/cards.toml": 50_000,
        **more,
    }
    for name, nbytes in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.truncate(nbytes)
    (folder / "_internal" / "libblas.so").symlink_to("numpy.libs/libblas.so")
    return folder


def test_sizes_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = sizes.weigh(fake(tmp_path / "one"))
    assert parts["numpy"] == 30_100_000  # the link counts nothing
    assert parts[sizes.PYTHON] == 5_300_000
    assert parts[sizes.SYSTEM] == 2_000_000
    assert sizes.runtime_bytes(parts) == 30_100_000 + 5_300_000 + 2_000_000 + 1_000_000
    assert sizes.main([str(tmp_path / "one")]) == 0
    shown = capsys.readouterr().out
    assert "| numpy | " in shown
    assert "| **all** |  | 45.5 |" in shown
    assert "38.4 MB of 120.0 MB" in shown


def test_a_folder_over_budget_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake(tmp_path / "before")
    heavy = fake(tmp_path / "after", **{"_internal/onnxruntime/capi/state.so": 90_000_000})
    assert sizes.main([str(heavy), "--before", str(tmp_path / "before")]) == 1
    shown = capsys.readouterr().out
    assert "| onnxruntime |" in shown
    assert "| – | 90.0 |" in shown
    assert sizes.main([str(tmp_path)]) == 2
    assert "PyInstaller did not make it" in capsys.readouterr().err


def test_a_screen_counts_as_painted_once_there_are_colours() -> None:
    header = (100).to_bytes(4, "big") + bytes(72) + (2).to_bytes(4, "big") + bytes(20) + bytes(24)
    empty = header + bytes(4) * 10_000
    assert start_time.colours(empty) == 1
    assert start_time.colours(empty + b"\1\2\3\4" * 500 + b"\5\2\3\4" * 500) == 3


def test_starting_is_timed_and_failures_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert start_time.main(["--runs", "2", sys.executable, "-c", "pass"]) == 0
    assert "(2 runs)" in capsys.readouterr().out
    assert start_time.main(["--runs", "2", sys.executable, "-c", "raise SystemExit('no')"]) == 1
    assert "exit code 1: no" in capsys.readouterr().err


def test_nothing_here_names_a_registry_or_a_path_of_this_machine() -> None:
    home = str(Path.home())
    for path in PACKAGING.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            text = path.read_text("utf-8")
            for word in ("pypi", "://", "index-url", home + os.sep, "/tmp"):
                assert word not in text.lower(), f"{path.name} holds {word}"
