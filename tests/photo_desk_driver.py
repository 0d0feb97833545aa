"""The desktop app in a real window on a virtual screen, driven by clicks and keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import ROOT

HOME = ROOT / "examples" / "photo_desk"
DEMO = ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
PATIENCE = 60.0  # seconds, after which a test fails rather than hangs
if str(HOME) not in sys.path:
    sys.path.append(str(HOME))


@contextmanager
def screen() -> Iterator[str]:
    """A virtual screen for the processes started inside; Qt's own where there is no X server."""
    server = shutil.which("Xvfb")
    before = {name: os.environ.get(name) for name in ("DISPLAY", "QT_QPA_PLATFORM")}
    process = None
    try:
        if server is None:
            os.environ["QT_QPA_PLATFORM"] = "offscreen"
        else:
            read, write = os.pipe()
            process = subprocess.Popen(
                [server, "-displayfd", str(write), "-screen", "0", "1400x1000x24", "-nolisten", "tcp"],
                pass_fds=[write], stderr=subprocess.DEVNULL,
            )  # fmt: skip
            os.close(write)
            with os.fdopen(read, "rb") as pipe:
                os.environ["DISPLAY"] = f":{int(pipe.readline())}"
            os.environ["QT_QPA_PLATFORM"] = "xcb"
        yield os.environ["QT_QPA_PLATFORM"]
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if process is not None:
            process.terminate()
            process.wait()


@contextmanager
def application() -> Iterator[Any]:
    """The app's part of Qt, on a virtual screen."""
    pytest.importorskip("PySide6", reason="make test-app installs it")
    with screen():
        from photo_desk import theme
        from PySide6.QtWidgets import QApplication

        made = QApplication.instance() or QApplication([])
        theme.prepare(made)  # type: ignore[arg-type]
        yield made
        made.shutdown()


def wait(until: Callable[[], object], what: str = "it") -> None:
    """Let the app run until something is so. (``QTest.qWait`` would hold the interpreter's lock meanwhile.)"""
    from PySide6.QtWidgets import QApplication

    end = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < end, f"never came: {what}"
        QApplication.processEvents()
        time.sleep(0.005)


class Desk:
    """A running app.

    Args:
        data: its data folder.
        options: for ``Window.begin``.
    """

    def __init__(self, data: Path, **options: Any) -> None:
        from photo_desk.window import Window

        self.window = Window(data)
        self.window.show()
        self.activate()
        self.window.begin(**options)

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.window.close()
        self.window.deleteLater()
        from PySide6.QtWidgets import QApplication

        QApplication.processEvents()

    @property
    def bench(self) -> Any:
        return self.window.bench

    @property
    def gallery(self) -> Any:
        return self.window.desk.gallery

    def activate(self) -> None:
        """What a window manager, of which there is none, does after a dialog."""
        self.window.activateWindow()
        wait(self.window.isActiveWindow, "an active window")

    def click(self, widget: Any) -> None:
        """Click in the middle of a widget that is to be seen."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        wait(widget.isVisible, f"{widget.objectName()} {widget.accessibleName()} to be seen")
        assert widget.isEnabled()
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton)

    def key(self, key: Any, modifier: Any = None, widget: Any = None) -> None:
        """Press a key."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        QTest.keyClick(widget or self.window, key, modifier or Qt.KeyboardModifier.NoModifier)

    def ask(self, text: str) -> None:
        """Type a query, and wait for the pictures to be sorted by it."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        self.activate()
        asked: list[object] = []
        self.window.desk.labelled.connect(asked.append)
        self.key(Qt.Key.Key_F, Qt.KeyboardModifier.ControlModifier)
        QTest.keyClicks(self.bench.query, text)
        self.key(Qt.Key.Key_Return, widget=self.bench.query)
        assert self.bench.query.text() == text
        wait(lambda: asked, "the answer to a query")
        self.window.desk.labelled.disconnect(asked.append)

    def settle(self) -> None:
        """Wait until a model is there and no picture is being embedded."""
        desk = self.window.desk
        wait(lambda: desk.info is not None and desk.total and not desk.busy, "the end of embedding")

    def names(self) -> list[str]:
        """The pictures as they are shown."""
        return [str(self.gallery.index(place).data()) for place in range(self.gallery.rowCount())]
