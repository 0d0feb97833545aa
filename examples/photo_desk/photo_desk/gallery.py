"""The pictures of a folder with their vectors, sorted by how well the labels fit: a model for Qt's views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QAbstractListModel, QModelIndex, QObject, QPersistentModelIndex, Qt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sigrun import LabelSet, Scoring

Index = QModelIndex | QPersistentModelIndex
PathRole = Qt.ItemDataRole.UserRole + 1
ScoresRole = (
    Qt.ItemDataRole.UserRole + 2
)  # [(label, probability), ...], the best, or the one that is sorted by, first
ErrorRole = Qt.ItemDataRole.UserRole + 3
SHOWN = 3  # labels on a tile


class Gallery(QAbstractListModel):
    """Pictures in the order of their scores; those that are yet to be embedded follow, then those that cannot be."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._paths: list[str] = []
        self._vectors: NDArray[np.float32] | None = None  # [n, width]; NaN where there is none yet
        self._errors: dict[int, str] = {}
        self._order: list[int] = []
        self._labels: LabelSet | None = None
        self._scoring: Scoring | None = None
        self._logits: NDArray[np.float32] | None = None  # [n, labels]
        self._column: int | None = None  # the label to sort by; none for whichever fits best

    # ---- what it holds ----

    def fill(self, paths: Sequence[str]) -> None:
        """Show other pictures, none of them embedded."""
        self.beginResetModel()
        self._paths, self._vectors, self._errors, self._logits = list(paths), None, {}, None
        self._order = list(range(len(paths)))
        self.endResetModel()

    def put(self, number: int, vector: NDArray[np.float32] | None, error: str | None) -> None:
        """Note what became of a picture. :meth:`sort` shows it."""
        import numpy as np

        if vector is None:
            self._errors[number] = error or "it cannot be read"
            return
        self._errors.pop(number, None)
        if self._vectors is None or self._vectors.shape[1] != len(vector):
            self._vectors = np.full((len(self._paths), len(vector)), np.nan, np.float32)
        self._vectors[number] = vector

    def set_labels(self, labels: LabelSet | None, scoring: Scoring | None) -> None:
        """Sort by other labels; by name if there are none."""
        self._labels, self._scoring, self._column = labels, scoring, None
        self.sort_again()

    def sort_by(self, column: int | None) -> None:
        """Sort by one of the labels, or by whichever fits best."""
        self._column = column
        self.sort_again()

    def sort_again(self) -> None:
        """Score and sort all pictures anew; the view keeps its selection."""
        self.layoutAboutToBeChanged.emit()
        before = self.persistentIndexList()
        rows = [self._order[index.row()] for index in before]
        self._score()
        places = {number: place for place, number in enumerate(self._order)}
        self.changePersistentIndexList(before, [self.index(places[row]) for row in rows])
        self.layoutChanged.emit()

    def path(self, place: int) -> str:
        """The path of the picture at a place."""
        return self._paths[self._order[place]]

    def scores(self, place: int) -> list[tuple[str, float]]:
        """Every label with its probability, best first; nothing for pictures without a vector."""
        return self._ranked(self._order[place])

    # ---- what views ask for ----

    def rowCount(self, parent: Index | None = None) -> int:  # noqa: N802 (Qt's name)
        """How many pictures there are."""
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What there is to say of a picture."""
        if not index.isValid():
            return None
        number = self._order[index.row()]
        path, error = self._paths[number], self._errors.get(number)
        if role == Qt.ItemDataRole.DisplayRole:
            return PurePath(path).name
        if role == PathRole:
            return path
        if role == ErrorRole:
            return error
        if role == ScoresRole:
            return self._shown(number)
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"{path}\n{error}" if error else path
        if role == Qt.ItemDataRole.AccessibleTextRole:
            said = [f"{label} {probability:.0%}" for label, probability in self._shown(number)]
            return ", ".join([PurePath(path).name, *([f"cannot be read: {error}"] if error else said)])
        return None

    # ---- inside ----

    def _score(self) -> None:
        import numpy as np

        count = len(self._paths)
        self._logits = None
        keys = np.full(count, -np.inf)
        if self._labels is not None and self._scoring is not None and self._vectors is not None:
            from sigrun.scores import logits

            self._logits = logits(self._vectors, self._labels.embeddings.vectors, self._scoring)
            best = self._logits.max(axis=1) if self._column is None else self._logits[:, self._column]
            keys = np.where(np.isfinite(best), best, -np.inf)
        bad = np.zeros(count, np.bool_)
        bad[list(self._errors)] = True
        self._order = [int(number) for number in np.lexsort((np.arange(count), -keys, bad))]

    def _ranked(self, number: int) -> list[tuple[str, float]]:
        from sigrun.scores import probability

        if self._logits is None or self._labels is None or number in self._errors:
            return []
        row = self._logits[number]
        if row[0] != row[0]:  # not embedded yet
            return []
        chances = probability(row)
        return [(self._labels.labels[i], float(chances[i])) for i in (-row).argsort(kind="stable")]

    def _shown(self, number: int) -> list[tuple[str, float]]:
        ranked = self._ranked(number)
        if self._column is not None and self._labels is not None:
            first = self._labels.labels[self._column]
            ranked.sort(key=lambda pair: pair[0] != first)
        return ranked[:SHOWN]
