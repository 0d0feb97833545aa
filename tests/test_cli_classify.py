"""``sigrun classify``: what is shown of scores, and where pictures and labels come from."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import sigrun.cli
from sigrun import Siglip
from sigrun.scores import softmax
from tests import checkpoints

DEMO = checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
APPLE = str(DEMO / "red-apple.png")
LABELS = ["fire engine", "red apple", "owl"]
GIVEN = [word for label in LABELS for word in ("--label", label)]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun.cli.main(["classify", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def records(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_the_table_is_aligned_and_needs_no_colour(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = "\x1b[31mowl\x1b[0m " + "o" * 100
    code, out, _ = run(capsys, emoji_q4, APPLE, *GIVEN, "--label", label)
    name, *rows = out.splitlines()
    with Siglip.load(emoji_q4) as model:
        best = model.classify(APPLE, [*LABELS, label])
    assert (code, name, len(rows)) == (0, APPLE, 4)
    assert len({row.index("logit") for row in rows}) == 1
    assert rows[0].split("  ")[-1] == best[0].label == "red apple"
    assert f"{100 * best[0].probability:.1f} %" in rows[0]
    assert rows[0].count("#") == round(20 * best[0].probability)
    assert f"logit {best[0].logit:+6.2f}" in rows[0]
    assert "".join(out.splitlines()).isprintable()
    assert max(map(len, rows)) < 110


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "logit", "cosine"])
def test_threshold_and_top_go_by_the_activation(
    emoji_q4: Path, activation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Siglip.load(emoji_q4) as model:
        scores = model.classify(APPLE, LABELS)
    values = {
        "sigmoid": [s.probability for s in scores],
        "softmax": softmax([s.logit for s in scores]).tolist(),
        "logit": [s.logit for s in scores],
        "cosine": [s.cosine for s in scores],
    }[activation]
    common = (emoji_q4, APPLE, *GIVEN, "--activation", activation)
    middle = (values[0] + values[1]) / 2
    beyond = values[0] + 1 if activation == "logit" else 1.0
    for more, count in (
        (["--top", "2"], 2),
        ([f"--threshold={middle}"], 1),
        ([f"--threshold={beyond}"], 0),
    ):
        code, out, _ = run(capsys, *common, "--json", *more)
        (record,) = records(out)
        shown = record["scores"]
        assert code == 0
        assert isinstance(shown, list)
        assert [s["label"] for s in shown] == [s.label for s in scores][:count]
        key = {"sigmoid": "probability"}.get(activation, activation)
        assert [s[key] for s in shown] == pytest.approx(values[:count], rel=1e-12)
        assert all(("softmax" in s) == (activation == "softmax") for s in shown)
    _, out, _ = run(capsys, *common, "--top", "1")
    shown_value = {"logit": f"{values[0]:+.2f}", "cosine": f"{values[0]:+.4f}"}
    assert shown_value.get(activation, f"{100 * values[0]:.1f} %") in out
    _, out, _ = run(capsys, *common, f"--threshold={beyond}")
    assert "no label reaches" in out


def test_csv_has_a_line_a_score_and_the_errors(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / 'odd, "name".png'
    odd.write_bytes(Path(APPLE).read_bytes())
    code, out, err = run(capsys, emoji_q4, odd, tmp_path / "none.png", *GIVEN, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert [row["picture"] for row in rows] == [*[str(odd)] * 3, str(tmp_path / "none.png")]
    assert rows[0]["label"] == "red apple"
    assert float(rows[0]["probability"]) > float(rows[1]["probability"])
    assert (rows[3]["label"], "does not exist" in rows[3]["error"]) == ("", True)
    assert err.count("error:") == 1


def test_pictures_come_from_folders_patterns_and_lists_in_their_order(
    emoji_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/2.png", "a/1.png", "b/3.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(Path(APPLE).read_bytes())
    Path("list").write_text("b/3.png\nnone.png\n", "utf-8")
    code, out, err = run(
        capsys, emoji_q4, "*.bmp", "a", "**/3.png", "--from", "list", "--label", "owl", "--json"
    )
    shown = records(out)
    assert [str(r["picture"]).replace(os.sep, "/") for r in shown] == [
        "*.bmp",
        "a/1.png",
        "a/2.png",
        "b/3.png",
        "b/3.png",
        "none.png",
    ]
    assert ["error" in r for r in shown] == [True, False, False, False, False, True]
    assert (code, err.count("error:")) == (1, 2)


def test_standard_input_gives_names_that_need_not_be_text(emoji_q4: Path, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("names are text elsewhere")
    odd = os.fsencode(tmp_path) + b"/\xff\n\x1b[31m.png"
    Path(os.fsdecode(odd)).write_bytes(Path(APPLE).read_bytes())
    names = b"\0".join([odd, os.fsencode(tmp_path) + b"/\xfe.png", os.fsencode(APPLE)])
    for form in ("--json", "--csv", "--quiet"):
        command = [
            sys.executable,
            "-m",
            "sigrun",
            "classify",
            emoji_q4,
            "--from",
            "-",
            "-0",
            "--label",
            "owl",
            form,
        ]
        done = subprocess.run(command, input=names, capture_output=True, check=False)
        assert done.returncode == 1
        assert b"\\udcfe.png does not exist" in done.stderr
        assert b"Traceback" not in done.stderr
        if form == "--json":
            shown = [json.loads(line)["picture"] for line in done.stdout.decode("utf-8").splitlines()]
            assert [os.fsencode(name) for name in shown] == names.split(b"\0")
        if form == "--quiet":
            assert b"\x1b" not in done.stdout
            assert b"\\udcff\\n\\x1b[31m.png" in done.stdout


def test_a_label_set_needs_no_text_tower_and_templates_are_averaged(
    emoji_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    templates = ["a {}.", "one {}"]
    with Siglip.load(emoji_q4) as model:
        labels = model.label_set(LABELS, templates=templates)
        expected = [score.to_json() for score in model.classify(APPLE, labels)]
    labels.save(tmp_path / "l.labels.safetensors")
    given = [word for template in templates for word in ("--template", template)]
    assert records(run(capsys, emoji_q4, APPLE, *GIVEN, *given, "--json")[1])[0]["scores"] == expected
    monkeypatch.setattr(Siglip, "label_set", None)
    saved = ("--label-set", tmp_path / "l.labels.safetensors")
    assert records(run(capsys, emoji_q4, APPLE, *saved, "--json")[1])[0]["scores"] == expected


def test_the_text_tower_is_given_back_before_the_pictures(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[tuple[str, ...]] = []
    whole = Siglip.iter_images

    def watched(self: Siglip, *arguments: object, **options: object) -> object:
        loaded.append(self.info.loaded)
        return whole(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Siglip, "iter_images", watched)
    assert run(capsys, emoji_q4, APPLE, *GIVEN)[0] == 0
    assert loaded == [()]


def test_an_animation_is_said_unless_quiet(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.new("RGB", (20, 20), (40 * n, 0, 0)) for n in range(3)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    code, _, err = run(capsys, emoji_q4, path, "--label", "owl")
    assert (code, err) == (0, f"sigrun: note: {path}: one of 3 frames: the first was taken\n")
    code, out, err = run(capsys, emoji_q4, path, APPLE, "--label", "owl", "-q", "--json")
    assert (code, err) == (0, "")
    assert [record.get("note") for record in records(out)] == ["one of 3 frames: the first was taken", None]


def test_a_label_given_twice_counts_once(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("owl\nbear\nowl\n", "utf-8")
    words = (
        emoji_q4,
        APPLE,
        "--label",
        "bear",
        "--labels",
        tmp_path / "labels.txt",
        "--activation",
        "softmax",
    )
    code, out, err = run(capsys, *words, "--json")
    (record,) = records(out)
    shares = {score["label"]: score["softmax"] for score in record["scores"]}  # type: ignore[attr-defined]
    assert code == 0
    assert len(record["scores"]) == 2  # type: ignore[arg-type]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    assert err == "sigrun: note: labels given twice count once, 'bear' among them: 2 are left\n"
    assert run(capsys, *words, "--json", "-q")[1:] == (out, "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--label", "owl"], "no pictures"),
        ([APPLE], "no labels"),
        ([APPLE, "--label", "owl", "--label-set", "x"], "--label-set holds"),
        ([APPLE, "--label", "owl", "--template", "a {}", "--ensemble", "imagenet80"], "only one"),
        ([APPLE, "--label", "owl", "--threshold", "50"], "hint: 50 % is 0.5"),
        ([APPLE, "--label", "owl", "--threshold", "nan"], "from 0 to 1"),
        ([APPLE, "--label", "owl", "--threshold=-0.1", "--activation", "softmax"], "from 0 to 1"),
        ([APPLE, "--label", "owl", "--threshold", "2", "--activation", "cosine"], "from -1 to 1"),
        ([APPLE, "--label", "owl", "--threshold", "inf", "--activation", "logit"], "a number"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "no.gguf", *arguments)
    assert (code, out) == (2, "")
    assert says in err


def test_every_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("classify", "embed", "labels", "evaluate", "info", "self-test", "cache"):
        with pytest.raises(SystemExit) as caught:
            sigrun.cli.main([command, "--help"])
        assert caught.value.code == 0
        assert "exit codes: 0 done; 1 " in capsys.readouterr().out
