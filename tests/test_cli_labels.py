"""``sigrun labels``: a file made, shown and used, and one clear message for what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sigrun.cli
from sigrun import LabelSet, Siglip
from tests import checkpoints

APPLE = str(checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo" / "red-apple.png")


def sigrun_run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun.cli.main([str(a) for a in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture(scope="module")
def made(emoji_q4: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "fruit.labels.safetensors"
    words = ["labels", emoji_q4, "--label", "red apple", "--label", "owl", "--template", "a {}", "-o", path]
    assert sigrun.cli.main([*map(str, words), "--compute", "exact"]) == 0
    return path


def test_it_makes_a_set_and_says_what_is_in_it(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("owl\nfire engine\n", "utf-8")
    path = tmp_path / "set.labels.safetensors"
    code, out, err = sigrun_run(
        capsys,
        *["labels", emoji_q4, "--label", "red apple", "--labels", tmp_path / "list.txt"],
        *["--ensemble", "imagenet80", "-o", path],
    )
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == str(path)
    assert "the 80 of imagenet80" in out
    assert LabelSet.load(path).labels == ("red apple", "owl", "fire engine")
    assert sigrun_run(capsys, "labels", path) == (0, out, "")


def test_what_it_shows(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = sigrun_run(capsys, "labels", made)
    assert (code, err) == (0, "")
    found = LabelSet.load(made)
    for text in ("red apple", "owl", '"a {}"', found.space, "emoji-siglip-patch10-60 q4_k_m", "160 numbers"):
        assert text in out
    code, out, err = sigrun_run(capsys, "labels", made, "--json")
    record = json.loads(out)
    assert out.count("\n") == 1
    assert found.origin is not None and found.origin.scoring is not None
    assert record == {
        "file": str(made),
        "labels": ["red apple", "owl"],
        "cut": [],
        "templates": ["a {}"],
        "width": 160,
        "space": found.space,
        "model": "emoji-siglip-patch10-60 q4_k_m",
        "canonicalisation": "hf",
        "calibrated": False,
        "logit_scale": found.origin.scoring.logit_scale,
        "logit_bias": found.origin.scoring.logit_bias,
    }


def test_classify_takes_the_set(emoji_q4: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("classify", emoji_q4, APPLE, "--json", "--compute", "exact")
    with_set = sigrun_run(capsys, *words, "--label-set", made)
    afresh = sigrun_run(capsys, *words, "--label", "red apple", "--label", "owl", "--template", "a {}")
    assert with_set == afresh
    assert json.loads(with_set[1])["scores"][0]["label"] == "red apple"


def test_examples_calibrate_a_set(
    emoji_q4: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("red-apple", "owl"):
        (tmp_path / "examples" / name).mkdir(parents=True)
        drawing = Path(APPLE).with_name(f"{name}.png").read_bytes()
        (tmp_path / "examples" / name / "one.png").write_bytes(drawing)
    path = tmp_path / "mine"
    words = ["labels", emoji_q4, "--label-set", made, "--examples", tmp_path / "examples", "-o", path]
    code, out, err = sigrun_run(capsys, *words)
    assert code == 0
    assert "calibrated logit scale" in " ".join(out.split())
    assert "calibrated on 2 pictures" in err and "may be chance" in err
    with Siglip.load(emoji_q4) as model:
        pictures = [tmp_path / "examples" / name / "one.png" for name in ("owl", "red-apple")]
        expected = model.calibrate(LabelSet.load(made), pictures, ["owl", "red apple"]).scoring
    found = LabelSet.load(path).scoring
    assert found is not None
    assert found.logit_bias == pytest.approx(expected.logit_bias, abs=0.05)
    assert found != LabelSet.load(made).constants(None)

    (tmp_path / "examples" / "owl" / "bad.png").write_bytes(b"no picture")
    code, out, err = sigrun_run(capsys, *words, "--force")
    assert code == 1  # the set is written, and the picture is told
    assert "bad.png" in err and "calibrated on 2 pictures" in err
    (tmp_path / "examples" / "rocket").mkdir()
    code, out, err = sigrun_run(capsys, *words, "--force")
    assert (code, out) == (1, "")
    assert "there is no label 'rocket' in the set" in err


def test_a_cut_label_is_told_when_made_and_when_shown(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "set"
    labels = [word for n in range(12) for word in ("--label", f"owl {n}")]
    code, out, err = sigrun_run(capsys, "labels", emoji_q4, *labels, "--label", "an owl " * 70, "-o", path)
    assert code == 0
    assert "label 13 is longer than the model reads" in err
    code, out, err = sigrun_run(capsys, "labels", path)
    assert "its end is ignored" in out.splitlines()[-2]
    assert out.splitlines()[-1].strip() == "and 2 more"


def test_names_cannot_control_the_terminal(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "set"
    code, out, _ = sigrun_run(capsys, "labels", emoji_q4, "--label", "owl\x1b[31m\nred", "-o", path)
    assert code == 0
    assert "\x1b" not in out
    assert "owl\\x1b[31m red" in out


def test_nothing_is_overwritten_without_force(
    emoji_q4: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "set"
    path.write_bytes(made.read_bytes())
    code, out, err = sigrun_run(capsys, "labels", emoji_q4, "--label", "owl", "-o", path)
    assert (code, out) == (1, "")
    assert "exists already" in err and "--force" in err
    assert path.read_bytes() == made.read_bytes()
    assert sigrun_run(capsys, "labels", emoji_q4, "--label", "owl", "-o", path, "--force")[0] == 0
    assert LabelSet.load(path).labels == ("owl",)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["MODEL", "--label", "owl"], 2, "no file to write"),
        (["SET", "--template", "a {}"], 2, "no file to write"),
        (["SET", "--force"], 2, "no file to write"),
        (["SET", "--examples", "x"], 2, "no file to write"),
        (["MODEL", "-o", "OUT", "--label", "a", "--examples", "none"], 1, "cannot be searched"),
        (["MODEL", "-o", "OUT"], 2, "there are no labels"),
        (["MODEL", "-o", "OUT", "--label-set", "SET"], 2, "made already"),
        (
            ["MODEL", "-o", "OUT", "--label", "a", "--template", "{}", "--ensemble", "imagenet80"],
            2,
            "only one",
        ),
        (["MODEL", "-o", "OUT", "--label", "a", "--template", "b"], 1, "no {} where the label"),
        (["MODEL", "-o", "OUT", "--label", "!!"], 1, "nothing but punctuation"),
        (["MODEL", "-o", "OUT/deeper/set", "--label", "a"], 1, "no folder"),
        (["SET", "-o", "OUT", "--label", "a"], 1, "not a GGUF file"),
        (["MODEL", "-o", "MODEL", "--label", "a", "--force"], 2, "is the model"),
        (["MODEL"], 1, "is a GGUF file, not a label set"),
        (["none"], 1, "cannot read"),
    ],
)
def test_what_cannot_be_meant(
    words: list[str],
    code: int,
    message: str,
    emoji_q4: Path,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"MODEL": str(emoji_q4), "SET": str(made)}
    given = [places.get(word, word.replace("OUT", str(tmp_path / "out"))) for word in words]
    found, out, err = sigrun_run(capsys, "labels", *given)
    assert (found, out) == (code, "")
    assert err.startswith("sigrun: error: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []
