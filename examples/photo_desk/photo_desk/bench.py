"""The main page: folder, query, chips to sort by, pictures, progress."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListView,
    QProgressBar,
    QPushButton,
    QStackedLayout,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from photo_desk.gallery import SHOWN
from photo_desk.thumbnails import Thumbnails
from photo_desk.tiles import Tiles

if TYPE_CHECKING:
    from photo_desk.desk import Desk
    from sigrun import LabelSet

MOST_CHIPS = 12


class Bench(QWidget):
    """Widgets of the main page; :meth:`attach` gives them something to show."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("page")
        self._desk: Desk | None = None
        self.folder = QPushButton("Choose a &folder …")
        self.folder.setObjectName("primary")
        self.folder.setToolTip("Ctrl+O")
        self.where = QLabel("")
        self.where.setObjectName("faint")
        self.model = QPushButton("Model")
        self.model.setToolTip("Take another model (Ctrl+M)")
        self.model.setAccessibleName("Take another model")
        self.shades = QPushButton("Dark")
        self.shades.setToolTip("Light or dark colours (Ctrl+D)")
        self.shades.setAccessibleName("Light or dark colours")
        self.query = QLineEdit()
        self.query.setPlaceholderText("Labels, separated by commas, or a sentence")
        self.query.setAccessibleName("Labels or a sentence to sort the pictures by")
        self.query.setToolTip("Ctrl+F")
        self.query.setClearButtonEnabled(True)
        for button in self.query.findChildren(QToolButton):
            button.setAccessibleName("Clear")
        self._chips = QHBoxLayout()
        self._chips.setSpacing(6)
        self._group = QButtonGroup(self)
        self._group.setExclusive(True)
        self.thumbnails = Thumbnails(self)
        self.grid = QListView()
        self._tiles = Tiles(self.thumbnails, self)
        self._set_up_the_grid()
        self.hollow = QLabel("")
        self.hollow.setObjectName("hollow")
        self.hollow.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hollow.setWordWrap(True)
        self.status = QLabel("")
        self.status.setAccessibleName("What is going on")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName("Pictures that are done")
        self.stop = QPushButton("&Stop")
        self.stop.setToolTip("Esc")
        self.go_on = QPushButton("&Go on")
        for label in (self.where, self.hollow, self.status):
            label.setTextFormat(Qt.TextFormat.PlainText)  # names of files and folders may look like HTML
        for widget in (self.bar, self.stop, self.go_on):
            widget.hide()
        self._lay_out()

    def attach(self, desk: Desk) -> None:
        """Show a desk."""
        self._desk = desk
        self.grid.setModel(desk.gallery)
        desk.progress.connect(self._progress)
        desk.settled.connect(self.refresh)
        desk.labelled.connect(self._labelled)
        desk.gallery.modelReset.connect(self.refresh)
        desk.gallery.modelReset.connect(self.thumbnails.renew)
        self.stop.clicked.connect(desk.stop)
        self.go_on.clicked.connect(desk.go_on)

    def say(self, text: str) -> None:
        """Put words where the pictures go; none to show the pictures."""
        self.hollow.setText(text)
        self._middle.setCurrentIndex(1 if text else 0)

    def tell(self, text: str, *, bad: bool = False) -> None:
        """Put words at the foot of the page."""
        self.status.setText(text.replace("\n  hint: ", " – "))
        self.status.setObjectName("bad" if bad else "faint")
        self.status.style().unpolish(self.status)
        self.status.style().polish(self.status)

    def refresh(self) -> None:
        """Show the state of the desk."""
        desk = self._desk
        if desk is None:
            return
        self.where.setText("" if desk.folder is None else _short(desk.folder))
        self.folder.setText("Choose a &folder …" if desk.folder is None else "Another &folder …")
        if desk.folder is None:
            self.say("Choose a folder of pictures.")
        elif not desk.gallery.rowCount():
            none = "Looking for pictures …" if desk.looking else "There are no pictures in this folder."
            self.say("" if desk.info is None or desk.total else none)
        else:
            self.say("")
        self.bar.setVisible(desk.busy)
        self.stop.setVisible(desk.busy)
        self.go_on.setVisible(desk.stopped and not desk.busy and desk.done < desk.total)
        if desk.busy:
            self._progress(desk.done, desk.total)
        elif desk.stopped and desk.done < desk.total:
            self.tell(f"Stopped at {desk.done:,} of {desk.total:,} pictures.")
        elif desk.total:
            self.tell(f"{desk.total:,} pictures" if desk.total != 1 else "1 picture")
        self.thumbnails.forget()
        self.grid.viewport().update()

    # ---- inside ----

    def _progress(self, done: int, total: int) -> None:
        if self.bar.isHidden() and self._desk is not None and self._desk.busy:
            self.bar.show()
            self.stop.show()
            self.go_on.hide()
        self.bar.setMaximum(max(1, total))
        self.bar.setValue(done)
        self.tell(f"Looking at picture {min(done + 1, total):,} of {total:,}")

    def _labelled(self, labels: LabelSet | None) -> None:
        while (item := self._chips.takeAt(0)) is not None:
            chip = item.widget()
            if isinstance(chip, QPushButton):
                self._group.removeButton(chip)
                chip.deleteLater()
        names = [] if labels is None else list(labels.labels)
        self._tiles.labels = min(SHOWN, len(names))
        self.grid.doItemsLayout()
        if len(names) > 1:
            self._chip("Any of them", None).setChecked(True)
            for column, name in enumerate(names[:MOST_CHIPS]):
                self._chip(name, column)
            self._chips.addStretch()
        self.grid.scrollToTop()

    def _chip(self, text: str, column: int | None) -> QPushButton:
        chip = QPushButton(text.replace("&", "&&"))
        chip.setObjectName("chip")
        chip.setCheckable(True)
        chip.setAccessibleName(f"Sort by {text}")
        desk = self._desk
        assert desk is not None

        def sort() -> None:
            desk.gallery.sort_by(column)
            self.grid.scrollToTop()

        chip.clicked.connect(sort)
        self._group.addButton(chip)
        self._chips.addWidget(chip)
        return chip

    def _set_up_the_grid(self) -> None:
        grid = self.grid
        grid.setItemDelegate(self._tiles)
        grid.setViewMode(QListView.ViewMode.IconMode)
        grid.setResizeMode(QListView.ResizeMode.Adjust)
        grid.setMovement(QListView.Movement.Static)
        grid.setUniformItemSizes(True)
        grid.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        grid.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        grid.verticalScrollBar().setSingleStep(40)
        grid.setMouseTracking(True)
        grid.setAccessibleName("Pictures, best first")
        self.thumbnails.ready.connect(lambda _: grid.viewport().update())

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(10)
        top.addWidget(self.folder)
        top.addWidget(self.where, 1)
        top.addWidget(self.model)
        top.addWidget(self.shades)
        foot = QHBoxLayout()
        foot.setSpacing(12)
        foot.addWidget(self.status)
        foot.addWidget(self.bar, 1)
        foot.addWidget(self.stop)
        foot.addWidget(self.go_on)
        foot.setSizeConstraint(QHBoxLayout.SizeConstraint.SetDefaultConstraint)
        holder = QWidget()
        self._middle = QStackedLayout(holder)
        self._middle.addWidget(self.grid)
        self._middle.addWidget(self.hollow)
        column = QVBoxLayout(self)
        column.setContentsMargins(18, 16, 18, 12)
        column.setSpacing(10)
        column.addLayout(top)
        column.addWidget(self.query)
        column.addLayout(self._chips)
        column.addWidget(holder, 1)
        column.addLayout(foot)
        self.grid.setIconSize(QSize(180, 150))


def _short(folder: Path) -> str:
    """A folder as people write it: what lies in their home begins with ``~``."""
    try:
        return str(Path("~") / folder.relative_to(Path.home()))
    except (ValueError, RuntimeError):  # elsewhere; no home
        return str(folder)
