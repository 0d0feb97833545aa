"""Calls from other threads into the thread of the window."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QObject, Qt, Signal


class Relay(QObject):
    """What ``sigrun.Engine`` takes as ``call``: functions are called in the thread that made the relay."""

    _calls = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls.connect(self._call, Qt.ConnectionType.QueuedConnection)

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called soon; returns at once, from any thread."""
        self._calls.emit(function)

    def _call(self, function: Callable[[], object]) -> None:
        function()
