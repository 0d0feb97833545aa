"""What the example hosts do with bad input, and what the page asks the network for: nothing but its own server."""

from __future__ import annotations

import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sigrun.label_file import read, write
from tests import browser as driver
from tests import hosts
from tests.hosts import DEMO, HOSTS, Files
from tests.picture_files import png, stored

pytestmark = pytest.mark.hosts

NODE = hosts.no_node("onnxruntime-node", "sharp", "@huggingface/tokenizers")
WEB = hosts.no_node("onnxruntime-web", "@huggingface/tokenizers")
needs_node = pytest.mark.skipif(NODE is not None, reason=str(NODE))
needs_page = pytest.mark.skipif(
    WEB is not None or driver.found() is None, reason=WEB or "there is no Chromium on this machine"
)
needs_cpp = pytest.mark.skipif(hosts.no_cpp() is not None, reason=str(hosts.no_cpp()))
OWL = DEMO / "owl.png"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    with hosts.files(tmp_path_factory.mktemp("model")) as made:
        yield made


def bad_pictures(folder: Path) -> dict[str, Path]:
    whole = {
        "cut.jpg": stored("JPEG", hosts.drawing(), quality=90)[:-400],
        "cut.png": OWL.read_bytes()[:-2000],
        "words.png": b"no picture at all",
        "empty.jpg": b"",
        "damaged.png": OWL.read_bytes()[:400] + bytes(100) + OWL.read_bytes()[500:],
    }
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in whole}


def damaged_sets(labels: Path, folder: Path) -> dict[str, bytes]:
    """Files that are no label set of the model, by name, written to a folder."""
    whole = labels.read_bytes()
    matrix, strings = read(labels)
    write(folder / "other", matrix, {**strings, "space": "0" * 32}, force=False)
    made = {
        "other": (folder / "other").read_bytes(),
        "empty": b"",
        "short": whole[:7],
        "length": b"\xff" * 8 + whole[8:],
        "cut": whole[:-4],
        "more": whole + bytes(4),
        "json": whole[:8] + b"}" + whole[9:],
        "words": b"these are some words, not a label set",
    }
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return made


