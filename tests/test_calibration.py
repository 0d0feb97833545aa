"""Calibration data as users have it: folders with all sorts of files, captions from any editor."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sigrun.pixels import open_picture, to_pixels
from sigrun_exporters.calibration import CalibrationError, read_calibration
from sigrun_exporters.checkpoint import Checkpoint, open_checkpoint
from tests import checkpoints


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(str(checkpoints.EMOJI))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures in two folders, and files that are none."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name in ("b.png", "deep/er/a.JPG", "a.webp"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    (root / "notes.txt").write_text("not a picture")
    (root / "folder.png").mkdir()
    return root


def silent(line: str) -> None:
    raise AssertionError(f"unexpected note: {line}")


def test_pictures_are_found_at_any_depth_in_the_order_of_their_paths(folder: Path) -> None:
    found = read_calibration(folder, None, silent)
    assert [p.relative_to(folder).as_posix() for p in found.pictures] == ["a.webp", "b.png", "deep/er/a.JPG"]
    assert found.texts == ()
    assert found.datasets == ("photos",)


def test_pixels_are_those_of_the_runtime(folder: Path, checkpoint: Checkpoint) -> None:
    found = read_calibration(folder, None, silent)
    pixels = found.pixels(checkpoint.preprocessing, slice(1, 3))
    expected = [to_pixels(open_picture(p), checkpoint.preprocessing) for p in found.pictures[1:]]
    assert len(pixels) == 2
    assert np.array_equal(np.stack(pixels[:]), np.stack(expected))
    assert np.array_equal(pixels[1], expected[1])


def test_unreadable_pictures_are_named_and_left_out(folder: Path) -> None:
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:60])
    (folder / "empty.jpg").touch()
    notes: list[str] = []
    found = read_calibration(folder, None, notes.append)
    assert len(found.pictures) == 3
    assert len(notes) == 2
    assert str(folder / "broken.png") in notes[0]
    assert str(folder / "empty.jpg") in notes[1]
    (folder / "broken.png").unlink()
    (folder / "empty.jpg").unlink()
    assert found.digest == read_calibration(folder, None, silent).digest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.touch(), "is not a folder"),
        (lambda path: path.mkdir(), "there are no pictures in it"),
        (lambda path: (path.mkdir(), (path / "a.png").touch()), "none of its 1 pictures can be read"),
    ],
)
def test_a_folder_without_pictures(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "photos")
    with pytest.raises(CalibrationError, match=message) as caught:
        read_calibration(tmp_path / "photos", None, lambda line: None)
    assert str(tmp_path / "photos") in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_captions_are_lines(tmp_path: Path, bom: str, end: str) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes((bom + end.join(["a cat", "", "  ", "naïve \u2028 café", "a dog"])).encode("utf-8"))
    found = read_calibration(None, path, silent)
    assert found.texts == ("a cat", "naïve \u2028 café", "a dog")
    assert found.datasets == ("captions.txt",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "holds no text"),
        (b"\n \n\t\n", "holds no text"),
        (b"caf\xe9\n", r"is not UTF-8 \(byte 3\)"),
    ],
)
def test_unusable_captions(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "captions.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CalibrationError, match=message) as caught:
        read_calibration(None, path, silent)
    assert str(path) in caught.value.message


def test_captions_without_a_word_are_left_out(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("a cat\n!!!\na dog\n", "utf-8")
    notes: list[str] = []
    ids = read_calibration(None, path, silent).ids(checkpoint.tokenizer, notes.append)
    assert ids.shape == (2, 64)
    assert len(notes) == 1
    assert "'!!!'" in notes[0]
    path.write_text("!!!\n", "utf-8")
    with pytest.raises(CalibrationError, match="none of the captions holds a word"):
        read_calibration(None, path, silent).ids(checkpoint.tokenizer, notes.append)


def test_the_digest_is_of_contents_and_texts(folder: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("a cat\na dog\n", "utf-8")
    first = read_calibration(folder, captions, silent)
    shutil.copytree(folder, tmp_path / "elsewhere")
    captions.write_text("a cat\r\n\r\na dog", "utf-8")
    assert read_calibration(tmp_path / "elsewhere", captions, silent).digest == first.digest
    digests = {first.digest, read_calibration(folder, None, silent).digest}
    captions.write_text("a cata dog\n", "utf-8")
    digests.add(read_calibration(folder, captions, silent).digest)
    Image.new("RGB", (20, 30)).save(folder / "b.png")
    digests.add(read_calibration(folder, None, silent).digest)
    assert len(digests) == 4
