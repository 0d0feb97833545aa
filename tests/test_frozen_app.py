"""Frozen folders run where there is no Python, and say what the plain runtime says.

They are frozen here, by PyInstaller, which takes a minute: marker ``app`` (make test-app).
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigrun import Siglip
from tests.checkpoints import ROOT
from tests.picture_kinds import KINDS

PACKAGING = ROOT / "packaging"
sys.path.append(str(PACKAGING))

import bare  # noqa: E402
import sizes  # noqa: E402
import start_time  # noqa: E402

pytestmark = [pytest.mark.app, pytest.mark.timeout(600)]

DEMO = ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
PLAIN = [sys.executable, "-m", "sigrun"]
on_bare_machines = pytest.mark.skipif(not bare.possible(), reason="needs Linux, and root or user namespaces")


def freeze(spec: str, folder: Path) -> Path:
    """What PyInstaller makes of a spec."""
    pytest.importorskip("PyInstaller")
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "ERROR"]
    command += [
        "--distpath",
        str(folder),
        "--workpath",
        str(folder / "build"),
        str(PACKAGING / f"{spec}.spec"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / spec


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frozen command line."""
    return freeze("sigrun", tmp_path_factory.mktemp("frozen"))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frozen desktop app."""
    pytest.importorskip("PySide6")
    return freeze("photo_desk", tmp_path_factory.mktemp("frozen"))


@pytest.fixture
def machine(frozen: Path, emoji_q4: Path) -> Iterator[bare.Bare]:
    """A bare machine with the frozen command line, the model and the pictures, all of it read-only."""
    seen = {"opt/líkan/módel.gguf": emoji_q4, "srv/myndir 山": DEMO}
    with bare.bare_root(frozen, seen) as made:
        yield made


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout.decode("utf-8")


def rows(text: str) -> list[tuple[str, object]]:
    """Lines of JSON on pictures, with the names of their files instead of paths."""
    found = [json.loads(line) for line in text.splitlines()]
    return [(Path(row.pop("picture")).name, row) for row in found]


def test_the_runtime_is_within_its_budget(frozen: Path) -> None:
    parts = sizes.weigh(frozen)
    assert {"numpy", "onnxruntime", "pillow", "sentencepiece", "sigrun", sizes.PYTHON} <= set(parts)
    assert sizes.runtime_bytes(parts) <= sizes.BUDGET, sizes.table(parts)


@pytest.mark.skipif(sys.platform != "linux", reason="ldd")
def test_the_machine_must_bring_the_c_library_only(frozen: Path) -> None:
    foreign = [name for name in bare.outside(frozen) if not bare.C_LIBRARY.fullmatch(name)]
    assert not foreign


def test_help_is_the_same(frozen: Path) -> None:
    """Nothing that is said comes from docstrings, which are left out."""
    commands = [[], *([name] for name in ("classify", "embed", "index", "search", "evaluate", "cache"))]
    for words in commands:
        plain = subprocess.run([*PLAIN, *words, "--help"], capture_output=True, check=True)
        done = subprocess.run([frozen / "sigrun", *words, "--help"], capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, plain.stdout)


@on_bare_machines
def test_a_bare_machine_classifies_the_demo_pictures(machine: bare.Bare, emoji_q4: Path) -> None:
    plain = subprocess.run(
        [*PLAIN, "classify", emoji_q4, DEMO, "--labels", DEMO / "labels.txt", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    labels = ["--labels", "/srv/myndir 山/labels.txt"]
    done = machine.run("sigrun", "classify", "/opt/líkan/módel.gguf", "/srv/myndir 山", *labels, "--json")
    found = rows(said(done))
    assert found == rows(plain.stdout)
    assert len(found) == len(list(DEMO.glob("*.png")))


@on_bare_machines
def test_a_bare_machine_has_no_python_and_no_network(machine: bare.Bare) -> None:
    """What the tests above rest on: there are no files but the C library's, and no network but the loop."""
    files = {path.name for path in machine.root.rglob("*") if path.is_file()}
    assert all(bare.C_LIBRARY.fullmatch(name) for name in files - {"módel.gguf"}), files
    done = subprocess.run(
        [*bare.namespaces(), "cat", "/proc/self/net/dev"], capture_output=True, text=True, check=True
    )
    assert [line.split(":")[0].strip() for line in done.stdout.splitlines()[2:]] == ["lo"]