def refused(*command: str | Path) -> str:
    """What a host says on stderr, in one line, when it gives up in good order."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=hosts.COMMAND_SECONDS, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.count("\n") == 1 or "usage: " in done.stderr, done.stderr
    assert "    at " not in done.stderr, done.stderr
    assert done.stdout == ""
    return done.stderr


@needs_node
def test_node_refuses_what_is_no_picture(model: Files, tmp_path: Path) -> None:
    for path in bad_pictures(tmp_path).values():
        said = refused("node", HOSTS / "node" / "classify.mjs", model.bundle, path, "--label=owl")
        assert said.startswith("classify: ")
        assert path.name in said


@needs_node
def test_node_says_what_is_wrong_with_its_words(model: Files, tmp_path: Path) -> None:
    script = HOSTS / "node" / "classify.mjs"
    assert "usage: node classify.mjs" in refused("node", script, model.bundle, OWL)
    assert "nothing but punctuation" in refused("node", script, model.bundle, OWL, "--label=!?")
    assert str(tmp_path / "none") in refused("node", script, tmp_path / "none", OWL, "--label=owl")


@needs_node
def test_node_refuses_label_sets_that_are_damaged_or_of_another_model(model: Files, tmp_path: Path) -> None:
    script = HOSTS / "node" / "classify.mjs"
    for name, content in damaged_sets(model.labels, tmp_path).items():
        said = refused("node", script, model.bundle, OWL, f"--label-set={tmp_path / name}")
        assert ("another embedding space" in said) == (name == "other"), content


@needs_node
def test_node_reports_to_nobody() -> None:
    """The variable is set before ONNX Runtime is loaded, and what the user set stays."""
    code = f"import {str(HOSTS / 'js' / 'quiet.mjs')!r}; console.log(process.env.ORT_DISABLE_TELEMETRY)"
    assert hosts.run("node", "--input-type=module", "-e", code) == "1\n"
    assert (HOSTS / "node" / "classify.mjs").read_text("utf-8").index("quiet.mjs") < 400
    for script in ("node", "transformers-js"):
        imports = [
            line
            for line in (HOSTS / script / "classify.mjs").read_text("utf-8").splitlines()
            if line.startswith("import")
        ]
        assert "quiet.mjs" in imports[0]


@needs_cpp
def test_cpp_refuses_what_is_no_picture(model: Files, tmp_path: Path) -> None:
    for path in bad_pictures(tmp_path).values():
        said = refused(hosts.cpp_program(), model.bundle, model.labels, path)
        assert said.startswith(f"classify: {path}: ")
    (tmp_path / "huge.png").write_bytes(png(30_000, 30_000))
    assert "too large" in refused(hosts.cpp_program(), model.bundle, model.labels, tmp_path / "huge.png")


@needs_cpp
def test_cpp_refuses_label_sets_that_are_damaged_or_of_another_model(model: Files, tmp_path: Path) -> None:
    for name in damaged_sets(model.labels, tmp_path):
        said = refused(hosts.cpp_program(), model.bundle, tmp_path / name, OWL)
        assert ("another embedding space" in said) == (name == "other"), name
    refused(hosts.cpp_program(), model.bundle, tmp_path / "none", OWL)
    refused(hosts.cpp_program(), tmp_path / "none", model.labels, OWL)
    assert "usage" in refused(hosts.cpp_program(), model.bundle, model.labels)


@needs_cpp
def test_cpp_survives_damaged_pictures(model: Files, tmp_path: Path) -> None:
    """Some hundred files with bytes changed at random: for each an answer or a message, and never a crash."""
    chance = np.random.default_rng(3)
    small = hosts.drawing(size=(40, 30))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    kinds = [(stored("JPEG", small, exif=exif), 2), (stored("PNG", small), 8)]
    paths = []
    for number in range(300):
        whole, first = kinds[number % 2]
        damaged = bytearray(whole)
        for place in chance.integers(first, len(whole), 1 + number % 7):
            damaged[place] = chance.integers(256)
        paths.append(tmp_path / f"{number}")
        paths[-1].write_bytes(damaged)
    done = subprocess.run(
        [hosts.cpp_program(), model.bundle, model.labels, *paths],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1
    answers, complaints = done.stdout.count("\n"), done.stderr.count("\n")
    assert answers + complaints == len(paths)
    assert answers > 20
    assert complaints > 20


@pytest.mark.parametrize(
    "host", [pytest.param("node", marks=needs_node), pytest.param("cpp", marks=needs_cpp)]
)
def test_a_bad_picture_does_not_take_the_others_down(model: Files, host: str, tmp_path: Path) -> None:
    bad = bad_pictures(tmp_path)["words.png"]
    if host == "node":
        script = str(HOSTS / "node" / "classify.mjs")
        command = ["node", script, str(model.bundle), f"--label-set={model.labels}"]
    else:
        command = [str(hosts.cpp_program()), str(model.bundle), str(model.labels)]
    done = subprocess.run([*command, bad, OWL], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert list(hosts.parsed(done.stdout)) == ["owl.png"]
    assert str(bad) in done.stderr


@needs_page
def test_the_page_stays_at_home_and_says_what_is_wrong(model: Files, tmp_path: Path) -> None:
    bad = bad_pictures(tmp_path)["words.png"]
    with hosts.opened_page(model.bundle, tmp_path / "profile", 2) as page:
        origin = page.run("location.origin")
        found = hosts.page_scores(page, [bad, OWL], ["owl", "key"])
        assert found["words.png"] == {}
        assert next(iter(found["owl.png"])) == "owl"
        assert page.run("document.querySelector('.wrong').textContent").startswith("words.png: ")
        assert hosts.page_scores(page, [OWL], ["!?"]) == {}
        assert "nothing but punctuation" in page.run("document.getElementById('status').textContent")
        assert not page.run("document.getElementById('classify').disabled")
        asked = [
            e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"
        ]
        assert len(asked) > 10
        assert [url for url in asked if not url.removeprefix("blob:").startswith(f"{origin}/")] == []
        wrong = [e for e in page.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        assert wrong == []


@needs_page
def test_the_server_gives_the_page_and_the_model_only(model: Files) -> None:
    outside = [
        *(
            "../../pyproject.toml",
            "%2e%2e/%2e%2e/pyproject.toml",
            "..%2f..%2fpyproject.toml",
            "model/",
            "%E0%A4%A",
            "x%00y",
        ),
        *("model/../../../pyproject.toml", "model/%2e%2e/%2e%2e/hosts.py", "model/..%2fmanifest.json"),
    ]
    with hosts.page_server(model.bundle) as url:
        with urllib.request.urlopen(f"{url}model/manifest.json") as answer:
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.read() == (model.bundle / "manifest.json").read_bytes()
        for path in outside:
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + path)
        address = urllib.parse.urlsplit(url)
        for line in ("GET // HTTP/1.1", "OPTIONS * HTTP/1.1", "GET http://[x/ HTTP/1.1", "GET /%00 HTTP/1.1"):
            with socket.create_connection((address.hostname, address.port), timeout=10) as raw:
                raw.sendall(f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
                assert raw.recv(9) == b"HTTP/1.1 "
        with urllib.request.urlopen(url) as answer:  # it still stands
            assert answer.status == 200


@pytest.mark.skipif(hosts.no_node() is not None, reason=str(hosts.no_node()))
def test_the_server_survives_names_too_long_for_a_file(tmp_path: Path) -> None:
    with hosts.page_server(tmp_path) as url:
        for path in ("a" * 300, "model/" + "a" * 300, "a/" * 4000):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + path)
        with urllib.request.urlopen(url) as answer:  # it still stands
            assert answer.status == 200
