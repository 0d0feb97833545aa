"""``sigrun embed``: files of vectors, long runs, and what becomes of bad items."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sigrun.cli
from sigrun import Siglip
from sigrun.cli import saving
from tests import checkpoints

DEMO = checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
APPLE = str(DEMO / "red-apple.png")
PICTURES = sorted(DEMO.glob("*.png"))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun.cli.main(["embed", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture(scope="module")
def expected(emoji_q4: Path) -> np.ndarray:
    """The demo pictures' vectors, from Python."""
    with Siglip.load(emoji_q4) as model:
        return model.embed_images(PICTURES).vectors


def test_a_folder_goes_into_an_archive(
    emoji_q4: Path, expected: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "v.npz"
    assert run(capsys, emoji_q4, DEMO, tmp_path / "none.png", "-o", out) == (
        1,
        "",
        f"sigrun: error: {tmp_path / 'none.png'} does not exist\n",
    )
    archive = np.load(out)
    assert set(archive) == {"vectors", "items", "errors", "space", "model", "variant"}
    assert archive["items"].tolist() == [*map(str, PICTURES), str(tmp_path / "none.png")]
    assert archive["vectors"].dtype == np.float32
    assert (archive["vectors"][:-1] == expected).all()
    assert np.isnan(archive["vectors"][-1]).all()
    assert archive["errors"].tolist() == [*[""] * len(PICTURES), f"{tmp_path / 'none.png'} does not exist"]
    assert (str(archive["variant"]), len(str(archive["space"]))) == ("q4_k_m", 32)
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]


