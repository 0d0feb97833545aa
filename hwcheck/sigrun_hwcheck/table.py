"""A table as text and as Markdown, and sentences in lines, as wide as the terminal. Plain ASCII in text, no colours."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, LEAST_WIDTH = 80, 32
"""Columns of a text where there is room, as in a pipe, and where there is hardly any."""


KEPT = "\0"
"""Stands for a space at which no line ends."""


def room() -> int:
    """Columns that there are for a text: 80, or fewer in a narrow terminal."""
    return max(LEAST_WIDTH, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def harmless(words: str) -> str:
    """Words without what a terminal could take for a command: some come from files of strangers."""
    return "".join(c if c.isprintable() or c in f"\n\t{KEPT}" else "?" for c in words)


def plain(words: str) -> str:
    """The same without what a terminal may be unable to show."""
    return harmless(words.encode("ascii", "replace").decode("ascii"))


def wrapped(words: str, *, first: str = "", rest: str = "") -> list[str]:
    """Words in lines of at most 80 columns, fewer in a narrow terminal; names of packages and options stay whole."""
    return textwrap.wrap(
        plain(words),
        room(),
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
        """The table in lines, two spaces between columns. In a narrow terminal that it is too wide for, a paragraph for
        each row."""
        columns, rows = self._filled()
        cells = [tuple(c.heading for c in columns), *rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        if room() < min(WIDTH, sum(widths) + 2 * (len(widths) - 1)):
            for row in rows:
                yield from self._paragraph(columns, row)
            return
        for row in (tuple(map(plain, row)) for row in cells):
            padded = (
                cell.rjust(width) if column.right else cell.ljust(width)
                for cell, width, column in zip(row, widths, columns, strict=True)
            )
            yield "  ".join(padded).rstrip()

    @staticmethod
    def _paragraph(columns: Sequence[Column], row: Sequence[str]) -> Iterator[str]:
        """A row whose first cell has a line of its own, and the others their headings before them."""
        if row[0]:
            yield plain(row[0])
        named = zip(columns[1:], row[1:], strict=True)
        words = [f"{c.heading.strip()} {cell.strip()}".replace(" ", KEPT) for c, cell in named if cell]
        for line in wrapped(", ".join(words), first="  ", rest="  "):
            yield line.replace(KEPT, " ")

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
