"""Runs a command as a process of its own and says how long it took and how much memory it needed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class Run:
    """A finished child process.

    Attributes:
        seconds: wall time from start to exit.
        peak_bytes: largest resident memory, file pages that were mapped in included.
        output: its stdout.
    """

    seconds: float
    peak_bytes: int
    output: str


def run(command: Sequence[str]) -> Run:
    """Run a command to its end; exits with its message if it fails. POSIX only."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}")
    return Run(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), output)


def python(*arguments: str) -> Run:
    """Run this interpreter."""
    return run([sys.executable, *arguments])
