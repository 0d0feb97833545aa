"""``python -m photo_desk``: the window first, everything that takes time after it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QSettings, QTimer
from PySide6.QtWidgets import QApplication

from photo_desk import __version__, theme
from photo_desk.window import Window


def beside_the_app() -> Path:
    """The folder for what the app keeps, where no other is told."""
    if getattr(sys, "frozen", False):
        return Path(sys.executable).parent / "photo-desk-data"
    return Path(__file__).resolve().parent.parent / "photo-desk-data"


def options(words: Sequence[str] | None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        prog="photo_desk", description="Sorts the pictures of a folder by words."
    )
    parser.add_argument("--artifact", metavar="FILE", type=Path, help="the model, a .gguf file")
    parser.add_argument("--folder", metavar="DIR", type=Path, help="the folder of pictures")
    parser.add_argument("--query", metavar="TEXT", help="labels, separated by commas, or a sentence")
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="keep everything there (default: beside the app)"
    )
    parser.add_argument("--scheme", choices=("system", "light", "dark"), help="colours")
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the app.

    Returns:
        The exit code.
    """
    chosen = options(words)
    data: Path = (chosen.data or beside_the_app()).absolute()
    # Qt's own file dialog remembers folders; what it remembers belongs with the rest.
    QSettings.setPath(QSettings.Format.NativeFormat, QSettings.Scope.UserScope, str(data))
    app = QApplication.instance() or QApplication(sys.argv[:1])
    assert isinstance(app, QApplication)
    app.setApplicationName("Photo Desk")
    app.setApplicationVersion(__version__)
    theme.prepare(app)
    window = Window(data)
    window.show()
    QTimer.singleShot(
        0,
        lambda: window.begin(
            artifact=chosen.artifact, folder=chosen.folder, query=chosen.query, scheme=chosen.scheme
        ),
    )
    return app.exec()


if __name__ == "__main__":
    raise SystemExit(main())