def test_the_same_pictures_give_the_same_bytes(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.npz", "b.npz"):
        assert run(capsys, emoji_q4, APPLE, "-o", tmp_path / name)[0] == 0
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_npy_can_be_mapped_and_the_rest_lies_beside_it(
    emoji_q4: Path, expected: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "v.npy"
    code, _, err = run(capsys, emoji_q4, *PICTURES, "none.png", "--features", "-o", out)
    assert code == 1
    assert "features of 15 pictures × 36 tokens × 160 take 0.4 MB" in err
    vectors = np.load(out, mmap_mode="r")
    features = np.load(tmp_path / "v.features.npy", mmap_mode="r")
    about = json.loads((tmp_path / "v.npy.json").read_text("utf-8"))
    np.testing.assert_allclose(vectors[:-1], expected, atol=1e-6)
    with Siglip.load(emoji_q4) as model:
        theirs = model.embed_images(PICTURES, features=True).features
    assert theirs is not None
    np.testing.assert_allclose(features[:-1], theirs, atol=1e-4)
    assert np.isnan(vectors[-1]).all()
    assert np.isnan(features[-1]).all()
    assert about["items"] == [*map(str, PICTURES), "none.png"]
    assert list(about["errors"]) == [str(len(PICTURES))]
    code, _, err = run(capsys, emoji_q4, APPLE, "-o", out)
    assert (code, "exists already" in err) == (1, True)
    out.unlink()
    code, _, err = run(capsys, emoji_q4, APPLE, "-o", out)
    assert (code, "v.npy.json exists already" in err) == (1, True)


def test_parquet(
    emoji_q4: Path, expected: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    out = tmp_path / "v.parquet"
    assert run(capsys, emoji_q4, DEMO, "none.png", "-o", out)[0] == 1
    table = pyarrow.parquet.read_table(out)
    assert table.column_names == ["item", "embedding", "error"]
    assert str(table.schema.field("embedding").type) == "list<element: float>"
    assert table["item"].to_pylist() == [*map(str, PICTURES), "none.png"]
    *rows, failed = table["embedding"].to_pylist()
    assert failed is None
    assert (np.array(rows, np.float32) == expected).all()
    assert table["error"].to_pylist() == [*[None] * len(PICTURES), "none.png does not exist"]
    about = table.schema.metadata
    assert {b"sigrun.space", b"sigrun.model"} < set(about)
    assert about[b"sigrun.variant"] == b"q4_k_m"


def test_without_pyarrow_the_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run(
        capsys, "no.gguf", APPLE, "-o", tmp_path / "v.parquet"
    )  # said before the model is opened
    assert code == 1
    assert "hint: pip install pyarrow" in err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["x.png", "-o", "v.csv"], 1, ".npz, .npy or .parquet"),
        (["x.png", "-o", "v.parquet", "--features"], 1, "features go into"),
        (["x.png", "--features"], 2, "-o"),
        (["--text", "owl", "-o", "v.npz", "--features"], 2, "pictures"),
        (["x.png", "--restart"], 2, "-o"),
        (["--from", "list", "--text", "owl"], 2, "either"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got, out, err = run(capsys, "no.gguf", *arguments)
    assert (got, out) == (code, "")
    assert says in err


def test_texts_from_a_file_and_one_that_says_nothing(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("owl\n?!\nred apple\n", "utf-8")
    code, out, err = run(capsys, emoji_q4, "--texts", tmp_path / "texts.txt")
    owl, empty, apple = map(json.loads, out.splitlines())
    assert code == 1
    assert "punctuation" in empty["error"]
    assert err.count("error:") == 1
    with Siglip.load(emoji_q4) as model:
        vectors = [model.embed_texts([text]).vectors[0] for text in ("owl", "red apple")]
    assert (np.array([owl["embedding"], apple["embedding"]], np.float32) == vectors).all()
    assert run(capsys, emoji_q4, "--texts", tmp_path / "texts.txt", "-o", tmp_path / "t.npz")[0] == 1
    archive = np.load(tmp_path / "t.npz")
    assert (archive["vectors"][[0, 2]] == vectors).all()
    assert archive["items"].tolist() == ["owl", "?!", "red apple"]


def test_an_empty_list_is_said(emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list").touch()
    for rest in ([], ["-o", tmp_path / "v.npz"]):
        code, out, err = run(capsys, emoji_q4, "--from", tmp_path / "list", *rest)
        assert (code, out) == (1, "")
        assert "the list is empty" in err


def test_features_that_the_disk_cannot_hold_are_refused(
    emoji_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Usage:
        free = 20_000_000

    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: Usage)
    (tmp_path / "list").write_text("x.png\n" * 1000, "utf-8")
    code, _, err = run(capsys, emoji_q4, "--from", tmp_path / "list", "--features", "-o", tmp_path / "v.npz")
    assert code == 1
    assert "needs 64.1 MB of disk while it works, and 20.0 MB are free" in err
    assert [path.name for path in tmp_path.iterdir()] == ["list"]


WRAPPED = """
import os, sys
from sigrun.cli import main, saving
from sigrun.cli.partial import Partial
saving.PART = 4
append, parts = Partial.append, 0
def ended(self, part):
    global parts
    append(self, part)
    parts += 1
    if parts == 2:
        {end}
Partial.append = ended
sys.exit(main(sys.argv[1:]))
"""


def started(end: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A run of parts of four that ends after the second."""
    command = [sys.executable, "-c", WRAPPED.format(end=end), "embed", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_where_it_was(
    emoji_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed twice, then finished: the file is that of one run, bit for bit."""
    pictures = [*PICTURES[:6], tmp_path / "none.png", *PICTURES[6:]]
    kill = "os.kill(os.getpid(), 9)"
    killed = started(kill, emoji_q4, *pictures, "-o", tmp_path / "v.npz")
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.npz.partial"]
    left = (tmp_path / "v.npz.partial" / "vectors").read_bytes()
    assert len(left) == 8 * 160 * 4
    with (tmp_path / "v.npz.partial" / "vectors").open("ab") as file:
        file.write(b"begun and never finished")

    monkeypatch.setattr(saving, "PART", 4)
    code, _, err = run(capsys, emoji_q4, *reversed(pictures), "-o", tmp_path / "v.npz")
    assert (code, "the list of items changed" in err) == (1, True)
    seen: list[str] = []
    whole = Siglip.iter_images

    def watched(self: Siglip, named: object, **options: object) -> object:
        listed = list(named)  # type: ignore[call-overload]
        seen.extend(listed)
        return whole(self, listed, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Siglip, "iter_images", watched)
    code, _, err = run(capsys, emoji_q4, *pictures, "-o", tmp_path / "v.npz")
    assert code == 1  # for the picture that is missing, though the earlier process said so
    assert "going on after 8 of 15 rows" in err
    assert seen == [str(path) for path in pictures[8:]]
    assert run(capsys, emoji_q4, *pictures, "-o", tmp_path / "whole.npz", "-q")[0] == 1
    assert (tmp_path / "v.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v.npz", "whole.npz"]


@pytest.mark.parametrize("end", ["raise KeyboardInterrupt", "os.kill(os.getpid(), 15)"])
def test_an_interrupt_says_what_is_kept(emoji_q4: Path, tmp_path: Path, end: str) -> None:
    if os.name == "nt" and "kill" in end:
        pytest.skip("there is no SIGTERM to catch")
    done = started(end, emoji_q4, DEMO, "-o", tmp_path / "v.npz")
    assert (done.returncode, done.stdout) == (130, "")
    assert f"8 of 14 rows are kept in {tmp_path / 'v.npz.partial'}" in done.stderr
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
