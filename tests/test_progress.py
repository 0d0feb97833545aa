"""Progress on stderr: a bar on a terminal, lines in a log, nothing where nobody asked."""

from __future__ import annotations

import io
import os

import pytest

from sigrun import progress
from sigrun.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows; the test sets it."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((100, 24)))
    monkeypatch.setenv("TERM", "xterm")
    return now


def drawn(stream: io.StringIO) -> list[str]:
    """What was drawn, in its order."""
    return [line.rstrip() for line in stream.getvalue().split("\r") if line.strip()]


def test_a_bar_shows_share_rate_and_time_left(clock: list[float]) -> None:
    stream = Terminal()
    with Progress("embedding", 100, "items", stream) as bar:
        clock[0] = 1.9
        bar.advance(10)
        assert stream.getvalue() == ""  # short work is not worth a bar
        clock[0] = 4.0
        bar.advance(10)
    assert drawn(stream) == ["embedding  [#####...................]  20%  5.0 items/s  0:16 left"]
    assert stream.getvalue().endswith("\r")
    assert stream.getvalue().split("\r")[-2].strip() == ""


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (60, "embedding  [###..............]  20%  5.0 items/s  0:16 left"),
        (48, "embedding  [#....]  20%  5.0 items/s  0:16 left"),
        (47, "embedding  20%  5.0 items/s  0:16 left"),
        (30, "embedding  20%  5.0 items/s"),
    ],
)
def test_where_room_is_short_the_figures_stay(
    columns: int, line: str, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    stream = Terminal()
    bar = Progress("embedding", 100, "items", stream)
    clock[0] = 4.0
    bar.advance(20)
    assert drawn(stream) == [line]


def test_no_escape_sequence_and_no_line_longer_than_the_terminal(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((30, 24)))
    stream = Terminal()
    with Progress("embedding", 1000, "items", stream) as bar:
        for second in range(3, 9):
            clock[0] = second
            bar.advance()
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\n" not in text
    assert max(map(len, text.split("\r"))) == 29


def test_what_was_done_before_counts_for_the_bar_and_not_for_the_rate(clock: list[float]) -> None:
    stream = Terminal()
    bar = Progress("embedding", 100, "items", stream, done=50)
    clock[0] = 5.0
    bar.advance(10)
    assert drawn(stream) == ["embedding  [##############..........]  60%  2.0 items/s  0:20 left"]


@pytest.mark.parametrize(
    ("total", "seconds", "left"), [(10_000, 10, "2:46:30"), (10**6, 10, "11 days"), (20, 10, "0:10")]
)
def test_long_work_is_told_in_hours_and_days(
    clock: list[float], total: int, seconds: float, left: str
) -> None:
    stream = Terminal()
    bar = Progress("embedding", total, "items", stream)
    clock[0] = seconds
    bar.advance(10)
    assert drawn(stream)[0].endswith(f"1.0 items/s  {left} left")


def test_an_unknown_total_gives_a_count(clock: list[float]) -> None:
    stream = Terminal()
    bar = Progress("scoring", None, "pictures", stream)
    clock[0] = 10.0
    bar.advance(1500)
    assert drawn(stream) == ["scoring  1,500 pictures  150.0 pictures/s"]


def test_a_log_gets_a_line_a_minute_where_asked(clock: list[float]) -> None:
    asked, silent = io.StringIO(), io.StringIO()
    bars = [
        Progress("embedding", 400, "items", asked, lines=True),
        Progress("embedding", 400, "items", silent),
    ]
    for second in range(1, 131):
        clock[0] = second
        for bar in bars:
            bar.advance()
    for bar in bars:
        bar.close()
    assert asked.getvalue() == (
        "embedding  60 of 400 items  15%  1.0 items/s  5:40 left\n"
        "embedding  120 of 400 items  30%  1.0 items/s  4:40 left\n"
    )
    assert silent.getvalue() == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_and_dumb_terminals_get_nothing(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    if not quiet:
        monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    bar = Progress("embedding", 100, "items", stream, quiet=quiet)
    clock[0] = 100.0
    bar.advance()
    bar.close()
    assert stream.getvalue() == ""


def test_a_message_may_come_between(clock: list[float]) -> None:
    stream = Terminal()
    bar = Progress("embedding", 100, "items", stream)
    clock[0] = 3.0
    bar.advance()
    bar.close()
    stream.write("sigrun: error: x.png does not exist\n")
    clock[0] = 4.0
    bar.advance()
    assert stream.getvalue().split("sigrun: error:")[0].endswith("\r")
    assert "  2%  " in stream.getvalue().split("\n")[1]
