"""The commands as a user meets them: output, exit codes, and one clear message for every bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sigrun.cli
import sigrun_exporters.cli
from tests import checkpoints

DEMO = checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
APPLE = str(DEMO / "red-apple.png")


def sigrun_run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun.cli.main([str(a) for a in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_classify_prints_the_best_label_first(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = sigrun_run(
        capsys, "classify", emoji_q4, APPLE, "--label", "fire engine", "--label", "red apple"
    )
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == APPLE
    assert "red apple" in lines[1]
    assert "fire engine" in lines[2]


def test_classify_json_is_one_object_a_picture(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "classify",
        emoji_q4,
        APPLE,
        DEMO / "none.png",
        APPLE,
        "--label",
        "owl",
        "--label",
        "red apple",
        "--json",
    )
    code, out, err = sigrun_run(capsys, *arguments)
    first, bad, last = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert first == last
    assert [s["label"] for s in first["scores"]] == ["red apple", "owl"]
    assert set(first["scores"][0]) == {"label", "probability", "logit"}
    assert "none.png" in bad["error"]
    assert err.startswith("sigrun: error: ")
    assert err.count("\n") == 1


def test_labels_from_a_file_and_top(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("owl\n\nred apple\nrocket\n", "utf-8")
    arguments = ("classify", emoji_q4, APPLE, "--labels", tmp_path / "labels.txt", "--top", "2", "--json")
    code, out, _ = sigrun_run(capsys, *arguments)
    assert code == 0
    assert len(json.loads(out)["scores"]) == 2


def test_a_label_that_is_cut_is_said(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = sigrun_run(capsys, "classify", emoji_q4, APPLE, "--label", "owl " * 100)
    assert code == 0
    assert "label 1 is longer than the model reads" in err


def test_embed_writes_vectors(emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = sigrun_run(capsys, "embed", emoji_q4, APPLE, DEMO / "none.png", "-o", tmp_path / "v.npy")
    vectors = np.load(tmp_path / "v.npy")
    assert (code, out, vectors.shape, vectors.dtype) == (1, "", (2, 160), np.float32)
    assert np.isnan(vectors[1]).all()
    code, out, _ = sigrun_run(capsys, "embed", emoji_q4, "--text", "owl")
    record = json.loads(out)
    assert (code, len(record["embedding"]), len(record["space"])) == (0, 160, 32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.npy"]


def test_info_names_towers_and_true_bits(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = sigrun_run(capsys, "info", emoji_q4)
    assert code == 0
    for word in ("q4_k_m", "image tower", "text  tower", "bits per weight", "sigmoid"):
        assert word in out
    code, out, _ = sigrun_run(capsys, "info", emoji_q4, "--json")
    assert json.loads(out)["variant"] == "q4_k_m"


def bad_inputs(tmp_path: Path, artifact: Path) -> dict[str, tuple[list[object], str]]:
    """Arguments that cannot work, and words that the message must hold."""
    whole = artifact.read_bytes()
    files = {
        "empty.gguf": b"",
        "cut.gguf": whole[: len(whole) // 2],
        "photo.gguf": Path(APPLE).read_bytes(),
        "empty.png": b"",
        "words.png": b"no picture at all",
        "cut.png": Path(APPLE).read_bytes()[:300],
        "latin1.txt": "gr\xfc\xdfe".encode("latin-1"),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    bomb = Image.new("1", (30_000, 30_000))
    bomb.save(tmp_path / "bomb.png")
    label = ["--label", "owl"]
    return {
        "no such artifact": (["classify", tmp_path / "none.gguf", APPLE, *label], "none.gguf"),
        "a folder": (["classify", tmp_path, APPLE, *label], "cannot open"),
        "empty artifact": (["classify", tmp_path / "empty.gguf", APPLE, *label], "too short"),
        "truncated artifact": (["info", tmp_path / "cut.gguf"], "beyond the file"),
        "foreign artifact": (["classify", tmp_path / "photo.gguf", APPLE, *label], "not a GGUF file"),
        "no labels": (["classify", artifact, APPLE], "no labels"),
        "empty label": (["classify", artifact, APPLE, "--label", ""], "label 1 is empty"),
        "label of punctuation": (["classify", artifact, APPLE, "--label", "?!"], "?!"),
        "no label file": (["classify", artifact, APPLE, "--labels", tmp_path / "none.txt"], "none.txt"),
        "label file not UTF-8": (
            ["classify", artifact, APPLE, "--labels", tmp_path / "latin1.txt"],
            "not UTF-8",
        ),
        "template without place": (["classify", artifact, APPLE, *label, "--template", "a photo"], "{}"),
        "no such picture": (["classify", artifact, tmp_path / "none.png", *label], "none.png"),
        "empty picture": (["classify", artifact, tmp_path / "empty.png", *label], "empty.png"),
        "no picture": (["classify", artifact, tmp_path / "words.png", *label], "words.png"),
        "truncated picture": (["classify", artifact, tmp_path / "cut.png", *label], "cut.png"),
        "bomb": (["classify", artifact, tmp_path / "bomb.png", *label], "bomb.png"),
        "pictures and texts": (["embed", artifact, APPLE, "--text", "owl"], "either"),
        "nothing to embed": (["embed", artifact], "either"),
        "output nowhere": (["embed", artifact, APPLE, "-o", tmp_path / "no" / "v.npy"], "cannot write"),
    }


def test_bad_input_gives_one_message_and_no_traceback(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case, (arguments, says) in bad_inputs(tmp_path, emoji_q4).items():
        code, out, err = sigrun_run(capsys, *arguments)
        assert code == 1, case
        assert says in err, (case, err)
        assert err.startswith("sigrun: error: "), (case, err)
        assert err.count("error:") == 1, (case, err)
        assert out == "", (case, out)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["classify"], ["classify", "x", "y", "--top", "0"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sigrun.cli.main(arguments)
    assert caught.value.code == 2


def export_run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun_exporters.cli.main([str(a) for a in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_convert_prints_the_path_and_an_honest_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = export_run(capsys, "convert", checkpoints.EMOJI, "--variant", "q4_k_m", "-o", tmp_path)
    path = Path(out.strip())
    assert code == 0
    assert path.is_file()
    assert path.is_relative_to(tmp_path)
    assert "bits per weight" in err
    code, out, err = export_run(capsys, "convert", checkpoints.EMOJI, "-o", tmp_path)
    assert (code, out) == (1, "")
    assert "exists already" in err
    assert "--force" in err
    assert export_run(capsys, "convert", checkpoints.EMOJI, "-o", tmp_path, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere/at/all"], "no folder"),
        ([str(checkpoints.ROOT / "docs")], "config.json"),
        ([str(checkpoints.EMOJI), "--variant", "q2_x"], "q4_k_m"),
        ([str(checkpoints.EMOJI), "--revision", "main"], "local folder"),
    ],
)
def test_convert_refuses_plainly(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = export_run(capsys, "convert", *arguments, "-o", tmp_path / "out")
    assert (code, out) == (1, "")
    assert says in err
    assert err.startswith("sigrun-export: error: ")
    assert not (tmp_path / "out").exists()


def test_help_needs_not_onnx() -> None:
    code = (
        "import sys\nfrom sigrun_exporters.cli import parser\nparser().format_help()\n"
        "assert not {'onnx', 'gguf', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_closed_pipe_ends_quietly(emoji_q4: Path) -> None:
    command = [sys.executable, "-m", "sigrun", "info", str(emoji_q4), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1
