"""``sigrun serve``: what it refuses, and what it says."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sigrun import Siglip
from sigrun.cli import main
from tests.picture_files import png


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["serve", *arguments])
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


@pytest.fixture(autouse=True)
def no_token(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "without_the_extra" not in request.node.name:
        pytest.importorskip("uvicorn", reason="needs the extra serve")
        pytest.importorskip("starlette", reason="needs the extra serve")
    monkeypatch.delenv("SIGRUN_SERVE_TOKEN", raising=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_others_may_not_reach_it_without_a_token(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, words = said(capsys, "nowhere.gguf", "--host", host)
    assert code == 1
    assert "there is no token" in words
    assert "--allow-anyone" in words


def test_a_token_must_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("short\n")
    assert "at least 16" in said(capsys, "nowhere.gguf", "--token-file", str(token))[1]
    token.write_text("\n")
    code, words = said(capsys, "nowhere.gguf", "--token-file", str(token))
    assert (code, "is empty" in words) == (2, True)
    assert "cannot be read" in said(capsys, "nowhere.gguf", "--token-file", str(tmp_path / "none"))[1]
    monkeypatch.setenv("SIGRUN_SERVE_TOKEN", "tiny")
    assert "at least 16" in said(capsys, "nowhere.gguf")[1]


def test_what_cannot_be_served_is_said(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nowhere.gguf" in said(capsys, "nowhere.gguf")[1]
    assert "is not NAME=FILE" in said(capsys, str(emoji_q4), "--label-set", "x")[1]
    assert "none.labels" in said(capsys, str(emoji_q4), "--label-set", f"x={tmp_path}/none.labels")[1]
    assert "is not an index" in said(capsys, str(emoji_q4), "--index", str(tmp_path), "--port", "0")[1]
    assert "--max-queue" in said(capsys, str(emoji_q4), "--max-items", "10", "--max-queue", "5")[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, words = said(capsys, str(emoji_q4), "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "cannot be bound" in words


def test_labels_of_another_model_are_not_served(
    emoji_q4: Path, tiny_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Siglip.load(tiny_q4) as other:
        other.label_set(["an owl"]).save(tmp_path / "x.labels.safetensors")
    words = said(capsys, str(emoji_q4), "--port", "0", "--label-set", f"x={tmp_path}/x.labels.safetensors")[1]
    assert "label set 'x' was made by a model of another embedding space" in words


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--port", "x"],
        ["--idle-unload", "0"],
        ["--max-wait", "-1"],
        ["--timeout", "nan"],
    ],
)
def test_numbers_that_cannot_be_meant(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "x.gguf", *arguments])
    assert caught.value.code == 2
    assert "must be a number" in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(emoji_q4: Path) -> None:
    """The rest of the program works without it; nothing of it is loaded with the rest."""
    code = (
        "import sys\n"
        "for name in ('starlette', 'uvicorn', 'h11'): sys.modules[name] = None\n"
        "from sigrun.cli import main\n"
        f"assert main(['info', {str(emoji_q4)!r}]) == 0\n"
        "assert not any(name.startswith('sigrun.serve') for name in sys.modules)\n"
        f"sys.exit(main(['serve', {str(emoji_q4)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "pip install 'sigrun[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_limit_of_pictures_is_the_one_that_the_help_names(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sigrun.serve import server

    served: list[Siglip] = []
    monkeypatch.setattr(server, "serve", lambda model, settings: served.append(model))
    assert main(["serve", str(emoji_q4)]) == 0
    too_large = png(10_000, 5_001)
    with served[0] as model:
        found = model.embed_images([too_large])
    assert "at most 50 million are accepted" in found.errors[0].message
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert "before decoding them (default: 50)" in " ".join(capsys.readouterr().out.split())
