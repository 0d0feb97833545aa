"""The folder of an index: a database of pictures, and a file of vectors that its rows point into.

``index.sqlite`` holds what the index is of and a row a picture; ``vectors.N`` the vectors, N growing with every
compaction. A vector counts once the database says so, which is after it has reached the disk; whatever a killed process
left beyond that is cut off by the next writer. Rows of vectors are never used again within one N, so that a reader who
holds the map sees either a picture's vector or nothing.

The database keeps a rollback journal, not a write-ahead log: the latter needs shared memory, which network drives lack,
and leaves files beside the database that a copy of the folder may miss.
"""

from __future__ import annotations

import itertools
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import ArtifactError, OutputError, SigrunError
from sigrun.gather import safe
from sigrun.search.about import About, damaged
from sigrun.search.locking import FILE as LOCK

FORMAT: Final = "1"
DATABASE: Final = "index.sqlite"
VECTORS: Final = "vectors."
WAIT: Final = 30.0  # seconds that a reader waits for a writer's commit, and the reverse
_SCHEMA: Final = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE pictures (id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,"
    " mtime INTEGER NOT NULL, hash BLOB, row INTEGER UNIQUE, crc INTEGER, error TEXT, hint TEXT, note TEXT)",
    "CREATE INDEX by_size ON pictures (size)",
)


class Store:
    """An open index. Make one with :meth:`create` or :meth:`open`.

    Attributes:
        folder: where it lies.
        about: what it is of.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self.folder = folder
        self.where = safe(str(folder))
        self.db = database
        with self.reading():
            if self.meta("format") != FORMAT:
                raise ArtifactError(
                    f"{self.where}: this version reads indexes of format {FORMAT}, not {self.meta('format')!r}"[
                        :300
                    ],
                    hint="make it again, or use the version of Sigrun that wrote it",
                )
            self.about = About.from_json(self.meta("about"), self.where)

    @classmethod
    def create(cls, folder: Path, about: About) -> Store:
        """Make an empty index, in a folder that is new or empty, or in the place of another.

        Its counters go on from those of the other, so that no reader takes one for the other.

        Raises:
            OutputError: the folder holds other things, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{safe(str(folder))}: cannot write: {error.strerror or error}") from error
        numbers = [path.name.removeprefix(VECTORS) for path in folder.glob(f"{VECTORS}*")]
        generation = max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)
        with _plain(folder):
            if not _sound(folder):
                for name in (f"{DATABASE}-journal", DATABASE):
                    (folder / name).unlink(missing_ok=True)
            db = _connected(folder, "rwc")
            try:
                db.execute("BEGIN IMMEDIATE")
                for table in ("pictures", "meta"):
                    db.execute(f"DROP TABLE IF EXISTS {table}")
                for statement in _SCHEMA:
                    db.execute(statement)
                values = {
                    "format": FORMAT,
                    "about": about.to_json(),
                    "rows": 0,
                    "generation": generation,
                    "changes": secrets.randbelow(1 << 39),
                }
                db.executemany("INSERT INTO meta VALUES (?, ?)", values.items())
                db.execute("COMMIT")
            except BaseException:
                db.close()
                raise
        return cls(folder, db)

    @classmethod
    def open(cls, folder: Path, *, write: bool = False) -> Store:
        """Open an index that exists.

        Raises:
            ArtifactError: there is none, or it is damaged.
            OutputError: it cannot be read now, or not be written.
        """
        if not is_index(folder):
            raise ArtifactError(
                f"{safe(str(folder))} is not an index: it has no file {DATABASE}",
                hint="make one with `sigrun index MODEL FOLDER`",
            )
        with _plain(folder):
            db = _connected(folder, "rw")
            try:
                if write:
                    db.execute("BEGIN IMMEDIATE")
                    db.execute("ROLLBACK")
                return cls(folder, db)
            except BaseException:
                db.close()
                raise

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Several look-ups at one state of the index; errors of the database become plain ones."""
        with _plain(self.folder):
            self.db.execute("BEGIN")
            try:
                yield
            finally:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A change that happens as a whole or not at all."""
        with _plain(self.folder):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("UPDATE meta SET value = value + 1 WHERE key = 'changes'")
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """Errors of the database become plain ones."""
        with _plain(self.folder):
            yield

    def meta(self, key: str) -> object:
        """A value of the table ``meta``, whatever it is, within :meth:`reading`."""
        found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def number(self, key: str) -> int:
        """A counter: ``rows`` that the vector file holds, its ``generation``, or ``changes`` so far.

        Raises:
            ArtifactError: it is missing or cannot be.
        """
        value = self.meta(key)
        if not isinstance(value, int) or not 0 <= value < 1 << 40:
            raise damaged(self.where, f"its number of {key} cannot be {value!r}"[:200])
        return value

    def used(self, count: int) -> NDArray[np.int64]:
        """The rows of vectors that pictures have, rising, within :meth:`reading`.

        Raises:
            ArtifactError: one lies beyond ``count``.
        """
        have = "FROM pictures WHERE row IS NOT NULL"
        found, least, most, odd = self.db.execute(
            f"SELECT count(*), min(row), max(row), sum(typeof(row) <> 'integer') {have}"
        ).fetchone()
        if not found:
            return np.empty(0, np.int64)
        if odd or not 0 <= least <= most < count:
            raise damaged(self.where, f"a picture's vector lies beyond the {count:,} that there are")
        if (least, most) == (0, found - 1):  # no two have the same, so they have all
            return np.arange(found)
        cursor = self.db.execute(f"SELECT row {have} ORDER BY row")
        rows = np.fromiter(itertools.chain.from_iterable(cursor), np.int64)
        if len(rows) != found or (np.diff(rows) <= 0).any():
            raise damaged(self.where, "pictures share a vector")
        return rows

    def set_meta(self, key: str, value: int | str) -> None:
        """Change a counter or text, within :meth:`writing`."""
        self.db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    def set_about(self, about: About) -> None:
        """Change what the index says that it is of, within :meth:`writing`."""
        self.set_meta("about", about.to_json())
        self.about = about

    def vectors(self, generation: int) -> Path:
        """The file of vectors."""
        return self.folder / f"{VECTORS}{generation}"

    def remove_old(self) -> None:
        """Remove vector files that no row points into; one that a reader holds may stay for another time."""
        with self.reading():
            current = self.vectors(self.number("generation")).name
        for path in self.folder.glob(f"{VECTORS}*"):
            if path.name != current and path.name.removeprefix(VECTORS).isdigit():
                try:
                    path.unlink()
                except OSError:  # Windows, while it is mapped
                    continue


