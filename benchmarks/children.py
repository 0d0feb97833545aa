"""Runs a command as a process of its own and says how long it took and how much memory it needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIB = 2**20
# Linux counts into a process's peak what its parent held when it was started, so a small process in between starts it.
_BETWEEN = """
import json, os, sys, time
report = int(sys.argv[1])
os.set_inheritable(report, False)
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - start
code = os.waitstatus_to_exitcode(status)
os.write(report, json.dumps([start, seconds, usage.ru_maxrss, code]).encode())
"""


@dataclass(frozen=True)
class Run:
    """A finished child process.

    Attributes:
        started: when it was started, as ``time.perf_counter()`` has it in every process.
        seconds: wall time from start to exit.
        peak_bytes: largest resident memory, file pages that were mapped in included.
        output: its stdout.
    """

    started: float
    seconds: float
    peak_bytes: int
    output: str


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; exits with its message if it fails. POSIX only.

    Args:
        command: program and arguments.
        environment: variables to set beside this process's own.
    """
    read, write = os.pipe()
    between = [sys.executable, "-I", "-S", "-c", _BETWEEN, str(write), *command]
    with os.fdopen(read) as report:
        try:
            done = subprocess.run(
                between,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[write],
                check=False,
                env={**os.environ, **(environment or {})},
            )
        finally:
            os.close(write)
        seen = report.read()
    if done.returncode or not seen:
        sys.exit(f"{' '.join(command)}: could not be started")
    started, seconds, peak, code = json.loads(seen)
    if code:
        sys.exit(f"{' '.join(command)}: exit {code}")
    return Run(started, seconds, peak * (1 if sys.platform == "darwin" else 1024), done.stdout)


def python(*arguments: str, environment: Mapping[str, str] | None = None) -> Run:
    """Run this interpreter."""
    return run([sys.executable, *arguments], environment)
