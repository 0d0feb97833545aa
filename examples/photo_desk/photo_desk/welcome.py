"""The first page: what fits this machine, by hwcheck, and the choice of a model."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from photo_desk import theme
from photo_desk.verdicts import Choice, Findings, size

GET_ONE = (
    "There is no model on this machine yet. The variants below could be exported from the published model with\n"
    "    sigrun-export convert google/siglip-so400m-patch14-384 --variant {variant}\n"
    "or open a file that somebody gave you."
)


class Welcome(QWidget):
    """Shows findings, and tells which artifact was chosen."""

    chosen = Signal(object)  # Path
    back = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("page")
        self._heading = _label("Which model?", "heading")
        self._machine = _label("Looking at this machine …", "faint")
        self._sentence = _label("")
        self._note = _label("", "faint")
        self._note.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._problem = _label("", "bad")
        self._cards = QVBoxLayout()
        self._cards.setSpacing(8)
        self.open_file = QPushButton("&Open a model file …")
        self.open_file.setAccessibleName("Open a model file")
        self.open_file.clicked.connect(self._browse)
        self.cancel = QPushButton("&Back")
        self.cancel.clicked.connect(self.back)
        self.cancel.hide()
        buttons = QHBoxLayout()
        buttons.addWidget(self.open_file)
        buttons.addWidget(self.cancel)
        buttons.addStretch()

        column = QVBoxLayout()
        column.setContentsMargins(40, 36, 40, 24)
        column.setSpacing(10)
        for widget in (self._heading, self._machine, self._sentence, self._problem, self._note):
            column.addWidget(widget)
        column.addSpacing(6)
        inside = QWidget()
        inside.setLayout(self._cards)
        self._cards.setContentsMargins(0, 0, 8, 0)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setWidget(inside)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        column.addWidget(area, 1)
        column.addLayout(buttons)
        whole = QHBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addStretch(1)
        middle = QWidget()
        middle.setLayout(column)
        middle.setMaximumWidth(860)
        whole.addWidget(middle, 20)
        whole.addStretch(1)
        self.buttons: list[QPushButton] = []  # one for each artifact that can be taken

    def show_findings(self, findings: Findings) -> None:
        """Show what hwcheck found."""
        self._clear()
        self._machine.setText(findings.machine)
        self._sentence.setText(findings.sentence)
        none = all(choice.path is None for choice in findings.choices)
        variant = findings.best.variant if findings.best else "q4_k_m"
        self._note.setText(GET_ONE.format(variant=variant) if none else "")
        self._note.setVisible(none)
        for choice in findings.choices:
            self._cards.addWidget(self._card(choice, choice is findings.best))
        self._cards.addStretch()
        if self.buttons:
            best = next((b for b in self.buttons if b.objectName() == "primary"), self.buttons[0])
            best.setFocus()
        else:
            self.open_file.setFocus()

    def show_problem(self, text: str) -> None:
        """Say why something did not work."""
        self._problem.setText(text)

    def _card(self, choice: Choice, best: bool) -> QFrame:
        c = theme.colours()
        card = QFrame()
        card.setObjectName("card")
        row = QHBoxLayout(card)
        row.setContentsMargins(16, 10, 12, 10)
        words = QVBoxLayout()
        words.setSpacing(2)
        name = choice.variant or choice.name
        title = _label(f"{name}{'  ·  advised' if best else ''}")
        title.setStyleSheet("font-weight: 600;")
        words.addWidget(title)
        if choice.problem is not None:
            words.addWidget(_label(choice.problem, "bad"))
        else:
            needs = "" if choice.needs is None else f", needs {size(choice.needs)} of memory"
            words.addWidget(_label(f"{choice.name}, {size(choice.size)} on disk{needs}", "faint"))
        row.addLayout(words, 1)
        colour = {"fits": c.good, "tight": c.fair, "does not fit": c.bad}.get(choice.verdict, c.faint)
        if choice.problem is None:
            verdict = _label(choice.verdict)
            verdict.setStyleSheet(f"color: {colour}; font-weight: 600;")
            verdict.setWordWrap(False)
            row.addWidget(verdict)
        if choice.path is not None and choice.problem is None:
            take = QPushButton("Use this")
            take.setObjectName("primary" if best else "other")
            take.setAccessibleName(f"Use {choice.name} {choice.variant}, which {_said(choice.verdict)}")
            path = choice.path
            take.clicked.connect(lambda: self.chosen.emit(path))
            self.buttons.append(take)
            row.addWidget(take)
        return card

    def _clear(self) -> None:
        self.buttons = []
        self._problem.setText("")
        while (item := self._cards.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()

    def _browse(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Open a model", str(Path.cwd()), "Models (*.gguf)")
        if name:
            self.chosen.emit(Path(name))


def _said(verdict: str) -> str:
    return {"fits": "fits", "tight": "is a tight fit", "does not fit": "does not fit"}.get(verdict, "may fit")


def _label(text: str, name: str = "") -> QLabel:
    label = QLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)  # names of files may look like HTML
    label.setObjectName(name)
    label.setWordWrap(True)
    return label
