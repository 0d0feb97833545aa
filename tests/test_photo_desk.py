"""The desktop app: a real window on a virtual screen, clicked through and compared with the plain runtime."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sigrun import Engine, Siglip
from tests.photo_desk_driver import DEMO, HOME, Desk, application, wait

pytestmark = pytest.mark.app

DRAWINGS = sorted(DEMO.glob("*.png"))


@pytest.fixture(scope="module")
def app() -> Iterator[Any]:
    with application() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo drawings, a file that is no picture though it says so, and one that says that it is none."""
    made = tmp_path / "Bilder – 写真"
    made.mkdir()
    for drawing in DRAWINGS:
        shutil.copy2(drawing, made)
    (made / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    (made / "notes.txt").write_text("no picture")
    return made


def expected(artifact: Path, pictures: list[Path], labels: list[str]) -> dict[str, dict[str, Any]]:
    with Siglip.load(artifact, cache=None) as model:
        made = model.label_set(labels)
        return {
            picture.name: {score.label: score for score in model.classify(picture, made)}
            for picture in pictures
        }


def test_from_the_first_start_to_a_sorted_folder(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PySide6.QtCore import Qt, QTimer
    from PySide6.QtWidgets import QDialogButtonBox, QFileDialog, QLineEdit

    place = tmp_path / "here" / "models"
    place.mkdir(parents=True)
    shutil.copy(emoji_q4, place)
    monkeypatch.chdir(place.parent)
    with Desk(tmp_path / "data") as desk:
        window, bench = desk.window, desk.bench
        wait(lambda: any(button.isVisible() for button in window.welcome.buttons), "hwcheck's verdict")
        assert window.pages.currentWidget() is window.welcome
        (take,) = (b for b in window.welcome.buttons if "fits" in b.accessibleName())
        assert take.hasFocus(), "the advised one"
        desk.click(take)
        wait(lambda: window.pages.currentWidget() is bench, "the main page")
        assert "q4_k_m" in bench.model.text()
        assert "Choose a folder" in bench.hollow.text()

        def choose() -> None:
            dialog = app.activeModalWidget()
            assert isinstance(dialog, QFileDialog)
            dialog.findChild(QLineEdit, "fileNameEdit").setText(str(folder))
            buttons = dialog.findChild(QDialogButtonBox)
            desk.click(buttons.button(QDialogButtonBox.StandardButton.Open))

        QTimer.singleShot(700, choose)
        desk.click(bench.folder)
        desk.settle()
        assert str(folder) in bench.where.text()
        assert desk.names() == [*sorted(p.name for p in DRAWINGS), "broken.png"]

        labels = ["red apple", "owl", "fire engine"]
        truth = expected(emoji_q4, DRAWINGS, labels)
        desk.ask(", ".join(labels))
        best = sorted(truth, key=lambda name: -max(s.logit for s in truth[name].values()))
        assert desk.names() == [*best, "broken.png"]
        for row, name in enumerate(best):
            shown = dict(desk.gallery.scores(row))
            truly = {label: truth[name][label].probability for label in labels}
            assert shown == pytest.approx(truly, rel=1e-5)  # float32 logits
        said = desk.gallery.index(0).data(Qt.ItemDataRole.AccessibleTextRole)
        first = max(truth[best[0]].values(), key=lambda score: score.logit)
        assert said.startswith(f"{best[0]}, {first.label} {first.probability:.0%}")

        chips = {chip.text(): chip for chip in bench._group.buttons()}
        desk.click(chips["owl"])
        by_owl = sorted(truth, key=lambda name: -truth[name]["owl"].logit)
        assert desk.names() == [*by_owl, "broken.png"]
        assert by_owl[0] == "owl.png"

        desk.ask("a drawing of a fire engine")
        assert desk.names()[0] == "fire-engine.png"
        assert not bench._group.buttons(), "one sentence needs no chips"

        broken = desk.gallery.index(len(DRAWINGS))
        spoken = broken.data(Qt.ItemDataRole.AccessibleTextRole)
        assert spoken.startswith("broken.png, cannot be read: ")
        assert "Traceback" not in spoken


def test_a_picture_is_opened_with_the_keyboard(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path
) -> None:
    from PySide6.QtCore import Qt
    from PySide6.QtWidgets import QDialog

    with Desk(tmp_path / "data", artifact=emoji_q4, folder=folder, query="owl, key") as desk:
        desk.settle()
        wait(lambda: desk.bench._group.buttons(), "the labels")
        desk.bench.grid.setFocus()
        for place in (0, len(DRAWINGS)):  # the best, and the one that cannot be read
            desk.bench.grid.setCurrentIndex(desk.gallery.index(place))
            desk.key(Qt.Key.Key_Return, widget=desk.bench.grid)
            wait(lambda: isinstance(app.activeModalWidget(), QDialog), "the preview")
            dialog = app.activeModalWidget()
            assert dialog.windowTitle() == desk.names()[place]
            assert dialog.grab().toImage().pixelColor(5, 5).isValid()
            desk.key(Qt.Key.Key_Escape, widget=dialog)
            wait(lambda: app.activeModalWidget() is None, "its end")


def test_stopped_and_gone_on_with(app: Any, tmp_path: Path, emoji_q4: Path) -> None:
    from PySide6.QtCore import Qt

    many = tmp_path / "many"
    many.mkdir()
    for number in range(1500):
        os.link(DRAWINGS[number % len(DRAWINGS)], many / f"{number:04}.png") if sys.platform == "linux" else (
            shutil.copy(DRAWINGS[number % len(DRAWINGS)], many / f"{number:04}.png")
        )
    with Desk(tmp_path / "data", artifact=emoji_q4, folder=many) as desk:
        state = desk.window.desk
        wait(lambda: state.done >= 5, "five pictures")
        assert desk.bench.bar.isVisible()
        desk.key(Qt.Key.Key_Escape)
        assert not state.busy
        stopped = state.done
        assert 5 <= stopped < 1500
        assert f"Stopped at {stopped:,} of 1,500" in desk.bench.status.text()
        for _ in range(20):
            app.processEvents()
        assert state.done == stopped, "silent at once"
    with Desk(tmp_path / "data") as desk:  # what was done is kept, also over a restart
        state = desk.window.desk
        wait(lambda: state.busy or state.done, "the rest")
        assert state.done >= stopped
        wait(lambda: state.done > stopped, "more of it")
        desk.click(desk.bench.stop)
        assert state.done < 1500
        desk.click(desk.bench.go_on)
        desk.settle()
        assert state.done == 1500
        assert not desk.bench.stop.isVisible()


def test_the_second_start_computes_no_picture_and_a_changed_file_counts_as_new(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Desk(tmp_path / "data", artifact=emoji_q4, folder=folder, query="owl, key") as desk:
        desk.settle()
        wait(lambda: desk.bench._group.buttons(), "the labels")
        first = desk.names()

    asked: list[list[str]] = []
    images = Engine.images

    def counted(self: Engine, pictures: Any, **options: Any) -> Any:
        asked.append([Path(p).name for p in pictures])
        return images(self, pictures, **options)

    monkeypatch.setattr(Engine, "images", counted)
    with Desk(tmp_path / "data") as desk:
        desk.settle()
        wait(lambda: desk.bench._group.buttons(), "the labels")
        assert desk.bench.query.text() == "owl, key"
        assert desk.names() == first
        assert asked == []
    shutil.copy(DEMO / "owl.png", folder / "broken.png")
    with Desk(tmp_path / "data") as desk:
        desk.settle()
        wait(lambda: desk.bench._group.buttons(), "the labels")
        assert asked == [["broken.png"]]
        names = desk.names()
        assert abs(names.index("owl.png") - names.index("broken.png")) == 1, "they are the same now"


def test_a_model_that_is_none_is_told_in_words(app: Any, tmp_path: Path, emoji_q4: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"nothing of the kind")
    with Desk(tmp_path / "data", artifact=tmp_path / "no.gguf") as desk:
        welcome = desk.window.welcome
        wait(lambda: "no.gguf" in welcome._problem.text(), "words")
        assert desk.window.pages.currentWidget() is welcome
        welcome.chosen.emit(emoji_q4)
        wait(lambda: desk.window.pages.currentWidget() is desk.bench, "the main page")


def test_without_a_place_to_keep_anything_it_works_and_says_so(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path
) -> None:
    (tmp_path / "data").write_text("a file is in the way")
    with Desk(tmp_path / "data", artifact=emoji_q4, folder=folder) as desk:
        assert "Nothing will be remembered" in desk.window.desk.library.problem
        desk.settle()
        desk.ask("owl")
        assert desk.names()[0] == "owl.png"


def test_everything_has_a_name_and_a_way_by_keyboard(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path
) -> None:
    from PySide6.QtCore import Qt
    from PySide6.QtWidgets import QAbstractButton, QLineEdit, QListView, QProgressBar

    with Desk(tmp_path / "data", artifact=emoji_q4, folder=folder, query="owl, key") as desk:
        desk.settle()
        wait(lambda: desk.bench._group.buttons(), "the labels")
        kinds = (QAbstractButton, QLineEdit, QListView, QProgressBar)
        widgets = [w for kind in kinds for w in desk.window.findChildren(kind) if w.isVisible()]
        assert len(widgets) >= 7
        for widget in widgets:
            assert widget.accessibleName() or widget.text(), widget
        reached = set()
        for _ in range(12):
            reached.add(app.focusWidget())
            desk.key(Qt.Key.Key_Tab, widget=app.focusWidget())
        bench = desk.bench
        assert {bench.folder, bench.query, bench.grid, bench.model} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_are_readable(app: Any, scheme: str) -> None:
    """Contrast by WCAG 2: 4.5 for text, 3 for what shows a state."""
    from photo_desk import theme
    from PySide6.QtGui import QColor

    def light(colour: str) -> float:
        parts = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in QColor(colour).getRgbF()[:3]  # type: ignore[index]
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(one: str, other: str) -> float:
        high, low = sorted((light(one), light(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    theme.apply(app, scheme)
    assert theme.is_dark() == (scheme == "dark")
    c = theme.colours()
    for text in (c.text, c.faint, c.good, c.fair, c.bad):
        for ground in (c.window, c.panel):
            assert contrast(text, ground) >= 4.5, (text, ground)
    assert contrast(c.bad, c.well) >= 4.5
    assert contrast(c.on_accent, c.accent) >= 4.5
    assert contrast(c.accent, c.track) >= 3
    theme.apply(app, "light")


def test_signals_hold_what_they_give_away(app: Any) -> None:
    """PySide6 6.12.0 with Python 3.11 gives up a reference at each signal; see the app's pyproject.toml."""
    from photo_desk.relay import Relay

    relay = Relay()
    before = sys.getrefcount(True), sys.getrefcount(None)
    for _ in range(40):
        relay.call(lambda: None)
    app.processEvents()
    after = sys.getrefcount(True), sys.getrefcount(None)
    assert all(abs(one - other) < 20 for one, other in zip(before, after, strict=True))


def test_it_keeps_nothing_outside_its_folder_and_shows_before_it_loads(
    app: Any, folder: Path, tmp_path: Path, emoji_q4: Path
) -> None:
    """As a process of its own, with a home of its own."""
    code = """
        import sys
        import photo_desk.__main__ as main
        heavy = {"numpy", "onnxruntime", "PIL", "sentencepiece", "sigrun.model", "sigrun_hwcheck"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        from PySide6.QtCore import QTimer
        from PySide6.QtWidgets import QApplication
        from photo_desk.window import Window

        def look():
            window = next(w for w in QApplication.topLevelWidgets() if isinstance(w, Window))
            if window.desk.total and not window.desk.busy and window.desk.done == window.desk.total:
                window.close()
            else:
                QTimer.singleShot(50, look)

        begin = Window.begin
        def begun(self, **options):
            assert self.isVisible() and not heavy & set(sys.modules)
            begin(self, **options)
            QTimer.singleShot(50, look)
        Window.begin = begun
        raise SystemExit(main.main(sys.argv[1:]))
    """
    import textwrap

    home = tmp_path / "home"
    home.mkdir()
    data = tmp_path / "data"
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(HOME), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("SIGRUN_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        environment.pop(name, None)
    words = ["--artifact", str(emoji_q4), "--folder", str(folder), "--data", str(data), "--query", "owl"]
    before = sorted(folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *words],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    left = [p for p in home.rglob("*") if p.is_file() and "fontconfig" not in p.parts]  # the system's own
    assert left == []
    assert sorted(folder.iterdir()) == before
    assert (data / "photo-desk.sqlite3").is_file()
