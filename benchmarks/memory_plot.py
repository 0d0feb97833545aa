"""Draws predicted beside measured peak memory: an interval for each run, a tick for its best figure, a mark for what
was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sigrun import svg

ROW, TOP, LEFT, WIDTH, RIGHT = 18, 74, 250, 420, 130  # pixels
MIB = 2**20
_STYLE = """\
  .interval { fill: #9ec5fe; }
  .best { stroke: #0b4a9e; stroke-width: 2; }
  .measured { fill: #bc4c00; }
  .scale { stroke: #d0d7de; stroke-width: 1; }
"""
_DARK = """\
    .interval { fill: #1f4d8f; }
    .best { stroke: #a5ceff; }
    .measured { fill: #ffa657; }
    .scale { stroke: #30363d; }
"""


@dataclass(frozen=True)
class Row:
    """One run: what it is called, and its peak in bytes, predicted (low, best, high) and measured."""

    name: str
    low: int
    best: int
    high: int
    measured: int


def draw(rows: Sequence[Row]) -> str:
    """The drawing; bytes grow by doubling from left to right. There is one row at least."""
    least = math.floor(math.log2(min(min(r.low, r.measured) for r in rows)))
    most = math.ceil(math.log2(max(max(r.high, r.measured) for r in rows)))
    height = TOP + ROW * len(rows) + 20

    def x(nbytes: int) -> float:
        return round(LEFT + WIDTH * (math.log2(nbytes) - least) / max(1, most - least), 1)

    def body() -> Iterator[str]:
        yield svg.text(12, 24, "Peak memory, predicted and measured", "title")
        yield svg.rect(12, 37, 24, 9, "interval")
        yield svg.text(42, 46, "predicted, low to high")
        yield svg.line(178, 36, 178, 48, "best")
        yield svg.text(186, 46, "best figure")
        yield svg.rect(262, 38, 8, 8, "measured")
        yield svg.text(276, 46, "measured; at the right, in MiB, and best over measured")
        for power in range(least, most + 1):
            yield svg.line(x(2**power), TOP - 6, x(2**power), height - 16, "scale")
            yield svg.text(x(2**power), TOP - 10, _scale(2**power), "middle")
        for number, row in enumerate(rows):
            y = TOP + ROW * number
            words = (
                f"{row.name}: predicted {row.low // MIB} to {row.high // MIB} MiB, best {row.best // MIB} MiB, "
                f"measured {row.measured // MIB} MiB"
            )
            yield from svg.group(
                words,
                [
                    svg.text(LEFT - 12, y + 11, row.name, "end"),
                    svg.rect(x(row.low), y + 2, max(1.0, round(x(row.high) - x(row.low), 1)), 10, "interval"),
                    svg.line(x(row.best), y, x(row.best), y + 14, "best"),
                    svg.rect(x(row.measured) - 3.5, y + 3.5, 7, 7, "measured"),
                    svg.text(
                        LEFT + WIDTH + 16,
                        y + 11,
                        f"{row.measured / MIB:,.0f}   {round(100 * (row.best / row.measured - 1), 1) + 0.0:+.1f} %",
                    ),
                ],
            )

    return svg.document(
        LEFT + WIDTH + RIGHT,
        height,
        title="Peak memory, predicted and measured",
        about=f"{len(rows)} runs; each with the interval predicted, its best figure and what was measured",
        body=body(),
        style=_STYLE,
        dark=_DARK,
    )


def _scale(nbytes: int) -> str:
    return f"{nbytes // MIB} MiB" if nbytes < 2**30 else f"{nbytes // 2**30} GiB"
