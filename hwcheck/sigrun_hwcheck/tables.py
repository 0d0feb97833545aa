"""The tables of a report: one line a variant, or one a row with everything that is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from sigrun_hwcheck.memory import TowerChoice
from sigrun_hwcheck.rows import BatchVerdict, Row
from sigrun_hwcheck.stored import Stored
from sigrun_hwcheck.table import Column, Table
from sigrun_hwcheck.units import size
from sigrun_hwcheck.verdict import Verdict
from sigrun_hwcheck.wording import ITEMS, rate

MARKS: dict[Verdict, str] = {"fits": " ", "tight": "~", "does not fit": "!", "unknown": "?"}
LEGEND: dict[Verdict, str] = {
    "tight": "~ tight",
    "does not fit": "! does not fit",
    "unknown": "? cannot be told",
}


def overview(variants: Sequence[Stored], of_place: Sequence[Row]) -> Table:
    """One line a variant: what each tower needs, and the verdict on all of it. ``of_place``: rows of one place."""
    towers: list[TowerChoice] = [t for t in ("image", "text", "both") if any(r.tower == t for r in of_place)]
    forms = {row.compute for row in of_place}
    lines = []
    for _, group in groupby(of_place, key=lambda row: id(row.stored)):
        by_tower = {row.tower: row for row in group}
        whole = next(by_tower[t] for t in ("both", "image", "text") if t in by_tower)
        timed = by_tower.get("image", whole)
        lines.append(
            (
                label(variants, whole.stored),
                whole.compute if len(forms) > 1 else "",
                size(whole.disk_bytes),
                *(_marked(by_tower[t].last) if t in by_tower else "-" for t in towers),
                whole.last.verdict,
                "" if timed.speed is None else rate(timed.speed),
            )
        )
    timed_towers = {row.tower for row in of_place if row.speed is not None}
    items = ITEMS["image" if "image" in timed_towers else "text"]
    return Table(
        (
            Column("variant"),
            Column("form"),
            Column("on disk", right=True),
            *(Column(f"{t} " if t != "both" or len(towers) > 1 else "both ", right=True) for t in towers),
            Column("verdict"),
            Column(f"{items}/s", right=True),
        ),
        tuple(lines),
    )


def marks_used(of_place: Sequence[Row]) -> list[str]:
    """What the marks in an overview mean, of those that are there."""
    found = {row.last.verdict for row in of_place}
    return [words for verdict, words in LEGEND.items() if verdict in found]


def everything(variants: Sequence[Stored], of_place: Sequence[Row]) -> Table:
    """A line for each variant, tower and batch size."""
    several = len({row.compute for row in of_place}) > 1  # one form alone stands above the table
    lines = []
    for _, group in groupby(of_place, key=lambda row: id(row.stored)):
        for i, (row, one) in enumerate((of_tower, b) for of_tower in group for b in of_tower.batches):
            need = one.need
            lines.append(
                (
                    label(variants, row.stored) if i == 0 else "",
                    row.tower,
                    row.compute if several else "",
                    "" if several else size(row.disk_bytes),
                    str(need.batch) if len(row.batches) > 1 else "",
                    size(need.bytes.best_bytes),
                    size(need.bytes.high_bytes),
                    one.verdict,
                    largest(row),
                    need.limiting.name,
                    "" if row.speed is None else rate(row.speed),
                )
            )
    headings = (
        "variant",
        "tower",
        "form",
        "on disk",
        "batch",
        "needs",
        "up to",
        "verdict",
        "at most",
        "mostly",
    )
    right = {"on disk", "batch", "needs", "up to", "at most"}
    columns = (*(Column(h, h in right) for h in headings), Column("items/s", right=True))
    return Table(columns, tuple(lines))


def largest(row: Row) -> str:
    """The largest batch in words."""
    if row.largest_batch is None:
        return "unknown"
    return "any" if row.every_batch else str(row.largest_batch or "none")


def label(variants: Sequence[Stored], stored: Stored) -> str:
    """A variant's name in a table, with its number where there are several files."""
    if stored.path is None or len(variants) == 1:
        return stored.variant
    return f"[{position(variants, stored) + 1}] {stored.variant}"


def position(variants: Sequence[Stored], stored: Stored) -> int:
    """Where a variant stands in the list; the same file may have been given twice."""
    return next(i for i, other in enumerate(variants) if other is stored)


def _marked(one: BatchVerdict) -> str:
    return f"{size(one.need.bytes.best_bytes)}{MARKS[one.verdict]}"
