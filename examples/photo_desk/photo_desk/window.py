"""The window: where things are, and what keys do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QModelIndex, QSize, QTimer
from PySide6.QtGui import QCloseEvent, QGuiApplication, QKeySequence, QShortcut
from PySide6.QtWidgets import QApplication, QFileDialog, QMainWindow, QStackedWidget

from photo_desk import theme
from photo_desk.bench import Bench
from photo_desk.desk import Desk
from photo_desk.gallery import ErrorRole
from photo_desk.preview import Preview
from photo_desk.verdicts import Findings, artifacts, look, size
from photo_desk.welcome import Welcome

if TYPE_CHECKING:
    from sigrun import Info

TYPING = 350  # milliseconds without a key, after which labels are looked up


class Window(QMainWindow):
    """The app's only window. It shows at once; :meth:`begin` does the rest."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.setWindowTitle("Photo Desk")
        self.resize(1120, 760)
        self.setMinimumSize(QSize(560, 420))
        self._data = data
        self._scheme = "system"
        self.desk: Desk
        self.welcome = Welcome()
        self.bench = Bench()
        self.pages = QStackedWidget()
        self.pages.addWidget(self.bench)
        self.pages.addWidget(self.welcome)
        self.setCentralWidget(self.pages)
        self.bench.say("One moment …")
        self._typing = QTimer(self, interval=TYPING, singleShot=True)
        self._typing.timeout.connect(self._ask)

    def begin(
        self,
        *,
        artifact: Path | None = None,
        folder: Path | None = None,
        query: str | None = None,
        scheme: str | None = None,
    ) -> None:
        """Open what was told on the command line, or else what was open the last time."""
        self.desk = Desk(self._data, self)
        kept = self.desk.library.setting
        self._paint(scheme or kept("scheme") or "system")
        self.bench.attach(self.desk)
        self._connect()
        if self.desk.library.problem:
            self.bench.tell(self.desk.library.problem, bad=True)
        if query is None:
            query = kept("query") or ""
        self.bench.query.setText(query)
        self._typing.stop()
        self.desk.query = query
        last = kept("folder")
        wanted = folder or (Path(last) if last and Path(last).is_dir() else None)
        if wanted is not None:
            self.desk.folder = wanted.absolute()
        self.bench.refresh()
        known = artifact or (Path(kept("artifact") or "") if kept("artifact") else None)
        if known is not None and (artifact is not None or known.is_file()):
            self.bench.say("Opening the model …")
            self.desk.open_artifact(known)
        else:
            self._ask_for_a_model()

    def _connect(self) -> None:
        desk, bench = self.desk, self.bench
        desk.opened.connect(self._opened)
        desk.refused.connect(self._refused)
        desk.failed.connect(lambda text: bench.tell(text, bad=True))
        self.welcome.chosen.connect(desk.open_artifact)
        self.welcome.back.connect(lambda: self.pages.setCurrentWidget(bench))
        bench.folder.clicked.connect(self.choose_folder)
        bench.model.clicked.connect(self._ask_for_a_model)
        bench.shades.clicked.connect(self._other_shades)
        bench.query.textEdited.connect(lambda: self._typing.start())
        bench.query.returnPressed.connect(self._ask)
        bench.grid.activated.connect(self._preview)
        QGuiApplication.styleHints().colorSchemeChanged.connect(lambda: self._paint(self._scheme))
        for keys, action in (
            ("Ctrl+O", self.choose_folder),
            ("Ctrl+M", self._ask_for_a_model),
            ("Ctrl+F", self._to_the_query),
            ("Ctrl+L", self._to_the_query),
            ("Ctrl+D", self._other_shades),
            ("Esc", desk.stop),
        ):
            QShortcut(QKeySequence(keys), self).activated.connect(action)

    # ---- what is asked for ----

    def choose_folder(self) -> None:
        """Ask for a folder."""
        start = str(self.desk.folder or Path.home())
        name = QFileDialog.getExistingDirectory(self, "Choose a folder of pictures", start)
        if name:
            self.desk.open_folder(Path(name))
            self.bench.refresh()

    def _ask(self) -> None:
        self._typing.stop()
        self.desk.ask(self.bench.query.text())

    def _ask_for_a_model(self) -> None:
        self.pages.setCurrentWidget(self.welcome)
        self.welcome.cancel.setVisible(self.desk.info is not None)
        known = self.desk.library.setting("artifact")
        more = [Path(known)] if known else []
        self.desk.in_background(lambda: look(artifacts(more)), self._found)

    def _found(self, findings: Findings) -> None:
        self.welcome.show_findings(findings)

    def _opened(self, info: Info) -> None:
        self.pages.setCurrentWidget(self.bench)
        self.bench.model.setText(f"{info.manifest.variant} · {size(info.nbytes)}")
        self.bench.refresh()
        (self.bench.query if self.desk.folder is not None else self.bench.folder).setFocus()

    def _refused(self, text: str) -> None:
        self.welcome.show_problem(text)
        if self.pages.currentWidget() is not self.welcome:
            self._ask_for_a_model()
            self.desk.in_background(lambda: None, lambda _: self.welcome.show_problem(text))

    def _to_the_query(self) -> None:
        self.pages.setCurrentWidget(self.bench)
        self.bench.query.setFocus()
        self.bench.query.selectAll()

    def _preview(self, index: QModelIndex) -> None:
        gallery = self.desk.gallery
        place = index.row()
        Preview(
            gallery.path(place), str(index.data()), gallery.scores(place), index.data(ErrorRole), self
        ).open()

    # ---- looks ----

    def _other_shades(self) -> None:
        self._paint("light" if theme.is_dark() else "dark")
        self.desk.library.set("scheme", self._scheme)

    def _paint(self, scheme: str) -> None:
        self._scheme = scheme
        app = QApplication.instance()
        assert isinstance(app, QApplication)
        theme.apply(app, scheme)
        self.bench.shades.setText("Light" if theme.is_dark() else "Dark")
        self.bench.grid.viewport().update()

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 (Qt's name)
        """End all work."""
        self._typing.stop()
        self.bench.thumbnails.close()
        if hasattr(self, "desk"):
            self.desk.close()
        super().closeEvent(event)
