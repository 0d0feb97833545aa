"""Draws a picture as a tile: thumbnail, name, and a bar for each label."""

from __future__ import annotations

from PySide6.QtCore import QObject, QRect, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QPainter, QPainterPath, QPen
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from photo_desk import theme
from photo_desk.gallery import SHOWN, ErrorRole, Index, PathRole, ScoresRole
from photo_desk.thumbnails import Thumbnails

WIDTH = 196
PICTURE = 150  # height of the thumbnail's well
ROW = 27  # height of a label with its bar
EDGE = 10
GAP = 6  # around tiles


class Tiles(QStyledItemDelegate):
    """The tiles of a gallery."""

    def __init__(self, thumbnails: Thumbnails, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._thumbnails = thumbnails
        self.labels = 0  # most that a tile shows

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:  # noqa: N802 (Qt's name)
        """All tiles are alike."""
        rows = min(SHOWN, self.labels) * ROW
        return QSize(WIDTH + 2 * GAP, EDGE + PICTURE + 30 + rows + (EDGE if rows else 4) + 2 * GAP)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        """Draw one."""
        c = theme.colours()
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        rect: QRect = option.rect.adjusted(GAP, GAP, -GAP, -GAP)
        state = option.state
        chosen = bool(state & QStyle.StateFlag.State_Selected)
        over = bool(state & QStyle.StateFlag.State_MouseOver)
        edge = QColor(c.accent if chosen or over else c.line)
        painter.setPen(QPen(edge, 2.0 if chosen else 1.0))
        painter.setBrush(QColor(c.panel))
        painter.drawRoundedRect(QRectF(rect).adjusted(0.5, 0.5, -0.5, -0.5), 12, 12)

        well = QRect(rect.left() + EDGE, rect.top() + EDGE, rect.width() - 2 * EDGE, PICTURE)
        self._picture(painter, well, index)
        top = well.bottom() + 6
        painter.setPen(QColor(c.text))
        painter.setFont(_font(option, 9.5, QFont.Weight.DemiBold))
        name = str(index.data(Qt.ItemDataRole.DisplayRole))
        line = QRect(well.left(), top, well.width(), 20)
        shown = painter.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, line.width())
        painter.drawText(line, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, shown)
        top += 22
        for number, (label, probability) in enumerate(index.data(ScoresRole) or ()):
            bar(
                painter,
                QRect(well.left(), top, well.width(), ROW),
                label,
                probability,
                option,
                first=not number,
            )
            top += ROW
        painter.restore()

    def _picture(self, painter: QPainter, well: QRect, index: Index) -> None:
        c = theme.colours()
        error = index.data(ErrorRole)
        if error:
            painter.fillPath(_rounded(well), QColor(c.well))
            painter.setPen(QColor(c.bad))
            painter.setFont(QFont(painter.font().family(), 9))
            flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(well.adjusted(10, 8, -10, -8), flags, f"Cannot be read:\n{_short(str(error))}")
            return
        pixmap = self._thumbnails.get(str(index.data(PathRole)))
        if pixmap is None or pixmap.isNull():
            painter.fillPath(_rounded(well), QColor(c.well))
            return
        size = pixmap.size().scaled(well.size(), Qt.AspectRatioMode.KeepAspectRatio)
        target = QRect(0, 0, size.width(), size.height())
        target.moveCenter(well.center())
        painter.setClipPath(_rounded(target))
        painter.drawPixmap(target, pixmap)
        painter.setClipping(False)


def _rounded(rect: QRect) -> QPainterPath:
    shape = QPainterPath()
    shape.addRoundedRect(QRectF(rect), 8, 8)
    return shape


def bar(
    painter: QPainter,
    rect: QRect,
    label: str,
    probability: float,
    option: QStyleOptionViewItem,
    *,
    first: bool,
) -> None:
    """Draw a label with its probability, and a bar of that length under them."""
    c = theme.colours()
    text = QRect(rect.left(), rect.top(), rect.width(), 17)
    painter.setFont(_font(option, 9, QFont.Weight.Normal))
    share = percent(probability)
    room = text.width() - painter.fontMetrics().horizontalAdvance(share) - 8
    painter.setPen(QColor(c.text if first else c.faint))
    shown = painter.fontMetrics().elidedText(label, Qt.TextElideMode.ElideRight, room)
    painter.drawText(text, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter, shown)
    painter.drawText(text, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, share)
    track = QRectF(rect.left(), rect.top() + 18, rect.width(), 5)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(c.track))
    painter.drawRoundedRect(track, 2.5, 2.5)
    filled = QColor(c.accent)
    filled.setAlphaF(1.0 if first else 0.55)
    painter.setBrush(filled)
    length = track.width() * probability
    if length >= 1:
        painter.drawRoundedRect(QRectF(track.left(), track.top(), max(length, 5.0), track.height()), 2.5, 2.5)


def percent(probability: float) -> str:
    """A probability as people read it."""
    if probability < 0.001:
        return "< 0.1 %"
    return (
        f"{probability:.1%}".replace("%", " %")
        if probability < 0.1
        else f"{probability:.0%}".replace("%", " %")
    )


def _font(option: QStyleOptionViewItem, points: float, weight: QFont.Weight) -> QFont:
    font = QFont(option.font)
    font.setPointSizeF(points)
    font.setWeight(weight)
    return font


def _short(error: str) -> str:
    """What is wrong, without the path that the tile names already."""
    return error.splitlines()[0].rpartition(": ")[2][:120]
