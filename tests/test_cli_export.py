"""``sigrun-export`` with all it can be asked: what comes out, and one plain message for what cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sigrun.artifact import Artifact
from sigrun_exporters.cli import main
from sigrun_exporters.export import Exported
from sigrun_recipes import default_model, load, names, plan
from tests import checkpoints

DEMO = checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
EMOJI = str(checkpoints.EMOJI)
OWN = """
format = 1
name = "mine"
summary = "mine"
rewrites = []
[limit]
bits_per_weight = 32
[gate]
cosine = 0.999
score_error = 0.001
top1 = 0.9
[default]
linear = "q8_0"
token = "q8_0"
patch = "f16"
fallback = ["f16"]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: object) -> tuple[int, str, str]:
        code = main([str(w) for w in words])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some pictures, one of them broken, and captions."""
    folder = tmp_path_factory.mktemp("data")
    for path in sorted(DEMO.glob("*.png"))[:3]:
        shutil.copy(path, folder)
    (folder / "broken.png").write_bytes(b"no picture at all")
    (folder / "captions.txt").write_text("an owl\n\na red apple\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that is not Sigrun's."""
    path = tmp_path_factory.mktemp("recipe") / "mine.toml"
    path.write_text(OWN, "utf-8")
    return path


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an image tower alone."""
    return checkpoints.write_timm(tmp_path_factory.mktemp("checkpoint") / "tower")


def suffixes(out: str, variant: str) -> list[str]:
    paths = [Path(line) for line in out.splitlines()]
    assert all(p.exists() for p in paths)
    return [p.name.split(variant, 1)[1] for p in paths]


REPORT = [".report.json", ".report.md", ".report.svg"]


def test_everything_at_once(run: Run, data: Path, tmp_path: Path) -> None:
    calibration = ["--calibration", data, "--captions", data / "captions.txt"]
    formats = ["--format", "onnx", "--format", "gguf", "--compute", "int8"]
    command = ["convert", EMOJI, "--variant", "q4_k_s", "-o", tmp_path, *formats]
    code, out, err = run(*command, *calibration, "--refit")
    assert code == 0, err
    assert suffixes(out, "q4_k_s") == [".gguf", ".onnx", ".imatrix.gguf", *REPORT]
    assert "note: calibration picture left out: " in err
    assert "broken.png" in err
    gguf, bundle, matrix = (Path(line) for line in out.splitlines()[:3])
    with Artifact.open(gguf) as artifact:
        manifest = artifact.manifest
    assert manifest.verification is not None
    assert (manifest.verification.pictures, manifest.verification.texts) == (14 + 3, 24 + 2)
    assert (manifest.refit is None) == ("scoring constants stay the checkpoint's" in err)
    written = json.loads((bundle / "manifest.json").read_text("utf-8"))
    assert written["bundle"]["form"] == "int8"
    assert written["importance"] == manifest.importance is not None
    assert written["weights_sha256"] == manifest.weights_sha256

    # The saved matrix gives the very weights that measuring gave.
    code, out, err = run(*command[:4], "-o", tmp_path / "again", "--importance", matrix, "--no-verify")
    assert code == 0, err
    assert suffixes(out, "q4_k_s") == [".gguf", *REPORT]
    with Artifact.open(out.splitlines()[0]) as artifact:
        assert artifact.manifest.weights_sha256 == manifest.weights_sha256
        assert artifact.manifest.importance == manifest.importance


def test_the_hubs_layout_alone(run: Run, tmp_path: Path) -> None:
    words = ["--format", "onnx", "--layout", "hub", "--no-verify", "--variant", "q8_0"]
    code, out, err = run("convert", EMOJI, "-o", tmp_path, *words)
    assert code == 0, err
    assert suffixes(out, "q8_0") == [".hub", *(f".hub{suffix}" for suffix in REPORT)]
    names_ = {
        p.relative_to(tmp_path).parts[1]
        for p in tmp_path.rglob("*")
        if len(p.relative_to(tmp_path).parts) > 1
    }
    assert names_ == {Path(line).name for line in out.splitlines()}
    code, out, err = run("convert", EMOJI, "-o", tmp_path, *words)
    assert (code, out) == (1, "")
    assert "exists already" in err


def refused(data: Path, tower: Path, tiny: Path, tmp_path: Path) -> dict[str, tuple[list[Any], str]]:
    """Arguments of ``convert`` that cannot work, and words that the message must hold."""
    captions = data / "captions.txt"
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "blank.txt").write_text("\n\n", "utf-8")
    (tmp_path / "marks.txt").write_text("?!\n", "utf-8")
    (tmp_path / "open.toml").write_text(OWN.replace("top1 = 0.9", ""), "utf-8")
    both = ["--calibration", data, "--captions", captions]
    return {
        "refit alone": ([EMOJI, "--refit"], "--calibration and --captions"),
        "refit without captions": ([EMOJI, "--refit", "--calibration", data], "--refit needs"),
        "refit without pictures": ([EMOJI, "--refit", "--captions", captions], "--refit needs"),
        "refit unverified": ([EMOJI, "--refit", *both, "--no-verify"], "leave out --no-verify"),
        "refit of one tower": ([tower, "--variant", "f32", "--refit", *both], "no scores to fit"),
        "texts for no text tower": ([tower, "--variant", "f32", "--captions", captions], "text tower"),
        "no such folder": ([EMOJI, "--calibration", tmp_path / "gone"], "gone"),
        "a file for a folder": ([EMOJI, "--calibration", captions], "not a folder"),
        "no pictures": ([EMOJI, "--calibration", empty], "no pictures"),
        "no captions file": ([EMOJI, "--captions", tmp_path / "gone.txt"], "gone.txt"),
        "blank captions": ([EMOJI, "--captions", tmp_path / "blank.txt"], "holds no text"),
        "captions of marks": ([EMOJI, "--captions", tmp_path / "marks.txt"], "holds a word"),
        "no matrix": ([EMOJI, "--importance", tmp_path / "gone.gguf"], "gone.gguf"),
        "matrix of words": ([EMOJI, "--importance", captions], "no importance matrix"),
        "recipe without its gate": ([EMOJI, "--recipe", tmp_path / "open.toml"], "gate.top1"),
        "recipe beyond its limit": ([tiny], "more than the 6.25"),
    }


def test_what_cannot_be_gives_one_message(
    run: Run, data: Path, tower: Path, tiny: Path, tmp_path: Path
) -> None:
    for case, (words, says) in refused(data, tower, tiny, tmp_path).items():
        code, out, err = run("convert", *words, "-o", tmp_path / "out")
        errors = [line for line in err.splitlines() if line.startswith("sigrun-export: error: ")]
        assert (code, out, len(errors)) == (1, "", 1), (case, err)
        assert says in err[err.index("error: ") :], (case, err)
        left = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
        assert left == [], (case, left)


@pytest.mark.parametrize("option", [["--layout", "hub"], ["--compute", "int8"], ["--compute", "exact"]])
def test_options_of_onnx_files_need_them(run: Run, tmp_path: Path, option: list[str]) -> None:
    code, out, err = run("convert", EMOJI, "-o", tmp_path / "out", *option)
    assert (code, out) == (2, "")
    assert err.startswith(f"sigrun-export: error: {option[0]} is about ONNX files\n  hint: add --format onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["convert"],
        ["convert", EMOJI, "--format", "pt"],
        ["convert", EMOJI, "--layout", "flat"],
        ["convert", EMOJI, "--compute", "int4"],
        ["convert", EMOJI, "--variant", "q4_k_m", "--recipe", "mine.toml"],
        ["verify", "x.gguf"],
        ["verify", "x.gguf", "--reference", EMOJI, "--compute", "int4"],
        ["recipes", "a", "b"],
    ],
)
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2


@pytest.mark.parametrize("command", ["convert", "verify", "recipes"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    page = capsys.readouterr().out
    assert f"examples:\n  sigrun-export {command}" in page
    assert command == "recipes" or "exit codes: 0" in page


# verify


def test_verify_measures_the_forms_it_is_asked_for(
    run: Run, emoji_variant: Callable[[str], Exported]
) -> None:
    done = emoji_variant("q8_0")
    forms = ["--compute", "int8", "--compute", "exact"]
    code, out, _ = run("verify", done.path, "--reference", EMOJI, *forms, "--json")
    record = json.loads(out)
    assert (code, list(record["forms"])) == (0, ["int8", "exact"])
    assert (record["model"], record["variant"]) == (done.manifest.model, "q8_0")
    assert (record["pictures"], record["texts"], record["problems"]) == (14, 24, [])
    verification = done.manifest.verification
    assert verification is not None
    for form, found in record["forms"].items():
        assert found["scores"]["top1"] == verification.forms[form].scores.top1  # type: ignore[union-attr]
        for name, cosine in found["cosines"].items():
            assert cosine["worst"] == pytest.approx(verification.forms[form].cosines[name].worst, abs=1e-6)
    code, out, _ = run("verify", done.path, "--reference", EMOJI, "--compute", "exact")
    assert code == 0
    assert out.splitlines()[-1] == "  passed"
    assert "  int8" not in out


def test_verify_asks_for_an_own_recipe(run: Run, own: Path, tmp_path: Path) -> None:
    code, out, err = run("convert", EMOJI, "--recipe", own, "-o", tmp_path, "--no-verify")
    assert code == 0, err
    path = out.splitlines()[0]
    code, out, err = run("verify", path, "--reference", EMOJI, "--compute", "exact")
    assert (code, out) == (1, "")
    assert "--recipe FILE.toml" in err
    words = ["verify", path, "--reference", EMOJI, "--compute", "exact", "--recipe"]
    assert run(*words, own)[0] == 0
    strict = tmp_path / "strict.toml"
    strict.write_text(OWN.replace("cosine = 0.999", "cosine = 1.0"), "utf-8")
    code, out, err = run(*words, strict)
    assert code == 1
    assert "has changed since the artifact was made" in err
    assert "problem: form exact: worst image cosine" in out


def test_verify_looks_at_own_pictures_too(
    run: Run, data: Path, emoji_variant: Callable[[str], Exported]
) -> None:
    words = ["--calibration", data, "--captions", data / "captions.txt", "--compute", "exact", "--json"]
    code, out, err = run("verify", emoji_variant("f32").path, "--reference", EMOJI, *words)
    record = json.loads(out)
    assert (code, record["pictures"], record["texts"]) == (0, 17, 26)
    assert "broken.png" in err


def test_verify_refuses_a_damaged_artifact(run: Run, emoji_q4: Path, tmp_path: Path) -> None:
    whole = bytearray(emoji_q4.read_bytes())
    with Artifact.open(emoji_q4) as artifact:
        weight = artifact.data("v.blk.1.ffn_up.weight").tobytes()
    whole[whole.index(weight) + 100] ^= 1
    (tmp_path / "damaged.gguf").write_bytes(whole)
    code, out, err = run("verify", tmp_path / "damaged.gguf", "--reference", EMOJI, "--compute", "exact")
    assert (code, out) == (1, "")
    assert "tensor 'v.blk.1.ffn_up.weight' is damaged" in err


# recipes


def test_recipes_of_published_models_need_no_network(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def offline(*_: Any, **__: Any) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", offline)
    code, out, err = run("recipes", "--json")
    table = json.loads(out)
    assert (code, err, table["model"]) == (0, "", default_model().repo.split("/")[1])
    assert [row["variant"] for row in table["variants"]] == list(names())
    for row in table["variants"]:
        planned = plan(load(row["variant"]), default_model().architecture)
        for tower, found in row["towers"].items():
            assert found["bytes"] == planned.nbytes(tower)
        assert row["gguf_bytes"] > sum(found["bytes"] for found in row["towers"].values())
    code, out, _ = run("recipes", "google/siglip2-base-patch16-256")
    assert code == 0
    assert out.startswith("siglip2-base-patch16-256: ")
    assert all(f"\n{name} " in out for name in names())


def test_recipes_of_a_checkpoint_and_of_ones_own(run: Run, own: Path, tower: Path) -> None:
    code, out, _ = run("recipes", EMOJI, "--recipe", own, "--json")
    table = json.loads(out)
    assert (code, table["model"], [row["variant"] for row in table["variants"]]) == (
        0,
        "emoji-siglip-patch10-60",
        ["mine"],
    )
    code, out, _ = run("recipes", tower, "--json")
    rows = {row["variant"]: row for row in json.loads(out)["variants"]}
    assert code == 0
    assert set(rows["f32"]["towers"]) == {"image"}
    assert "refused" in rows["q4_k_m"]  # so small a tower is mostly norms and biases
    code, out, err = run("recipes", "nowhere/at/all")
    assert (code, out) == (1, "")
    assert err.startswith("sigrun-export: error: ")
    code, out, err = run("recipes", "--recipe", own.with_name("gone.toml"))
    assert (code, out) == (1, "")
    assert "gone.toml" in err
