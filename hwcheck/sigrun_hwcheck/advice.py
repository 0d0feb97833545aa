"""What to do next: one sentence and one command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sigrun_hwcheck.rows import Row
from sigrun_hwcheck.stored import Stored
from sigrun_hwcheck.verdict import Verdict, works

PREFERRED = "q4_k_m"
"""The variant to take where it fits: the smallest whose accuracy is held to fp32 by its recipe's gate."""


@dataclass(frozen=True)
class Advice:
    """A recommended variant (``None``: none fits), a sentence that says why, and the command to run next."""

    variant: str | None
    path: str | None
    sentence: str
    command: str | None


def advise(table: Sequence[Row], batches: Sequence[int]) -> Advice:
    """The advice on a table, judged at some batch sizes on the devices that the runtime can use."""
    usable = [row for row in table if row.device.usable]
    judged = {row_key(row): row.verdict(batches) for row in usable}
    for tower in ("both", "image", "text"):
        rows = [row for row in usable if row.tower == tower]
        fitting = [row for row in rows if works(judged[row_key(row)])]
        if fitting:
            chosen = min(fitting, key=lambda row: _rank(row, judged[row_key(row)]))
            return _take(chosen, judged[row_key(chosen)], batches)
    if any(v == "unknown" for v in judged.values()):
        return Advice(None, None, "It cannot be told whether anything fits: see above what is unknown.", None)
    smallest = min((row.batches[0].need.bytes.best_bytes for row in usable), default=None)
    if smallest is None:
        return Advice(None, None, "There is nothing to check.", None)
    return Advice(
        None, None, "Nothing here fits: free some memory, or try --tower image or --tower text.", None
    )


def row_key(row: Row) -> tuple[str, str, str | None, str]:
    """What tells a row from the others."""
    return row.device.key, row.stored.variant, row.stored.path, row.tower


def _rank(row: Row, verdict: Verdict) -> tuple[bool, bool, int]:
    """Comfort before preference before size."""
    return verdict != "fits", row.stored.variant != PREFERRED, row.batches[0].need.bytes.best_bytes


def _take(row: Row, verdict: Verdict, batches: Sequence[int]) -> Advice:
    what = {"both": "both towers fit", "image": "the image tower fits", "text": "the text tower fits"}[
        row.tower
    ]
    how = "" if verdict == "fits" else ", though tightly: close other programs first"
    size = " and ".join(str(b) for b in sorted(set(batches)))
    sentence = f"Take {row.stored.variant}: {what} at batch {size} on this machine's CPU{how}."
    return Advice(row.stored.variant, row.stored.path, sentence, _command(row.stored, row.tower))


def _command(stored: Stored, tower: str) -> str:
    if stored.path is None:
        return f"sigrun-export convert {stored.model} --variant {stored.variant} --format gguf -o models/"
    file = shlex.quote(stored.path)
    if tower == "text":
        return f'sigrun embed {file} --text "a photo of a cat"'
    if tower == "image":
        return f"sigrun embed {file} photo.jpg"
    return f'sigrun classify {file} photo.jpg --label "a cat" --label "a dog"'
