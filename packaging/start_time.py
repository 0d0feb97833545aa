"""Measure how long frozen programs take to start: to the version, and to a window on a screen of its own.

``python packaging/start_time.py dist/sigrun/sigrun --version`` runs a command to its end;
``python packaging/start_time.py --window "Photo Desk" dist/photo_desk/photo_desk`` waits, looking from outside, until a
window of that title is on a screen (Xvfb) and its program has painted it, then ends the program. Linux only for
windows; needs xvfb and x11-utils. The first run is cold only if the machine is.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DEADLINE = 60.0
LOOK_EVERY = 0.005


COLOURS = 3
"""On a painted screen: that of the empty screen, that of the empty window, and one more."""


@dataclass(frozen=True)
class Screen:
    """A screen that nobody sees: its name for DISPLAY, and the file that is its memory."""

    display: str
    buffer: Path


class NotStartedError(Exception):
    """A program failed, or showed no window in time."""


def to_end(command: Sequence[str]) -> float:
    """Seconds until a command has ended.

    Raises:
        NotStartedError: it failed.
    """
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
    took = time.perf_counter() - began
    if done.returncode:
        raise NotStartedError(
            f"exit code {done.returncode}: {done.stderr.decode('utf-8', 'replace').strip()}"
        )
    return took


def to_window(command: Sequence[str], title: str, screen: Screen) -> float:
    """Seconds until a program's window is on the screen and painted.

    Raises:
        NotStartedError: it ended, or showed no such window in time.
    """
    environment = {**os.environ, "DISPLAY": screen.display, "QT_QPA_PLATFORM": "xcb"}
    began = time.perf_counter()
    program = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        while time.perf_counter() - began < DEADLINE:
            if program.poll() is not None:
                said = program.stderr.read().decode("utf-8", "replace") if program.stderr else ""
                raise NotStartedError(f"it ended before there was a window: {said.strip()}")
            if _shows(title, screen, environment):
                return time.perf_counter() - began
            time.sleep(LOOK_EVERY)
        raise NotStartedError(f"no window '{title}' within {DEADLINE:g} s")
    finally:
        program.terminate()
        try:
            program.wait(10)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
        if program.stderr is not None:
            program.stderr.close()


def _shows(title: str, screen: Screen, environment: Mapping[str, str]) -> bool:
    told = subprocess.run(
        ["xwininfo", "-name", title], env=environment, capture_output=True, text=True, check=False
    )
    return (
        not told.returncode and "IsViewable" in told.stdout and colours(screen.buffer.read_bytes()) >= COLOURS
    )


def colours(dump: bytes) -> int:
    """How many colours there are among every 97th pixel of a screen's memory, in the format of ``xwd``."""
    header, entries = int.from_bytes(dump[:4], "big"), int.from_bytes(dump[76:80], "big")
    pixels = dump[header + 12 * entries :]
    return len(set(memoryview(pixels[: len(pixels) // 4 * 4]).cast("I")[::97]))


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """A screen of its own.

    Raises:
        NotStartedError: Xvfb is not installed or does not start.
    """
    for tool in ("Xvfb", "xwininfo"):
        if shutil.which(tool) is None:
            raise NotStartedError(f"{tool} is not installed (apt-get install xvfb x11-utils)")
    read, write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="sigrun-screen-") as folder:
        # Without -noreset the screen begins anew whenever the only program on it, such as xwininfo, ends.
        options = [
            "-displayfd",
            str(write),
            "-screen",
            "0",
            "1280x800x24",
            "-nolisten",
            "tcp",
            "-noreset",
            "-fbdir",
            folder,
        ]
        server = subprocess.Popen(
            ["Xvfb", *options], pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(write)
        try:
            with os.fdopen(read) as pipe:
                number = pipe.readline().strip()
            if not number:
                raise NotStartedError("Xvfb did not start")
            yield Screen(f":{number}", Path(folder) / "Xvfb_screen0")
        finally:
            server.terminate()
            server.wait()


def repeated(measure: Callable[[], float], runs: int) -> str:
    """A line on several runs."""
    took = [measure() for _ in range(runs)]
    return (
        f"median {statistics.median(took):.3f} s, least {min(took):.3f} s, most {max(took):.3f} s, "
        f"first {took[0]:.3f} s ({runs} runs)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description="How long a program takes to start.")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument(
        "--window", metavar="TITLE", help="measure until the window of this title is on a screen"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(argv)
    if not chosen.command:
        parser.error("which program?")
    try:
        if chosen.window is None:
            print(repeated(lambda: to_end(chosen.command), chosen.runs))
        else:
            with screen() as shown:
                print(repeated(lambda: to_window(chosen.command, chosen.window, shown), chosen.runs))
    except (NotStartedError, OSError, subprocess.TimeoutExpired) as error:
        print(f"start_time.py: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
