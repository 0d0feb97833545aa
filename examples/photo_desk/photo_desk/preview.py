"""One picture, large, with every label's score."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPixmap
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from photo_desk import theme
from photo_desk.thumbnails import small_picture
from photo_desk.tiles import percent

LINE = 34
SIDE = 1400  # pixels


class Preview(QDialog):
    """A picture and its scores; Escape closes it."""

    def __init__(
        self, path: str, name: str, scores: Sequence[tuple[str, float]], error: str | None, parent: QWidget
    ) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)  # its parent would keep the picture
        self.setWindowTitle(name)
        self.resize(920, 620)
        row = QHBoxLayout(self)
        row.setContentsMargins(20, 20, 20, 20)
        row.setSpacing(20)
        if error is None:
            row.addWidget(_Picture(QPixmap.fromImage(small_picture(path, SIDE)), name), 1)
        else:
            words = QLabel(error)
            words.setTextFormat(Qt.TextFormat.PlainText)
            words.setObjectName("bad")
            words.setWordWrap(True)
            row.addWidget(words, 1)
        side = QVBoxLayout()
        title = QLabel(name)
        title.setTextFormat(Qt.TextFormat.PlainText)  # a name may look like HTML
        title.setObjectName("title")
        title.setWordWrap(True)
        side.addWidget(title)
        where = QLabel(path)
        where.setTextFormat(Qt.TextFormat.PlainText)
        where.setObjectName("faint")
        where.setWordWrap(True)
        where.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        side.addWidget(where)
        side.addSpacing(8)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setWidget(_Bars(scores))
        side.addWidget(area, 1)
        row.addLayout(side)
        for index in range(side.count()):
            widget = side.itemAt(index).widget()  # type: ignore[union-attr]
            if widget is not None:
                widget.setFixedWidth(290)


class _Picture(QWidget):
    """A picture, as large as there is room."""

    def __init__(self, pixmap: QPixmap, name: str) -> None:
        super().__init__()
        self._pixmap = pixmap
        self.setAccessibleName(name)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 (Qt's name)
        """Draw it."""
        if self._pixmap.isNull():
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        most = self.size().boundedTo(self._pixmap.size() * 6)
        size = self._pixmap.size().scaled(most, Qt.AspectRatioMode.KeepAspectRatio)
        target = QRect(0, 0, size.width(), size.height())
        target.moveCenter(self.rect().center())
        painter.drawPixmap(target, self._pixmap)


class _Bars(QWidget):
    """A bar for every label."""

    def __init__(self, scores: Sequence[tuple[str, float]]) -> None:
        super().__init__()
        self._scores = scores
        self.setMinimumHeight(LINE * len(scores))
        self.setAccessibleName(", ".join(f"{label} {percent(probability)}" for label, probability in scores))

    def sizeHint(self) -> QSize:  # noqa: N802 (Qt's name)
        """Room for all."""
        return QSize(260, LINE * len(self._scores))

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 (Qt's name)
        """Draw them."""
        from PySide6.QtGui import QColor

        c = theme.colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for number, (label, probability) in enumerate(self._scores):
            top, width = number * LINE, self.width() - 8
            line = QRect(0, top, width, 20)
            painter.setPen(QColor(c.text))
            share = percent(probability)
            room = width - painter.fontMetrics().horizontalAdvance(share) - 10
            shown = painter.fontMetrics().elidedText(label, Qt.TextElideMode.ElideRight, room)
            painter.drawText(line, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)
            painter.drawText(line, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, share)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(c.track))
            painter.drawRoundedRect(0, top + 21, width, 6, 3, 3)
            painter.setBrush(QColor(c.accent))
            if probability * width >= 1:
                painter.drawRoundedRect(0, top + 21, max(6, round(width * probability)), 6, 3, 3)
