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

from tests.photo_desk_driver import DEMO, Desk, screen  # noqa: E402

ARTIFACT = ROOT / "models/emoji-siglip-patch10-60/emoji-siglip-patch10-60-q4_k_m.gguf"
QUERY = "fruit, bird, vehicle, food, music"


def main() -> int:
    """Draw."""
    with tempfile.TemporaryDirectory() as home, screen():
        os.environ["HOME"] = home
        pictures = Path(home) / "Pictures" / "drawings"
        shutil.copytree(DEMO, pictures, ignore=shutil.ignore_patterns("*.txt"))
        from photo_desk import theme
        from PySide6.QtWidgets import QApplication

        theme.prepare(QApplication([]))
        with Desk(Path(home) / "data", artifact=ARTIFACT, folder=pictures, scheme="light") as desk:
            desk.window.resize(1120, 760)
            desk.settle()
            desk.ask(QUERY)
            desk.window.grab().save(str(ROOT / "docs/photo_desk.png"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
