"""The snippets of docs/apps.md that need a screen, run as they stand in the page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import ROOT
from tests.photo_desk_driver import screen

pytestmark = pytest.mark.app

PAGE = (ROOT / "docs" / "apps.md").read_text("utf-8")
SNIPPETS = re.findall(r"<!-- app test -->\n```python\n(.*?)```", PAGE, re.DOTALL)
DRAWINGS = sorted(p.name for p in (ROOT / "examples" / "emoji_siglip" / "heldout" / "demo").glob("*.png"))

# A few lines that close the window when the job is done, and tell what it shows.
QT = """
from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication
run = QApplication.exec
def look():
    if job.done():
        print(bar.value(), *(found.item(i).text().split(":")[0] for i in range(found.count())), sep="\\n")
        QApplication.quit()
    else:
        QTimer.singleShot(20, look)
def begin():
    QTimer.singleShot(20, look)
    return run()
QApplication.exec = staticmethod(begin)
"""
TK = """
import tkinter
run = tkinter.Tk.mainloop
def look(root):
    if job.done():
        print(len(pictures), *found.get(0, "end"), sep="\\n")
        root.destroy()
    else:
        root.after(20, look, root)
def begin(root):
    root.after(20, look, root)
    run(root)
tkinter.Tk.mainloop = begin
"""


@pytest.fixture(scope="module", autouse=True)
def display() -> Iterator[str]:
    with screen() as platform:
        yield platform


@pytest.fixture
def clone(tmp_path: Path, emoji_q4: Path) -> Path:
    folder = tmp_path / "models" / "emoji-siglip-patch10-60"
    folder.mkdir(parents=True)
    (folder / emoji_q4.name).symlink_to(emoji_q4)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_the_page_has_both() -> None:
    assert ["PySide6" in code for code in SNIPPETS] == [True, False]


@pytest.mark.parametrize(("number", "prelude", "needs"), [(0, QT, "PySide6"), (1, TK, "tkinter")])
def test_snippets_show_every_picture(
    number: int, prelude: str, needs: str, clone: Path, display: str
) -> None:
    pytest.importorskip(needs, reason="make test-app needs it")
    if needs == "tkinter" and display == "offscreen":
        pytest.skip("tkinter needs an X server")
    done = subprocess.run(
        [sys.executable, "-c", prelude + SNIPPETS[number]],
        cwd=clone, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split("\n")[:-1] == [str(len(DRAWINGS)), *DRAWINGS]
