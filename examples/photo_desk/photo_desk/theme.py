"""Colours and shapes, light and dark."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QGuiApplication, QPalette
from PySide6.QtWidgets import QApplication

SCHEMES = ("system", "light", "dark")


@dataclass(frozen=True)
class Colours:
    """The colours of a scheme, as CSS takes them."""

    window: str
    panel: str  # cards and fields
    well: str  # behind thumbnails
    line: str
    text: str
    faint: str  # text of less weight
    accent: str
    on_accent: str
    track: str  # of bars
    good: str
    fair: str
    bad: str


LIGHT = Colours(
    window="#f4f5f8", panel="#ffffff", well="#f0f1f5", line="#dcdfe7", text="#1b1f2a", faint="#626a7d",
    accent="#3b5bdb", on_accent="#ffffff", track="#e6e9f1", good="#1f7a3d", fair="#9a5b00", bad="#b42318",
)  # fmt: skip
DARK = Colours(
    window="#14161c", panel="#1e212a", well="#262a35", line="#343947", text="#eceef4", faint="#a0a8ba",
    accent="#7f9cff", on_accent="#10131b", track="#333949", good="#6fd08c", fair="#f0b35e", bad="#ff8a80",
)  # fmt: skip

_current = LIGHT


def colours() -> Colours:
    """The colours that are in use."""
    return _current


def prepare(app: QApplication) -> None:
    """Give the app its looks, as the system wants them."""
    app.setStyle("Fusion")
    apply(app, "system")


def apply(app: QApplication, scheme: str) -> None:
    """Change all colours.

    Args:
        app: the app.
        scheme: ``light``, ``dark``, or ``system`` for what the desktop says.
    """
    global _current
    dark = scheme == "dark"
    if scheme == "system":
        dark = QGuiApplication.styleHints().colorScheme() == Qt.ColorScheme.Dark
    _current = DARK if dark else LIGHT
    app.setPalette(_palette(_current))
    app.setStyleSheet(_sheet(_current))


def is_dark() -> bool:
    """Whether the dark colours are in use."""
    return _current is DARK


def _palette(c: Colours) -> QPalette:
    palette = QPalette()
    role = QPalette.ColorRole
    for which, colour in (
        (role.Window, c.window), (role.Base, c.panel), (role.AlternateBase, c.well), (role.Button, c.panel),
        (role.WindowText, c.text), (role.Text, c.text), (role.ButtonText, c.text), (role.PlaceholderText, c.faint),
        (role.ToolTipBase, c.panel), (role.ToolTipText, c.text), (role.Highlight, c.accent),
        (role.HighlightedText, c.on_accent), (role.Link, c.accent), (role.Mid, c.line), (role.Dark, c.line),
        (role.Light, c.panel), (role.Midlight, c.well), (role.BrightText, c.bad),
    ):  # fmt: skip
        palette.setColor(which, QColor(colour))
    faint = QColor(c.faint)
    faint.setAlpha(140)
    for which in (role.Text, role.ButtonText, role.WindowText):
        palette.setColor(QPalette.ColorGroup.Disabled, which, faint)
    return palette


def _sheet(c: Colours) -> str:
    return f"""
    QWidget {{ font-size: 10pt; }}
    QMainWindow, QDialog, #page {{ background: {c.window}; }}
    QLabel#title {{ font-size: 15pt; font-weight: 600; }}
    QLabel#heading {{ font-size: 20pt; font-weight: 600; }}
    QLabel#faint {{ color: {c.faint}; }}
    QLabel#bad {{ color: {c.bad}; }}
    QLabel#hollow {{ color: {c.faint}; font-size: 13pt; }}
    QPushButton {{
        background: {c.panel}; color: {c.text}; border: 1px solid {c.line}; border-radius: 8px; padding: 7px 14px;
    }}
    QPushButton:hover {{ border-color: {c.accent}; }}
    QPushButton:focus {{ border: 2px solid {c.accent}; padding: 6px 13px; }}
    QPushButton:disabled {{ color: {c.faint}; }}
    QPushButton#primary {{ background: {c.accent}; color: {c.on_accent}; border-color: {c.accent}; font-weight: 600; }}
    QPushButton#primary:focus {{ border: 2px solid {c.text}; }}
    QPushButton#chip {{ border-radius: 13px; padding: 4px 12px; }}
    QPushButton#chip:checked {{ background: {c.accent}; color: {c.on_accent}; border-color: {c.accent}; }}
    QPushButton#chip:focus {{ border: 2px solid {c.text}; padding: 3px 11px; }}
    QLineEdit {{
        background: {c.panel}; color: {c.text}; border: 1px solid {c.line}; border-radius: 10px;
        padding: 9px 14px; font-size: 12pt; selection-background-color: {c.accent};
    }}
    QLineEdit:focus {{ border: 2px solid {c.accent}; padding: 8px 13px; }}
    QListView {{ background: {c.window}; border: none; outline: none; }}
    QScrollArea {{ background: {c.window}; border: none; }}
    QScrollArea > QWidget > QWidget {{ background: {c.window}; }}
    QFrame#card {{ background: {c.panel}; border: 1px solid {c.line}; border-radius: 12px; }}
    QProgressBar {{ background: {c.track}; border: none; border-radius: 4px; max-height: 8px; min-height: 8px; }}
    QProgressBar::chunk {{ background: {c.accent}; border-radius: 4px; }}
    QToolTip {{ background: {c.panel}; color: {c.text}; border: 1px solid {c.line}; padding: 4px; }}
    QScrollBar:vertical {{ background: transparent; width: 12px; margin: 2px; }}
    QScrollBar::handle:vertical {{ background: {c.line}; border-radius: 4px; min-height: 32px; }}
    QScrollBar::handle:vertical:hover {{ background: {c.faint}; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ height: 0; width: 0; }}
    """
