"""A table as text and as Markdown, and sentences in lines. Plain ASCII in text, no colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH = 80


def wrapped(words: str, *, first: str = "", rest: str = "") -> list[str]:
    """Words in lines of at most 80 columns; names of packages and options stay whole."""
    ascii_only = words.encode("ascii", "replace").decode("ascii")
    return textwrap.wrap(
        ascii_only,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
    )


@dataclass(frozen=True)
class Column:
    """A column: its heading, and whether its cells stand to the right, as numbers do."""

    heading: str
    right: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells; columns without any cell are left out."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> Iterator[str]:
        """The table in lines, two spaces between columns."""
        columns, rows = self._filled()
        cells = [tuple(c.heading for c in columns), *rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        for row in cells:
            padded = (
                cell.rjust(width) if column.right else cell.ljust(width)
                for cell, width, column in zip(row, widths, columns, strict=True)
            )
            yield "  ".join(padded).rstrip()

    def markdown(self) -> Iterator[str]:
        """The table in Markdown."""
        columns, rows = self._filled()
        yield f"| {' | '.join(c.heading or ' ' for c in columns)} |"
        yield f"|{'|'.join('---:' if c.right else '---' for c in columns)}|"
        for row in rows:
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"

    def _filled(self) -> tuple[list[Column], list[Sequence[str]]]:
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        return [self.columns[i] for i in kept], [tuple(row[i] for i in kept) for row in self.rows]
