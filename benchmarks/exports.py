"""Exports as users run them, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.children import python

WORK = Path(__file__).parent / "work"


@dataclass(frozen=True)
class Export:
    """A finished ``sigrun-export convert``.

    Attributes:
        path: the GGUF file.
        seconds: wall time from start to exit.
        peak_bytes: largest resident memory.
        report: what it says of itself, from its ``.report.json``.
    """

    path: Path
    seconds: float
    peak_bytes: int
    report: dict[str, Any]


def convert(source: Path, variant: str, out: Path, *options: str) -> Export:
    """Export a checkpoint under ``out``, replacing an earlier export; a failed gate is reported, not refused."""
    say(f"export {variant} {' '.join(Path(o).name if o.startswith('/') else o for o in options)}")
    command = ("-m", "sigrun_exporters", "convert", str(source), "--variant", variant, "-o", str(out))
    run = python(*command, "--force", "--allow-failing", *options)
    paths = [Path(line) for line in run.output.splitlines()]
    report = next(p for p in paths if p.name.endswith(".report.json"))
    return Export(paths[0], run.seconds, run.peak_bytes, json.loads(report.read_text("utf-8")))


def need_room(nbytes: int) -> None:
    """Exit if the work folder's disk has less free than this."""
    WORK.mkdir(exist_ok=True)
    free = shutil.disk_usage(WORK).free
    if free < nbytes:
        sys.exit(f"{WORK}: {free / 1e9:.1f} GB free, {nbytes / 1e9:.1f} GB needed")


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
