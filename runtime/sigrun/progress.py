"""Progress on stderr for work over two seconds: a bar on a terminal, elsewhere a line a minute if asked for."""

from __future__ import annotations

import os
import shutil
import sys
import time
from types import TracebackType
from typing import Self, TextIO

QUIET_SECONDS = 2.0
REDRAW_SECONDS = 0.1
LINE_SECONDS = 60.0
BAR_WIDTH = 24
LEAST_BAR = 5


class Progress:
    """Counts work done and draws ``label  [#####.....]  42 %  310/s  0:12 left``, without colours.

    Args:
        label: what is being done.
        total: how much there is, in ``unit``; none where that is not known.
        unit: shown with the rate; numbers are shown as they are.
        stream: where to draw; stderr by default, nothing if it is no terminal.
        done: how much was done before, by an earlier process; it counts for the bar, not for the rate.
        lines: where the stream is no terminal, print a line a minute, for logs of long work.
        quiet: draw and print nothing.
    """

    def __init__(
        self,
        label: str,
        total: float | None,
        unit: str = "",
        stream: TextIO | None = None,
        *,
        done: float = 0.0,
        lines: bool = False,
        quiet: bool = False,
    ) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = done
        self._before = done
        self._stream = sys.stderr if stream is None else stream
        there = self._stream is not None and not quiet
        self._live = there and self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._every = REDRAW_SECONDS if self._live else LINE_SECONDS
        self._drawing = self._live or (there and lines)
        self._start = time.monotonic()
        self._drawn = self._start + (QUIET_SECONDS - REDRAW_SECONDS if self._live else 0.0)
        self._width = 0  # characters of the bar that is drawn

    def advance(self, amount: float = 1.0) -> None:
        """Note that ``amount`` more is done."""
        self.done += amount
        now = time.monotonic()
        if self._drawing and now - self._drawn >= self._every:
            self._drawn = now
            self._draw(now - self._start)

    def _draw(self, seconds: float) -> None:
        rate = (self.done - self._before) / seconds if seconds > 0 else 0.0
        speed = f"{rate:,.1f} {self.unit}/s"
        columns = shutil.get_terminal_size().columns
        if self.total is None:
            line = f"{self.label}  {self.done:,.0f} {self.unit}  {speed}"
        else:
            share = min(1.0, self.done / self.total) if self.total else 1.0
            figures = f" {share:4.0%}  {speed}  {_clock(self.total - self.done, rate)} left"
            if self._live:  # figures say more than a bar: it has what room they leave
                count = _bar(share, columns - 1 - len(self.label) - len(figures))
            else:
                count = f"  {self.done:,.0f} of {self.total:,.0f} {self.unit}"
            line = f"{self.label}{count}{figures}"
        if self._live:
            line = line[: columns - 1]  # a longer one could not be wiped
            self._stream.write(f"\r{line}{' ' * (self._width - len(line))}")
            self._width = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Wipe the bar; the next advance draws it again, so this makes room for a message too."""
        if self._width:
            self._stream.write(f"\r{' ' * self._width}\r")
            self._stream.flush()
            self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bar(share: float, room: int) -> str:
    """A bar of ``BAR_WIDTH`` or what there is room for, with the space before it; none of less than ``LEAST_BAR``."""
    width = min(BAR_WIDTH, room - len("  []"))
    filled = round(share * width)
    return f"  [{'#' * filled}{'.' * (width - filled)}]" if width >= LEAST_BAR else ""


def _clock(left: float, rate: float) -> str:
    """Time left, as ``0:12``, ``3:00:12`` or days."""
    if not rate:
        return "?"
    minutes, seconds = divmod(max(0, round(left / rate)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
