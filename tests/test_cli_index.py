"""``sigrun index``: from a folder of pictures to an index that says what the plain runtime says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sigrun.cli
from sigrun import Siglip
from sigrun.cli import index as index_command
from sigrun.pixels import DEFAULT_MAX_PIXELS
from sigrun.search import SearchIndex
from sigrun_exporters.export import Exported
from tests import checkpoints

DEMO = checkpoints.ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun.cli.main(["index", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The held-out pictures in two folders, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, path in enumerate(sorted(DEMO.glob("*.png"))):
        shutil.copy(path, folder / "more" if number % 2 else folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return folder


def stored(index: Path) -> dict[str, np.ndarray]:
    with SearchIndex.open(index) as opened:
        found = {path: opened.vector(path) for path in opened.pictures()}
    return {path: vector for path, vector in found.items() if vector is not None}


def test_an_index_holds_what_the_runtime_computes(
    emoji_q4: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, emoji_q4, photos)
    index = tmp_path / "photos.sigrun"
    assert code == 1  # one picture failed
    assert out == f"{index}: 14 pictures (14 embedded); 1 cannot be read (--errors lists them)\n"
    assert err.count("error:") == 1 and "broken.jpg" in err
    found = stored(index)
    assert len(found) == 14
    with Siglip.load(emoji_q4) as model:
        expected = model.embed_images(list(found)).vectors
        about = SearchIndex.open(index).about
        assert about.space == model.space
        assert about.weights == model.info.manifest.weights_sha256
        assert about.compute == model.info.running["image"].compute
    assert (np.stack(list(found.values())) == expected.astype(np.float16)).all()


def test_an_update_says_what_it_did(
    emoji_q4: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(capsys, emoji_q4, photos)
    index = tmp_path / "photos.sigrun"
    with monkeypatch.context() as patch:
        patch.setattr(index_command, "_model", lambda *_: pytest.fail("nothing new needs no model"))
        assert run(capsys, index)[:2] == (
            0,
            f"{index}: 14 pictures (nothing new); 1 cannot be read (--errors lists them)\n",
        )
    shutil.move(photos / "more", photos / "moved")
    (photos / "owl.png").unlink()
    shutil.copy(DEMO / "pizza.png", photos / "another.png")
    (photos / "broken.jpg").unlink()
    code, out, _ = run(capsys, index, "--json", "--compact")
    assert (code, json.loads(out)) == (
        0,
        {
            "index": str(index),
            "pictures": 14,
            "unreadable": 0,
            "embedded": 1,
            "failed": 0,
            "unchanged": 6,
            "moved": 7,
            "removed": 2,
        },
    )
    assert run(capsys, index, "--check")[:2] == (0, f"{index}: in order\n")
    assert run(capsys, index, "--errors")[0:2] == (0, "")


def test_errors_are_kept_and_listed(
    emoji_q4: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, emoji_q4, photos, "-q")
    index = tmp_path / "photos.sigrun"
    code, out, _ = run(capsys, index, "--errors")
    assert code == 0
    assert out.startswith(f"{photos / 'broken.jpg'} ")
    (record,) = map(json.loads, run(capsys, index, "--errors", "--json")[1].splitlines())
    assert record["picture"] == str(photos / "broken.jpg")
    shutil.copy(DEMO / "key.png", photos / "broken.jpg")
    assert run(capsys, index)[0] == 0
    assert run(capsys, index, "--errors")[2] == "sigrun: note: every picture could be read\n"


def test_folder_and_model_may_move_together_or_alone(
    emoji_q4: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, model = tmp_path / "i", tmp_path / "m.gguf"
    shutil.copy(emoji_q4, model)
    run(capsys, model, photos, "-o", index)
    moved = photos.rename(tmp_path / "pictures")
    model = model.rename(tmp_path / "n.gguf")
    code, _, err = run(capsys, index)
    assert code == 1 and "is not there" in err and "sigrun index MODEL FOLDER -o INDEX" in err
    code, out, _ = run(capsys, model, moved, "-o", index)
    assert (code, "nothing new" in out) == (0, True)
    shutil.copy(DEMO / "key.png", moved / "new.png")
    assert run(capsys, index)[0] == 0
    assert len(stored(index)) == 15


def test_what_does_not_belong_together_is_refused(
    emoji_variant: Callable[[str], Exported], tiny_q4: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    q4, f32 = (emoji_variant(name).path for name in ("q4_k_m", "f32"))
    index = tmp_path / "i"
    run(capsys, q4, photos, "-o", index)
    code, _, err = run(capsys, f32, photos, "-o", index)
    assert code == 1 and "emoji-siglip-patch10-60 q4_k_m, not" in err and "--rebuild" in err
    code, _, err = run(capsys, tiny_q4, photos, "-o", index)
    assert code == 1 and "cannot be compared" in err
    (tmp_path / "other").mkdir()
    code, _, err = run(capsys, q4, tmp_path / "other", "-o", index)
    assert code == 1 and "which is still there" in err
    shutil.copy(DEMO / "key.png", photos / "new.png")
    code, _, err = run(capsys, index, "--compute", "f16")
    assert code == 1 and "in compute form" in err
    before = stored(index)
    assert len(before) == 14
    code, out, _ = run(capsys, f32, photos, "-o", index, "--rebuild")
    assert "15 embedded" in out
    after = stored(index)
    assert SearchIndex.open(index).about.variant == "f32"
    assert all(0.9 < float(before[path] @ after[path]) < 0.99999 for path in before)


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["a", "b", "c"], 2, "one folder makes one index"),
        (["nowhere"], 1, "is not an index"),
        (["nowhere", "-o", "x"], 2, "stays where it is"),
        (["no.gguf", "."], 1, "no.gguf"),
        ([".", __file__], 1, "the model comes first"),
        (["."], 1, "is not an index"),
        (["nowhere", "--check", "--compact"], 2, "--compact changes the index"),
        ([__file__], 2, "is a file, not an index"),
    ],
)
def test_what_cannot_be_meant(
    words: list[str], code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    got, out, err = run(capsys, *words)
    assert (got, out) == (code, "")
    assert says in err
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]  # nothing is begun


KILLED = """
import os, signal, sys
from sigrun.cli import main
from sigrun.search import update
update.BATCH = 4
keep, batches = update._keep, 0
def ended(*arguments):
    global batches
    batches += 1
    if batches == 3:
        os.kill(os.getpid(), signal.{signal})
    return keep(*arguments)
