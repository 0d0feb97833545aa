"""hwcheck's verdict in the app's words: what fits this machine, and which artifacts there are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sigrun_hwcheck import Machine

PLACES = ("models", "../models", "../../models")
"""Folders that may hold artifacts, beside the app and below the working folder."""
MOST = 40


@dataclass(frozen=True)
class Choice:
    """A variant that could be taken.

    Attributes:
        name: of the model.
        variant: of the recipe.
        path: the file; none for a variant that is yet to be exported.
        size: bytes on disk.
        verdict: ``fits``, ``tight``, ``does not fit`` or ``unknown``.
        needs: bytes of memory with both towers loaded, as predicted; none where it is not known.
        problem: why a file cannot be used.
    """

    name: str
    variant: str
    path: Path | None
    size: int
    verdict: str
    needs: int | None
    problem: str | None = None


@dataclass(frozen=True)
class Findings:
    """What hwcheck found.

    Attributes:
        machine: this machine in a line.
        sentence: the advice.
        choices: artifacts, if there are any, else the variants of the default model.
        best: the one that is advised.
    """

    machine: str
    sentence: str
    choices: tuple[Choice, ...]
    best: Choice | None


def artifacts(more: Sequence[Path] = ()) -> list[Path]:
    """The artifacts that lie where artifacts are put, and others that are known."""
    app = Path(sys.executable if getattr(sys, "frozen", False) else __file__).resolve().parent
    found = [path for path in more if path.is_file()]
    for start in (app, Path.cwd()):
        for place in PLACES:
            found += sorted((start / place).glob("**/*.gguf"))[:MOST]
    return list({path.resolve(): path for path in found}.values())


def look(files: Sequence[Path]) -> Findings:
    """Check artifacts, or without any the variants that could be exported."""
    from sigrun_hwcheck import StoredFileError, Verdict, check, from_file

    good, bad = [], []
    for file in files:
        try:
            from_file(str(file))
            good.append(file)
        except StoredFileError as error:
            bad.append(Choice(file.stem, "", file, 0, "unknown", None, error.message))
    report = check(good)
    choices = []
    for stored in report.variants:
        rows = [row for row in report.rows if row.stored is stored and row.place.key in report.judged]
        whole = "both" if len(stored.towers) > 1 else stored.towers[0]
        order: tuple[Verdict, ...] = ("fits", "tight", "unknown", "does not fit")
        judged = sorted(
            (row for row in rows if row.tower == whole), key=lambda row: order.index(row.last.verdict)
        )
        size = stored.file_bytes or sum(tensor.nbytes for tensor in stored.tensors)
        verdict = judged[0].last.verdict if judged else "unknown"
        need = judged[0].last.need.bytes if judged else None
        path = None if stored.path is None else Path(stored.path)
        choices.append(
            Choice(
                stored.model, stored.variant, path, size, verdict, None if need is None else need.best_bytes
            )
        )
    wanted = (report.advice.variant, report.advice.path)
    best = next((c for c in choices if (c.variant, None if c.path is None else str(c.path)) == wanted), None)
    return Findings(_line(report.machine), report.advice.sentence, (*choices, *bad), best)


def _line(machine: Machine) -> str:
    cores = machine.cpu.physical_cores
    parts = [machine.cpu.name or "a processor without a name"]
    if cores is not None:
        parts.append(f"{cores} core{'s' * (cores != 1)}")
    ram = machine.ram
    free = ram.available_bytes if ram.limit_free_bytes is None else ram.limit_free_bytes
    if free is not None:
        parts.append(f"{size(free)} of memory free")
    parts += [card.name for gpus in machine.gpus for card in gpus.cards if card.name]
    return " · ".join(parts)


def size(count: int) -> str:
    """Bytes as people read them."""
    value = count / 2**20
    return (
        f"{value:.1f} MiB"
        if value < 100
        else f"{value:.0f} MiB"
        if value < 1024
        else f"{value / 1024:.1f} GiB"
    )
