"""``sigrun-export verify`` against programs that share no code with ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sigrun_exporters.cli import main
from sigrun_exporters.verify import oracles
from tests.checkpoints import EMOJI

pytestmark = pytest.mark.reference


def test_both_libraries_agree_with_the_reference(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(emoji_q4), "--reference", str(EMOJI), "--compute", "exact", "--json"]
    code = main([*command, "--against", "transformers", "--against", "optimum"])
    record = json.loads(capsys.readouterr().out)
    assert (code, record["problems"]) == (0, [])
    assert set(record["against"]) == {"transformers", "optimum"}
    for found in record["against"].values():
        assert set(found) == {"image", "text"}
        assert min(found.values()) > 0.99999


def test_a_library_that_differs_is_a_problem(
    emoji_q4: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = oracles.transformers

    def mirrored(folder: Path, seen: oracles.Inputs) -> dict[oracles.TowerName, oracles.Floats]:
        found = ours(folder, seen)
        return {**found, "image": found["image"][::-1]}

    monkeypatch.setitem(oracles.ORACLES, "transformers", mirrored)
    command = ["verify", str(emoji_q4), "--reference", str(EMOJI), "--compute", "exact"]
    assert main([*command, "--against", "transformers"]) == 1
    out = capsys.readouterr().out
    assert "problem: the image tower differs from transformers's" in out
    assert "text tower differs" not in out


@pytest.mark.parametrize(
    ("library", "missing"),
    [("transformers", "torch"), ("transformers", "transformers"), ("optimum", "optimum.exporters.onnx")],
)
def test_a_library_that_is_not_installed_is_named(
    emoji_q4: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    missing: str,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    command = ["verify", str(emoji_q4), "--reference", str(EMOJI), "--compute", "exact"]
    assert main([*command, "--against", library]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"error: {missing} is not installed" in printed.err
    assert "sigrun[reference]" in printed.err


def test_a_folder_that_the_libraries_refuse_is_said(
    tmp_path: Path, emoji_q4: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(oracles.OracleError, match="transformers cannot load it"):
        oracles.transformers(tmp_path, None)  # type: ignore[arg-type]  # it comes to none