update._keep = ended
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_killed_run_is_gone_on_with(
    emoji_q4: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    index = tmp_path / "photos.sigrun"
    died = subprocess.run(
        [sys.executable, "-c", KILLED.format(signal=name), "index", emoji_q4, photos],
        capture_output=True, text=True, timeout=120, env={**os.environ, "SIGRUN_CACHE": "off"},
    )  # fmt: skip
    assert died.returncode == (-signal.SIGKILL if name == "SIGKILL" else 130), died.stderr
    with SearchIndex.open(index) as opened:
        there = len(opened)
    assert 7 <= there < 14
    _, out, _ = run(capsys, index, "--json")
    assert json.loads(out)["pictures"] == 14
    assert json.loads(out)["embedded"] == 14 - there
    whole = tmp_path / "whole"
    run(capsys, emoji_q4, photos, "-o", whole)
    one, two = stored(index), stored(whole)
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[path], two[path]) for path in one)


def test_the_limit_of_an_index_stays(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An update refuses what the first run refused, unless it is told another limit."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (1200, 1000)).save(folder / "a.png")
    code, _, err = run(capsys, emoji_q4, folder, "--max-megapixels", 1)
    assert (code, "a.png" in err) == (1, True)
    index = tmp_path / "photos.sigrun"
    assert run(capsys, index, "--retry")[0] == 1
    assert run(capsys, index, "--retry", "--max-megapixels", 2)[0] == 0
    assert len(stored(index)) == 1


def test_the_limit_is_the_runtimes(
    emoji_q4: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, emoji_q4, photos)
    with SearchIndex.open(tmp_path / "photos.sigrun") as index:
        assert index.about.max_pixels == DEFAULT_MAX_PIXELS


def test_a_folder_without_pictures_is_an_empty_index(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    assert run(capsys, emoji_q4, tmp_path / "photos")[0] == 0
    index = tmp_path / "photos.sigrun"
    assert run(capsys, index, "--check") == (0, f"{index}: in order\n", "")
    assert sigrun.cli.main(["search", str(index), "owl"]) == 0
    assert sigrun.cli.main(["search", str(index), "--duplicates"]) == 0
    capsys.readouterr()
    shutil.copy(DEMO / "key.png", tmp_path / "photos")
    assert run(capsys, index)[0] == 0
    assert len(stored(index)) == 1


def test_the_encoding_stays_until_it_is_made_anew(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(DEMO / "key.png", tmp_path / "photos")
    index = tmp_path / "photos.sigrun"

    def encoding() -> str:
        with SearchIndex.open(index) as opened:
            return opened.about.encoding

    assert run(capsys, emoji_q4, tmp_path / "photos", "--encoding", "int8")[0] == 0
    code, _, err = run(capsys, index, "--encoding", "float16")
    assert (code, "as int8" in err, "--rebuild" in err) == (2, True, True)
    assert run(capsys, index, "--encoding", "int8")[0] == 0
    assert run(capsys, index, "--rebuild")[0] == 0
    assert encoding() == "int8"
    assert run(capsys, index, "--rebuild", "--encoding", "float16")[0] == 0
    assert encoding() == "float16"
