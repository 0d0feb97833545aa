"""``sigrun self-test``, ``sigrun cache``, and what ``sigrun info`` says of this machine."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import pytest

import sigrun.cli
from sigrun import Siglip, prepared, selftest
from sigrun.cli import cache
from sigrun.errors import ProviderWarning


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun.cli.main([*map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_every_tower_passes_in_every_form(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "self-test", emoji_q4, "--all", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert {(f["tower"], f["compute"]) for f in found if f["provider"] == "cpu"} == {
        (tower, form) for tower in ("image", "text") for form in ("exact", "int8", "f16", "w4f16")
    }
    assert all(f["passed"] and f["limit"] <= f["cosine"] <= 1.000001 for f in found)


def test_a_tower_that_deviates_fails(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = selftest._golden
    monkeypatch.setattr(
        selftest, "_golden", lambda a, t: tuple(reversed(whole(a, t) or ())) if t == "text" else whole(a, t)
    )
    code, out, _ = run(capsys, "self-test", emoji_q4, "--compute", "exact", "--threads", "1")
    image, text = out.splitlines()
    assert code == 1
    assert image.startswith("image tower, form exact, provider cpu: cosine 1.000000")
    assert image.endswith("passed")
    assert text.endswith("FAILED")


def test_an_artifact_without_golden_vectors_is_not_called_tested(
    tiny_q4: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "self-test", tiny_q4)
    assert code == 1
    assert out.count("nothing to compare with") == 2


def test_all_and_a_choice_contradict_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "self-test", "no.gguf", "--all", "--compute", "int8")[0] == 2


def test_info_says_what_auto_would_choose_here(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "info", emoji_q4)
    with Siglip.load(emoji_q4, towers="both") as model:
        info = model.info
    assert code == 0
    for tower, running in info.running.items():
        assert f"{tower} tower: {running.compute} on {running.provider}" in out
    assert f"{info.threads} threads" in out


def test_the_cache_is_listed_and_cleared_and_nothing_else_is_touched(
    emoji_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGRUN_CACHE", str(tmp_path / "cache"))
    assert run(capsys, "cache")[:2] == (0, f"{tmp_path / 'cache'}: 0 entries, 0.0 MiB kept\n")
    with Siglip.load(emoji_q4, compute="int8", towers="image"):
        pass
    (tmp_path / "cache" / "thesis.txt").write_text("words", "utf-8")
    (tmp_path / "cache" / ".sigrun-old").mkdir()
    os.utime(tmp_path / "cache" / ".sigrun-old", (1.0, 1.0))
    code, out, _ = run(capsys, "cache", "--json")
    made, old = [json.loads(line) for line in out.splitlines()]
    folder = Path(made["path"])
    assert code == 0
    assert (old["kind"], old["bytes"], old["used"]) == ("unfinished", 0, 1.0)
    assert (made["kind"], folder.parent) == ("matrices", tmp_path / "cache")
    assert made["bytes"] == sum(path.stat().st_size for path in folder.iterdir()) > 100_000
    assert run(capsys, "cache")[1].endswith(f": 2 entries, {made['bytes'] / 2**20:.1f} MiB kept\n")
    with monkeypatch.context() as patch:
        patch.setattr(prepared.shutil, "rmtree", lambda path, ignore_errors: None)
        code, out, err = run(capsys, "cache", "--clear")
        assert (code, "0 entries" in out, err.count("cannot be deleted")) == (1, True, 2)
    code, out, _ = run(capsys, "cache", "--clear")
    assert code == 0
    assert out.endswith("MiB deleted\n")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["thesis.txt"]


def test_a_cache_that_is_off_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "cache")
    assert (code, "nothing is kept" in out) == (0, True)


def test_a_warning_of_the_runtime_is_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warns(arguments: object) -> int:
        warnings.warn(ProviderWarning("cuda does not start"), stacklevel=1)
        return 0

    monkeypatch.setattr(cache, "run", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(capsys, "cache") == (0, "", "sigrun: note: cuda does not start\n")
