"""Small pictures, decoded in the background as they come into view."""

from __future__ import annotations

from collections import OrderedDict

from PySide6.QtCore import QObject, QRunnable, Qt, QThreadPool, Signal, SignalInstance
from PySide6.QtGui import QImage, QPixmap

MOST = 600  # kept
SIDE = 360  # pixels of the longer side, enough for tiles on screens of double density


class Thumbnails(QObject):
    """Thumbnails by path. What is not there yet is made, and told."""

    ready = Signal(str)
    _made = Signal(str, QImage)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._kept: OrderedDict[str, QPixmap] = OrderedDict()
        self._asked: set[str] = set()
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)  # the engine has better use for the others
        self._made.connect(self._take, Qt.ConnectionType.QueuedConnection)

    def get(self, path: str) -> QPixmap | None:
        """A thumbnail; none if it is yet to be made. One that cannot be made is a null pixmap."""
        kept = self._kept.get(path)
        if kept is not None:
            self._kept.move_to_end(path)
        elif path not in self._asked:
            self._asked.add(path)
            self._pool.start(_Making(path, self._made))
        return kept

    def forget(self) -> None:
        """Drop what waits to be made: it is out of view."""
        self._pool.clear()
        self._asked.clear()

    def renew(self) -> None:
        """Make all anew when they are asked for: files may have changed."""
        self.forget()
        self._kept.clear()

    def close(self) -> None:
        """End the thread."""
        self._pool.clear()
        self._pool.waitForDone()

    def _take(self, path: str, image: QImage) -> None:
        self._asked.discard(path)
        self._kept[path] = QPixmap.fromImage(image)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        self.ready.emit(path)


class _Making(QRunnable):
    def __init__(self, path: str, made: SignalInstance) -> None:
        super().__init__()
        self._path, self._made = path, made

    def run(self) -> None:
        image = small_picture(self._path, SIDE)
        try:
            self._made.emit(self._path, image)
        except RuntimeError:  # the window is gone
            return


def small_picture(path: str, side: int) -> QImage:
    """A picture, upright, at most so many pixels a side; a null image if it cannot be read."""
    from PIL import Image

    from sigrun.errors import PictureError
    from sigrun.pictures import Rules, read_picture

    try:
        opened = read_picture(path, Rules(decode="fast", least=(side, side))).image
    except PictureError:
        return QImage()
    opened.thumbnail((side, side), Image.Resampling.LANCZOS)
    data = opened.convert("RGBA").tobytes()
    return QImage(data, *opened.size, 4 * opened.width, QImage.Format.Format_RGBA8888).copy()
