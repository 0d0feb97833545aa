"""What to do next: one sentence and one command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sigrun_hwcheck.memory import TowerChoice
from sigrun_hwcheck.rows import Row
from sigrun_hwcheck.units import size
from sigrun_hwcheck.verdict import Verdict, works

PREFERRED = "q4_k_m"
"""The variant to take where it fits: the smallest whose accuracy its recipe's gate holds close to fp32."""

WORDS: dict[TowerChoice, str] = {
    "both": "both towers fit",
    "image": "the image tower fits",
    "text": "the text tower fits",
}


@dataclass(frozen=True)
class Advice:
    """What to take (``None``: nothing fits), a sentence that says why, and the command to run next."""

    variant: str | None
    path: str | None
    tower: TowerChoice | None
    sentence: str
    command: str | None


def advise(table: Sequence[Row], batches: Sequence[int]) -> Advice:
    """The advice on a table, judged at some batch sizes on the devices that the runtime can use.

    Both towers come before one, comfort before tightness, then the preferred variant, then the smallest.
    """
    judged = [(row, row.verdict(batches)) for row in table if row.device.usable]
    for tower in WORDS:
        fitting = [(row, verdict) for row, verdict in judged if row.tower == tower and works(verdict)]
        if fitting:
            row, verdict = min(fitting, key=_rank)
            alone = tower != "both" and any(r.tower == "both" and r.stored is row.stored for r, _ in judged)
            return Advice(
                row.stored.variant,
                row.stored.path,
                tower,
                _sentence(row, verdict, alone, batches),
                _command(row),
            )
    return Advice(None, None, None, _refusal(judged), None)


def _rank(entry: tuple[Row, Verdict]) -> tuple[bool, bool, int]:
    row, verdict = entry
    return verdict != "fits", row.stored.variant != PREFERRED, row.batches[0].need.bytes.best_bytes


def _sentence(row: Row, verdict: Verdict, alone: bool, batches: Sequence[int]) -> str:
    counts = " and ".join(str(batch) for batch in sorted(set(batches)))
    how = ", tightly: close other programs first" if verdict == "tight" else ""
    but = " Both towers together do not: use one at a time." if alone else ""
    return f"Take {row.stored.variant}: {WORDS[row.tower]} this machine's RAM at batch {counts}{how}.{but}"


def _refusal(judged: Sequence[tuple[Row, Verdict]]) -> str:
    if not judged:
        return "There is nothing to check: no file has the tower asked for."
    if any(verdict == "unknown" for _, verdict in judged):
        return "Whether it fits cannot be told: see above what is unknown."
    least = min((row for row, _ in judged), key=lambda row: row.batches[0].need.bytes.best_bytes)
    needed = size(least.batches[0].need.bytes.best_bytes)
    return (
        f"Nothing fits: the least, the {least.tower} tower of {least.stored.variant}, needs {needed} and "
        f"{size(least.device.free_bytes)} is free. Free some memory, or raise the container's limit."
    )


def _command(row: Row) -> str:
    stored = row.stored
    if stored.path is None:
        return f"sigrun-export convert {stored.model} --variant {stored.variant} -o models"
    file = shlex.quote(stored.path)
    if row.tower == "text":
        return f'sigrun embed {file} --text "a photo of a cat"'
    if row.tower == "image":
        return f"sigrun embed {file} photo.jpg"
    return f'sigrun classify {file} photo.jpg --label "a cat" --label "a dog"'
