"""Draws docs/photo_desk.png: the desktop app in a real window on a virtual screen, sorting the demo's drawings.

    make demo test-app
    .venv-app/bin/python docs/draw_photo_desk.py

It needs an artifact of the bundled model under models/, as ``make demo`` leaves it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.photo_desk_driver import DEMO, screen, wait  # noqa: E402

ARTIFACT = ROOT / "models/emoji-siglip-patch10-60/emoji-siglip-patch10-60-q4_k_m.gguf"
QUERY = "fruit, bird, vehicle, food, music"


def main() -> int:
    """Draw."""
    with tempfile.TemporaryDirectory() as home, screen():
        os.environ["HOME"] = home
        pictures = Path(home) / "Pictures" / "drawings"
        shutil.copytree(DEMO, pictures, ignore=shutil.ignore_patterns("*.txt"))
        from photo_desk import theme
        from photo_desk.window import Window
        from PySide6.QtWidgets import QApplication

        app = QApplication([])
        theme.prepare(app)
        window = Window(Path(home) / "data")
        window.resize(1120, 760)
        window.show()
        window.begin(artifact=ARTIFACT, folder=pictures, query=QUERY, scheme="light")
        pages, desk = window.pages, window.desk
        wait(lambda: pages.currentWidget() is window.bench, "the main page")
        wait(lambda: desk.total and desk.done == desk.total and window.bench._group.buttons(), "the scores")
        wait(lambda: not desk.busy, "the end of the work")
        window.grab().save(str(ROOT / "docs/photo_desk.png"))
        window.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
