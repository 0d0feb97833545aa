"""What the app remembers: settings and vectors, in one file of its data folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FILE = "photo-desk.sqlite3"
_TABLES = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
    maker TEXT NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    vector BLOB, error TEXT, PRIMARY KEY (maker, path)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture file as it was when it was looked at.

    Attributes:
        path: its path; it may hold any characters, lone surrogates among them.
        size: bytes.
        mtime: nanoseconds.
    """

    path: str
    size: int
    mtime: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a picture: its vector, float32 as bytes, or why there is none."""

    seen: Seen
    vector: bytes | None
    error: str | None


class Library:
    """One file in the data folder. Where that cannot be written, it remembers until the app ends.

    Args:
        folder: the data folder, made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Path | None = folder
        self.problem: str | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = self._opened(folder / FILE)
        except (OSError, sqlite3.Error) as error:
            self.folder = None
            self.problem = f"Nothing will be remembered: {folder} cannot be used ({error})."
            self._db = sqlite3.connect(":memory:")
            self._db.executescript(_TABLES)

    @staticmethod
    def _opened(path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path)
        try:
            db.execute("PRAGMA synchronous = OFF")  # what is lost with the power is embedded again
            db.executescript(_TABLES)
            db.execute("INSERT OR REPLACE INTO settings VALUES ('format', '1')")
            db.commit()
        except BaseException:
            db.close()
            raise
        return db

    def setting(self, name: str) -> str | None:
        """A setting, none if there is none."""
        found = self._db.execute(
            "SELECT CAST(value AS BLOB) FROM settings WHERE name = ?", (name,)
        ).fetchone()
        return None if found is None else found[0].decode("utf-8", "surrogatepass")

    def set(self, name: str, value: str | None) -> None:
        """Remember a setting, or forget it."""
        if value is None:
            self._write("DELETE FROM settings WHERE name = ?", [(name,)])
        else:
            self._write("INSERT OR REPLACE INTO settings VALUES (?, ?)", [(name, _key(value))])

    def known(self, maker: str, pictures: Iterable[Seen]) -> Iterator[Kept | None]:
        """What is remembered of pictures that have not changed since, in their order.

        Args:
            maker: what makes the vectors; see :func:`photo_desk.desk.maker`.
            pictures: the pictures.
        """
        for seen in pictures:
            try:
                row = self._db.execute(
                    "SELECT vector, error FROM vectors WHERE maker = ? AND path = ? AND size = ? AND mtime = ?",
                    (maker, _key(seen.path), seen.size, seen.mtime),
                ).fetchone()
            except sqlite3.Error:  # the file is damaged, or was taken away: it is embedded again
                row = None
            yield None if row is None else Kept(seen, *row)

    def keep(self, maker: str, rows: Iterable[Kept]) -> None:
        """Remember what became of pictures."""
        self._write(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?, ?)",
            [
                (maker, _key(row.seen.path), row.seen.size, row.seen.mtime, row.vector, row.error)
                for row in rows
            ],
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _write(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        try:
            with self._db:
                self._db.executemany(statement, rows)
        except sqlite3.Error as error:  # the disk is full, or was taken away
            self.problem = f"What is new will not be remembered ({error})."


def _key(text: str) -> bytes:
    """Any text as bytes; SQLite takes none with lone surrogates, which paths may hold."""
    return text.encode("utf-8", "surrogatepass")