def is_index(folder: Path) -> bool:
    """Whether a folder looks like an index."""
    try:
        return (folder / DATABASE).is_file()
    except (OSError, ValueError):
        return False


def begun(folder: Path) -> bool:
    """Whether there is an index, be it damaged: a process may end before its first commit."""
    if not is_index(folder):
        return False
    try:
        db = _connected(folder, "rw")
    except sqlite3.Error:
        return True
    try:
        return bool(db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0])
    except sqlite3.Error:
        return True
    finally:
        db.close()


def _sound(folder: Path) -> bool:
    """Whether the database can be read through, or there is none."""
    if not is_index(folder):
        return True
    try:
        db = _connected(folder, "rw")
        try:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
        finally:
            db.close()
    except sqlite3.OperationalError:  # it is held, or cannot be reached: that says nothing of it
        raise
    except sqlite3.DatabaseError:
        return False


def refuse_foreign(folder: Path) -> None:
    """Raise OutputError if there are files in a folder that are no part of an index."""
    try:
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise OutputError(f"{safe(str(folder))}: cannot be read: {error.strerror or error}") from error
    ours = {DATABASE, f"{DATABASE}-journal", LOCK}
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{safe(str(folder))} exists and is not a folder, so no index is written there")
    if any(name not in ours and not name.startswith((VECTORS, "usearch.")) for name in names):
        raise OutputError(
            f"{safe(str(folder))} holds files that are not of an index: nothing is written there",
            hint="name another folder with -o",
        )


def to_key(relative: str) -> bytes:
    """A path below the indexed folder, as the database has it: with slashes, any bytes that names may have."""
    return os.fsencode(relative if os.sep == "/" else relative.replace(os.sep, "/"))


def from_key(key: object, where: str) -> str:
    """The reverse of :func:`to_key`.

    Raises:
        ArtifactError: this is no path below the folder.
    """
    if (
        not isinstance(key, bytes)
        or not key
        or key.startswith(b"/")
        or b"\0" in key
        or b".." in key.split(b"/")
    ):
        raise damaged(where, f"a picture's path cannot be {key!r}"[:200])
    name = os.fsdecode(key)
    return name if os.sep == "/" else name.replace("/", os.sep)


def _connected(folder: Path, mode: str) -> sqlite3.Connection:
    uri = f"{(folder / DATABASE).absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("trusted_schema = OFF", "synchronous = FULL", "temp_store = FILE"):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _plain(folder: Path) -> Iterator[None]:
    """Errors of SQLite as plain ones."""
    where = safe(str(folder))
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(where, error) from error
    except (TypeError, OverflowError, UnicodeError) as error:  # a value of another kind than was written
        raise damaged(where, f"a value in {DATABASE} cannot be: {error}"[:300]) from error


def _translated(where: str, error: sqlite3.Error) -> SigrunError:
    code = getattr(error, "sqlite_errorcode", None)
    kind = code & 0xFF if isinstance(code, int) else None
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OutputError(f"{where}: another process holds the index", hint="try again when it is done")
    if kind == sqlite3.SQLITE_FULL:
        return OutputError(
            f"{where}: the disk is full; what was finished is kept", hint="free some space and run it again"
        )
    if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return OutputError(f"{where}: cannot be read or written: {error}")
    return damaged(where, f"{DATABASE}: {error}"[:300])
