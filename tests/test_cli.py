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
    assert set(first["scores"][0]) == {"label", "probability", "logit", "cosine"}
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
    code, out, _ = sigrun_run(capsys, "embed", emoji_q4, APPLE, DEMO / "none.png", "-o", tmp_path / "v.npz")
    archive = np.load(tmp_path / "v.npz")
    vectors = archive["vectors"]
    assert (code, out, vectors.shape, vectors.dtype) == (1, "", (2, 160), np.float32)
    assert np.isnan(vectors[1]).all()
    code, out, _ = sigrun_run(capsys, "embed", emoji_q4, "--text", "owl")
    record = json.loads(out)
    assert (code, len(record["embedding"]), len(record["space"])) == (0, 160, 32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.npz"]
    assert archive["items"].tolist() == [APPLE, str(DEMO / "none.png")]
    assert str(archive["space"]) == record["space"]
    code, _, err = sigrun_run(capsys, "embed", emoji_q4, APPLE, "-o", tmp_path / "v.npz")
    assert (code, "exists already" in err) == (1, True)
    assert sigrun_run(capsys, "embed", emoji_q4, "-o", tmp_path / "v.npz", "--force", APPLE)[0] == 0


def test_info_names_towers_and_true_bits(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = sigrun_run(capsys, "info", emoji_q4)
    assert code == 0
    for word in ("q4_k_m", "image tower", "text  tower", "bits per weight", "sigmoid"):
        assert word in out
    code, out, _ = sigrun_run(capsys, "info", emoji_q4, "--json")
    assert json.loads(out)["variant"] == "q4_k_m"


WRONG_USAGE = {"no labels", "pictures and texts", "nothing to embed"}


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
        "output nowhere": (["embed", artifact, APPLE, "-o", tmp_path / "no" / "v.npz"], "cannot write"),
    }


def test_bad_input_gives_one_message_and_no_traceback(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case, (arguments, says) in bad_inputs(tmp_path, emoji_q4).items():
        code, out, err = sigrun_run(capsys, *arguments)
        assert code == (2 if case in WRONG_USAGE else 1), case
        assert says in err, (case, err)
        assert err.startswith("sigrun: error: "), (case, err)
        assert err.count("error:") == 1, (case, err)
        assert out == "", (case, out)


def test_no_command_shows_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for run in (sigrun_run, export_run):
        code, out, err = run(capsys)
        assert (code, out) == (2, "")
        assert "self-test" in err or "convert" in err
        assert "exit codes:" in err


@pytest.mark.parametrize("arguments", [["nonsense"], ["classify"], ["classify", "x", "y", "--top", "0"]])
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
    paths = [Path(line) for line in out.splitlines()]
    assert code == 0
    assert all(path.is_file() and path.is_relative_to(tmp_path) for path in paths)
    assert [path.name.removeprefix("emoji-siglip-patch10-60-q4_k_m") for path in paths] == [
        ".gguf",
        ".report.json",
        ".report.md",
        ".report.svg",
    ]
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


def test_pictures_may_come_after_options(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("classify", emoji_q4, APPLE, "--label", "owl", DEMO / "owl.png", "--json")
    code, out, _ = sigrun_run(capsys, *arguments)
    assert code == 0
    assert [json.loads(line)["picture"] for line in out.splitlines()] == [APPLE, str(DEMO / "owl.png")]
    with pytest.raises(SystemExit) as caught:
        sigrun.cli.main(["classify", str(emoji_q4), APPLE, "--label", "owl", "--jsn"])
    assert caught.value.code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("module", ["sigrun", "sigrun_hwcheck"])
def test_a_full_disk_behind_stdout_is_said(emoji_q4: Path, module: str) -> None:
    arguments = ["info", str(emoji_q4)] if module == "sigrun" else [str(emoji_q4)]
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == (1 if module == "sigrun" else 2)
    assert "cannot write the output" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["sigrun", "sigrun_exporters", "sigrun_hwcheck"])
def test_closed_streams_are_no_error(emoji_q4: Path, module: str) -> None:
    arguments = {
        "sigrun": ["info", str(emoji_q4)],
        "sigrun_exporters": ["recipes"],
        "sigrun_hwcheck": [str(emoji_q4)],
    }
    words = [module, *arguments[module]]
    code = f"import runpy, sys; sys.stdout = sys.stderr = None; sys.argv = {words!r}; runpy.run_module({module!r})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8:strict"])
def test_any_encoding_of_stdout_will_do(emoji_q4: Path, encoding: str) -> None:
    import os

    command = [sys.executable, "-m", "sigrun", "classify", str(emoji_q4), APPLE, "--label", "猫 🦉", "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode("utf-8"))["scores"][0]["label"] == "猫 🦉"


def test_labels_from_notepad_have_no_mark(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "labels.txt").write_text("owl\n", encoding)
        words = ("classify", emoji_q4, APPLE, "--labels", tmp_path / "labels.txt", "--json")
        _, out, _ = sigrun_run(capsys, *words)
        assert [score["label"] for score in json.loads(out)["scores"]] == ["owl"]


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("sigrun", "onnxruntime", "cpu"),
        ("sigrun_exporters", "gguf", "export"),
        ("sigrun_hwcheck", "pynvml", "hwcheck"),
    ],
)
def test_a_missing_extra_is_named(
    emoji_q4: Path, tmp_path: Path, module: str, missing: str, extra: str
) -> None:
    words = {
        "sigrun": ["sigrun", "classify", str(emoji_q4), APPLE, "--label", "owl"],
        "sigrun_exporters": ["sigrun-export", "convert", str(checkpoints.EMOJI), "-o", str(tmp_path)],
        "sigrun_hwcheck": ["hwcheck"],
    }[module]
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = {words!r}\n"
        f"from {module}.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if module == "sigrun_hwcheck" else 1)  # hwcheck says what it did not ask
    assert f"sigrun[{extra}]" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to catch")
def test_a_request_to_end_cleans_up_like_an_interrupt() -> None:
    """Whatever is half done is removed on the way out, as after Ctrl-C."""
    code = (
        "import os, signal, sys, time\n"
        "from sigrun.cli import shell\n"
        "class Ends:\n"
        "    @staticmethod\n"
        "    def add_to(commands):\n"
        "        commands.add_parser('end').set_defaults(run=Ends.run)\n"
        "    @staticmethod\n"
        "    def run(arguments):\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "            time.sleep(30)\n"
        "        finally:\n"
        "            print('cleaned up', flush=True)\n"
        "sys.exit(shell.run_command(shell.command_line('p', 'd', (Ends,)), ['end']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "cleaned up\n")
    assert "interrupted" in done.stderr
