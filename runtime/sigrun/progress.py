"""A progress bar on stderr for work over two seconds; silent where stderr is not a terminal or is closed."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

QUIET_SECONDS = 2.0
REDRAW_SECONDS = 0.1
BAR_WIDTH = 24


class Progress:
    """Counts work done and draws ``label  [#####.....]  42 %  310/s  0:12 left``.

    Args:
        label: what is being done.
        total: how much there is, in ``unit``.
        unit: shown with the rate; numbers are shown as they are.
        stream: where to draw; stderr by default, nothing if it is no terminal.
    """

    def __init__(self, label: str, total: float, unit: str = "", stream: TextIO | None = None) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = 0.0
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream is not None and self._stream.isatty()
        self._start = time.monotonic()
        self._drawn = self._start + QUIET_SECONDS - REDRAW_SECONDS
        self._visible = False

    def advance(self, amount: float = 1.0) -> None:
        """Note that ``amount`` more is done."""
        self.done += amount
        now = time.monotonic()
        if self._live and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._draw(now - self._start)

    def _draw(self, seconds: float) -> None:
        share = min(1.0, self.done / self.total) if self.total else 1.0
        rate = self.done / seconds if seconds > 0 else 0.0
        left = (self.total - self.done) / rate if rate else 0.0
        filled = round(share * BAR_WIDTH)
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        minutes, rest = divmod(max(0, round(left)), 60)
        line = f"{self.label}  [{bar}] {share:4.0%}  {rate:,.1f} {self.unit}/s  {minutes}:{rest:02d} left"
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()
        self._visible = True

    def close(self) -> None:
        """Wipe the bar."""
        if self._visible:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._visible = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