@on_bare_machines
def test_a_bare_machine_indexes_and_finds(machine: bare.Bare) -> None:
    home = f"/{bare.WRITABLE}"
    environment = {"HOME": home, "SIGRUN_CACHE": f"{home}/skyndiminni"}
    words = ["index", "/opt/líkan/módel.gguf", "/srv/myndir 山", "-o", f"{home}/vísir"]
    made = machine.run("sigrun", *words, environment=environment)
    assert made.returncode == 0, made.stderr.decode()
    told = machine.run("sigrun", "search", f"{home}/vísir", "red apple", "--json", environment=environment)
    assert "red-apple.png" in said(told).splitlines()[0]


@on_bare_machines
def test_a_bare_machine_tells_what_fits(machine: bare.Bare) -> None:
    told = json.loads(said(machine.run("hwcheck", "/opt/líkan/módel.gguf", "--json")))
    assert "fits" in json.dumps(told)
    child = machine.run("hwcheck", "-P", "-m", "sigrun_hwcheck.probe.provider_child", "cpu")
    assert json.loads(said(child))


@on_bare_machines
def test_closed_output_is_no_crash(machine: bare.Bare, emoji_q4: Path) -> None:
    """As with the plain program: what cannot be written is an error at most, never a signal or a hang."""
    words = ["classify", "/opt/líkan/módel.gguf", "/srv/myndir 山/owl.png", "--label", "owl"]
    shut = machine.run("sigrun", *words, shut=True)
    command = [*PLAIN, "classify", str(emoji_q4), str(DEMO / "owl.png"), "--label", "owl"]
    plain = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *command], check=False)
    assert shut.returncode == plain.returncode


def test_every_kind_of_picture_is_read_or_refused_as_ever(
    frozen: Path, emoji_q4: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    for number, kind in enumerate(KINDS):
        made = kind.make()
        if isinstance(made, bytes) and kind.name != "HEIC":  # HEIC comes with a package that is left out
            (folder / f"{number:02} {kind.name.replace('/', ' ')}.png").write_bytes(made)
    assert len(list(folder.iterdir())) > 30
    words = ["classify", emoji_q4, *sorted(folder.iterdir()), "--label", "owl", "--json"]
    plain = subprocess.run([*PLAIN, *words], capture_output=True, text=True, check=False)
    done = subprocess.run([frozen / "sigrun", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    assert "AVIF" in done.stdout


def test_a_photo_desk_shows_its_window_and_embeds(app: Path, emoji_q4: Path, tmp_path: Path) -> None:
    """From outside: a painted window on a screen, then the plain runtime's vectors in its data folder."""
    data = tmp_path / "gögn"
    words = ["--data", data, "--artifact", emoji_q4, "--folder", DEMO, "--query", "owl"]
    try:
        with start_time.screen() as screen:
            assert start_time.to_window([str(app / "photo_desk"), *map(str, words)], "Photo Desk", screen) > 0
            environment = {**os.environ, "DISPLAY": screen.display, "QT_QPA_PLATFORM": "xcb"}
            with subprocess.Popen([app / "photo_desk", *words], env=environment) as program:
                pictures = sorted(str(path) for path in DEMO.glob("*.png"))
                vectors = _vectors(data / "photo-desk.sqlite3", len(pictures))
                program.terminate()
    except start_time.NotStartedError as error:
        if "not installed" in str(error):
            pytest.skip(str(error))
        raise
    plain = Siglip.load(emoji_q4).embed_images(pictures).vectors
    assert [vectors[path.encode()] for path in pictures] == [row.tobytes() for row in plain]


def _vectors(path: Path, count: int) -> dict[bytes, bytes]:
    """What the app remembers, once it is all there."""
    found: dict[bytes, bytes] = {}
    for _ in range(600):
        if path.exists():
            with sqlite3.connect(path) as db:
                try:
                    found = dict(db.execute("SELECT path, vector FROM vectors WHERE vector IS NOT NULL"))
                except sqlite3.OperationalError:
                    found = {}
            db.close()
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{len(found)} of {count} vectors after a minute")


@on_bare_machines
def test_the_app_needs_only_what_a_desktop_has(app: Path) -> None:
    foreign = {
        name
        for name in bare.outside(app)
        if not bare.C_LIBRARY.fullmatch(name) and not bare.DESKTOP.fullmatch(name)
    }
    assert not foreign
    with bare.bare_root(app, desktop=True) as machine:
        told = machine.run("photo_desk", "--version", environment={"LC_ALL": "C.UTF-8"})
    assert said(told).strip()
