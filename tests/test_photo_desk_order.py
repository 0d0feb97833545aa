"""The desktop app when things happen in an unlucky order, or do not last: rescans, slow models, permissions, names."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun import Engine, Job, Siglip
from tests.photo_desk_driver import DEMO, PATIENCE, Desk, application, wait

pytestmark = pytest.mark.app

DRAWINGS = sorted(DEMO.glob("*.png"))[:4]


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    with application() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for drawing in DRAWINGS:
        shutil.copy2(drawing, made)
    return made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the pictures that each run of an engine was given."""
    told: list[list[str]] = []
    images = Engine.images

    def noted(self: Engine, pictures: Any, **options: Any) -> Any:
        told.append([Path(path).name for path in pictures])
        return images(self, pictures, **options)

    monkeypatch.setattr(Engine, "images", noted)
    return told


def kept(desk: Desk) -> dict[str, bytes | None]:
    """What the library holds of the pictures of the folder, by name."""
    from photo_desk.desk import maker

    state = desk.window.desk
    assert state.info is not None
    known = state.library.known(maker(state.info), state._pictures)
    return {
        Path(seen.path).name: None if row is None else row.vector
        for seen, row in zip(state._pictures, known, strict=True)
    }


def vectors(artifact: Path, folder: Path) -> dict[str, bytes]:
    pictures = sorted(folder.iterdir())
    with Siglip.load(artifact, cache=None) as model:
        made = model.embed_images(pictures).vectors
    return {picture.name: row.tobytes() for picture, row in zip(pictures, made, strict=True)}


def test_going_on_while_the_folder_is_looked_at_again_files_nothing_under_other_pictures(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[Job[Any]] = []
    compute, look = threading.Event(), threading.Event()
    images = Engine.images

    def held(self: Engine, pictures: Any, **options: Any) -> Any:
        def slowly() -> Iterator[Any]:
            assert compute.wait(PATIENCE)
            yield from pictures

        runs.append(images(self, slowly(), **options))
        return runs[-1]

    monkeypatch.setattr(Engine, "images", held)
    with Desk(tmp_path / "data", artifact=emoji_q4, folder=folder) as desk:
        try:
            state = desk.window.desk
            wait(lambda: len(runs) == 1, "the first run")
            state.stop()
            shutil.copy2(DRAWINGS[-1], folder / "0.png")  # every other picture is one further now
            state.in_background(lambda: look.wait(PATIENCE), lambda _: None)
            state.open_folder(folder)
            state.go_on()
            assert len(runs) == 2
            look.set()
            wait(lambda: state.total == len(DRAWINGS) + 1, "the new list")
        finally:
            look.set()
            compute.set()
        wait(lambda: all(run.done() for run in runs), "the end of all runs")
        desk.settle()
        assert kept(desk) == vectors(emoji_q4, folder)


def test_the_model_that_was_chosen_last_stays(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = tmp_path / "slow.gguf", tmp_path / "fast.gguf"
    for path in (slow, fast):
        shutil.copy(emoji_q4, path)
    go = threading.Event()
    closed: list[str] = []
    opened, close = Engine._open, Engine.close

    def open_it(self: Engine) -> Siglip:
        assert self.path == fast or go.wait(PATIENCE)
        return opened(self)

    def close_it(self: Engine, **options: Any) -> None:
        closed.append(Path(self.path).name)
        close(self, **options)

    monkeypatch.setattr(Engine, "_open", open_it)
    monkeypatch.setattr(Engine, "close", close_it)
    with Desk(tmp_path / "data", artifact=slow, folder=folder) as desk:
        try:
            desk.window.desk.open_artifact(fast)
            desk.settle()
        finally:
            go.set()
        wait(lambda: closed, "the end of one of them")
        assert closed == ["slow.gguf"]
        assert desk.window.desk.info is not None
        assert desk.window.desk.info.path == str(fast)
        assert desk.window.desk.library.setting("artifact") == str(fast)


def test_a_picture_that_may_not_be_read_is_tried_again(
    app: Any,
    folder: Path,
    tmp_path: Path,
    emoji_q4: Path,
    asked: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To its permissions, size and time of change are all one."""
    (folder / "broken.png").write_bytes(b"no picture")
    path_open = Path.open

    def refuse(self: Path, *words: Any, **options: Any) -> Any:
        if self.name == "owl.png":
            raise PermissionError(13, "Permission denied", str(self))
        return path_open(self, *words, **options)

    shutil.copy2(DEMO / "owl.png", folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with Desk(tmp_path / "data", artifact=emoji_q4, folder=folder) as desk:
            desk.settle()
            assert set(desk.names()[-2:]) == {"broken.png", "owl.png"}
    assert len(asked) == 1
    with Desk(tmp_path / "data") as desk:
        desk.settle()
        assert asked[1:] == [["owl.png"]], "it alone: what is broken stays so"
        assert desk.names()[-1] == "broken.png"


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode on Windows")
def test_a_folder_with_a_name_that_is_no_text_is_opened_again(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path, asked: list[list[str]]
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn"))
    try:
        folder.rename(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    with Desk(tmp_path / "data", artifact=emoji_q4, folder=odd) as desk:
        desk.settle()
        assert len(desk.names()) == len(DRAWINGS)
    assert len(asked) == 1
    with Desk(tmp_path / "data") as desk:
        desk.settle()
        assert desk.window.desk.folder == odd
        assert desk.names() == [drawing.name for drawing in DRAWINGS]
    assert len(asked) == 1, "its vectors were kept, too"


def test_vectors_are_filed_under_the_compute_form_that_made_them(
    app: Any,
    folder: Path,
    tmp_path: Path,
    emoji_q4: Path,
    asked: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is tried first may fail; before the image tower is there, the form is but a guess."""
    from sigrun.towers import Towers

    first = Towers.first

    def guess(self: Towers, tower: Any = None) -> Any:
        found = first(self, tower)
        return found if self.running() else replace(found, compute="f16", provider="cuda")

    monkeypatch.setattr(Towers, "first", guess)
    with Desk(tmp_path / "data", artifact=emoji_q4, folder=folder) as desk:
        desk.settle()
        state = desk.window.desk
        assert state.info is not None
        assert state.info.compute != "f16"
        assert kept(desk) == vectors(emoji_q4, folder)
        as_guessed = replace(state.info, compute="f16", running={})
        from photo_desk.desk import maker

        assert list(state.library.known(maker(as_guessed), state._pictures)) == [None] * len(DRAWINGS)
    with Desk(tmp_path / "data") as desk:
        desk.settle()
        assert len(asked) == 1, "found again, though guessed wrong again"
        assert np.isfinite(desk.gallery._vectors).all()
