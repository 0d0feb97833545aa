"""What the app does, without widgets: a model, a folder, a query, and what is going on with them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from PySide6.QtCore import QObject, QTimer, Signal

from photo_desk.gallery import Gallery
from photo_desk.library import Kept, Library, Seen
from photo_desk.relay import Relay

if TYPE_CHECKING:
    from sigrun import EmbeddedPicture, Engine, Info, Job, LabelSet

T = TypeVar("T")
SORT_EVERY: Final = 250  # milliseconds, while rows come in
KEEP_EVERY: Final = 64  # rows


class Desk(QObject):
    """The state of the app. Everything here happens in the thread of the window; the work is done elsewhere."""

    opened = Signal(object)  # Info of a model
    refused = Signal(str)  # the model cannot be opened
    progress = Signal(int, int)  # pictures that are done, and that there are
    settled = Signal()  # the run of pictures has ended, however it did
    labelled = Signal(object)  # LabelSet | None
    failed = Signal(str)

    def __init__(self, data: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.library = Library(data)
        self.gallery = Gallery(self)
        self.relay = Relay(self)
        self.info: Info | None = None
        self.folder: Path | None = None
        self.query = ""
        self.done = self.total = 0
        self.stopped = False
        self.looking = False  # for the pictures of a folder
        self._engine: Engine | None = None
        self._pictures: list[Seen] = []
        self._run: Job[Info] | Job[int] | None = None  # to load the image tower, then to embed
        self._labels: Job[LabelSet] | None = None
        self._unkept: list[Kept] = []
        self._background = ThreadPoolExecutor(1, thread_name_prefix="photo-desk")
        self._scans = self._openings = 0
        self._ended = threading.Event()
        self._sorting = QTimer(self, interval=SORT_EVERY, singleShot=True)
        self._sorting.timeout.connect(self.gallery.sort_again)

    @property
    def busy(self) -> bool:
        """Whether pictures are being embedded."""
        return self._run is not None

    def in_background(self, work: Callable[[], T], then: Callable[[T], object]) -> None:
        """Do something that is no business of the model's on another thread."""

        def do() -> None:
            try:
                result = work()
            except Exception as error:
                text = str(error)
                self._later(lambda: self.failed.emit(text))
            else:
                self._later(lambda: then(result))

        if not self._ended.is_set():
            self._background.submit(do)

    # ---- the model ----

    def open_artifact(self, path: Path) -> None:
        """Take another model; ``opened`` or ``refused`` tells how that went."""
        from sigrun import Engine

        prepared = None if self.library.folder is None else self.library.folder / "prepared"
        engine = Engine(path, cache=prepared, call=self._later)
        self._openings += 1
        opening = self._openings

        def loaded(job: Job[Info]) -> None:
            error = None if job.cancelled() else job.exception()
            stale = opening != self._openings  # another was chosen since
            if job.cancelled() or error is not None or stale:
                engine.close(wait=False)
                if error is not None and not stale:
                    self.refused.emit(str(error))
                return
            self._take(engine, job.result())

        engine.load().add_done_callback(loaded)

    def _take(self, engine: Engine, info: Info) -> None:
        self.stop()
        if self._engine is not None:
            self._engine.close(wait=False)
        self._engine, self.info = engine, info
        self.library.set("artifact", str(Path(info.path).absolute()))
        self.gallery.set_labels(None, None)
        self.opened.emit(info)
        if self.folder is not None:
            self.open_folder(self.folder)
        self.ask(self.query)

    # ---- the folder ----

    def open_folder(self, folder: Path) -> None:
        """Show the pictures of another folder, and embed those that are not known."""
        self.stop()
        if folder != self.folder:
            self._pictures, self.done, self.total = [], 0, 0
        self.folder, self.stopped, self.looking = folder, False, True
        self._scans += 1
        scan = self._scans
        # Vectors that another model made mean nothing to this one, and pictures of another folder are not here.
        self.gallery.fill([seen.path for seen in self._pictures])
        self.library.set("folder", str(folder))

        def look() -> tuple[list[Seen], str]:
            try:
                return seen_in(folder, self._ended), ""
            except Exception as error:
                return [], str(error)

        def there(found: tuple[list[Seen], str]) -> None:
            if scan == self._scans:
                pictures, problem = found
                self._fill(pictures)
                if problem:
                    self.failed.emit(problem)

        self.in_background(look, there)

    def _fill(self, found: list[Seen]) -> None:
        self.stop()  # rows are numbered by the pictures before
        self.looking = False
        self._pictures = found
        self.done, self.total = 0, len(found)
        self.gallery.fill([seen.path for seen in found])
        if self._engine is not None and self.info is not None:
            import numpy as np

            for number, kept in enumerate(self.library.known(maker(self.info), found)):
                if kept is not None:
                    vector = None if kept.vector is None else np.frombuffer(kept.vector, np.float32)
                    self.gallery.put(number, vector, kept.error)
                    self.done += 1
        self.gallery.sort_again()
        self.go_on()

    def go_on(self) -> None:
        """Embed the pictures that are not."""
        self.stopped = False
        if self._engine is None or self.info is None or self._run is not None:
            return
        made_by, pictures = maker(self.info), self._pictures
        known = self.library.known(made_by, pictures)
        waiting = [number for number, kept in enumerate(known) if kept is None]
        self.done = len(pictures) - len(waiting)
        if not waiting:
            self.settled.emit()
            return
        self.progress.emit(self.done, self.total)
        if "image" in self.info.running:
            self._embed(made_by, pictures, waiting)
            return

        def loaded(job: Job[Info]) -> None:
            if job is not self._run:
                return  # stopped, or another folder was opened since
            self._run = None
            error = job.exception()
            if error is not None:
                self.stopped = True
                self.failed.emit(str(error))
                self.settled.emit()
                return
            self.info = job.result()
            if maker(self.info) == made_by:
                self._embed(made_by, pictures, waiting)
            else:
                self._fill(pictures)  # with what this compute form made before

        # Before the tower is there, its compute form is what will be tried first.
        load = self._engine.load(["image"])
        self._run = load
        load.add_done_callback(loaded)

    def _embed(self, made_by: str, pictures: list[Seen], waiting: list[int]) -> None:
        def row(done: EmbeddedPicture) -> None:
            number = waiting[done.row]
            error = None if done.error is None else done.error.message
            self.gallery.put(number, done.vector, error)
            vector = None if done.vector is None else done.vector.tobytes()
            cause = None if done.error is None else done.error.__cause__
            if not (isinstance(cause, OSError) and cause.errno):  # what cannot be opened may be the next time
                self._unkept.append(Kept(pictures[number], vector, error))
            if len(self._unkept) >= KEEP_EVERY:
                self._keep(made_by)
            self.done += 1
            self.progress.emit(self.done, self.total)
            if not self._sorting.isActive():
                self._sorting.start()

        def ended(job: Job[int]) -> None:
            if job is not self._run:
                return  # another folder was opened since
            self._run = None
            self._keep(made_by)
            self.gallery.sort_again()
            error = None if job.cancelled() else job.exception()
            if error is not None:
                self.stopped = True
                self.failed.emit(str(error))
            self.settled.emit()

        assert self._engine is not None
        run = self._engine.images([pictures[number].path for number in waiting], on_row=row)
        self._run = run
        run.add_done_callback(ended)

    def stop(self) -> None:
        """Leave off embedding; what is done is kept."""
        run, self._run = self._run, None
        if run is not None:
            run.cancel()
            self.stopped = True
            if self.info is not None:
                self._keep(maker(self.info))
            self.gallery.sort_again()
            self.settled.emit()

    # ---- the query ----

    def ask(self, query: str) -> None:
        """Sort by labels, separated by commas, or by a sentence; ``labelled`` tells when they are known."""
        self.query = query
        labels = list(dict.fromkeys(part.strip() for part in query.split(",") if part.strip()))
        if self._labels is not None:
            self._labels.cancel()
            self._labels = None
        if self._engine is None:
            return
        self.library.set("query", query or None)
        if not labels:
            self.gallery.set_labels(None, None)
            self.labelled.emit(None)
            return

        def known(job: Job[LabelSet]) -> None:
            if job is not self._labels or self.info is None or job.cancelled():
                return
            self._labels = None
            error = job.exception()
            if error is not None:
                self.failed.emit(str(error))
                return
            made = job.result()
            self.gallery.set_labels(made, made.constants(self.info.manifest.scoring))
            self.labelled.emit(made)

        self._labels = self._engine.label_set(labels)
        self._labels.add_done_callback(known)

    def close(self) -> None:
        """End all work; takes as long as the picture at hand."""
        self.stop()
        self._ended.set()
        self._scans += 1
        if self._engine is not None:
            self._engine.close()
        self._background.shutdown(cancel_futures=True)
        self.library.close()

    # ---- inside ----

    def _keep(self, made_by: str) -> None:
        rows, self._unkept = self._unkept, []
        if rows:
            before = self.library.problem
            self.library.keep(made_by, rows)
            if self.library.problem != before:
                self.failed.emit(self.library.problem or "")

    def _later(self, function: Callable[[], object]) -> None:
        if not self._ended.is_set():
            self.relay.call(function)


def maker(info: Info) -> str:
    """What makes vectors: those of two models, variants or compute forms are not taken for one another."""
    image = info.running.get("image")
    form = info.compute if image is None else image.compute
    return f"{info.manifest.space} {info.manifest.weights_sha256} {form}"


def seen_in(folder: Path, ended: threading.Event) -> list[Seen]:
    """The pictures in a folder and the folders in it, as they are now.

    Raises:
        PictureError: the folder cannot be read.
    """
    from sigrun.gather import pictures_in

    pictures = []
    for found in pictures_in(str(folder)):
        if found.error is not None and found.name == str(folder):
            raise found.error
        try:
            stat = os.stat(found.name)  # noqa: PTH116 (a name may hold any characters)
        except OSError:
            continue  # gone since
        pictures.append(Seen(found.name, stat.st_size, stat.st_mtime_ns))
        if ended.is_set():
            break
        if len(pictures) % 1000 == 0:
            time.sleep(0)  # the window comes first
    return pictures
