"""What changed in a folder since it was indexed: new, changed, moved and deleted pictures.

A file whose size and time of change are as they were is not opened. What was found is kept in temporary tables of the
database, so that a folder of any size takes no memory.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sigrun.errors import OutputError, PictureError
from sigrun.gather import Found, pictures_in, safe
from sigrun.search.store import Store, from_key, to_key

MISSING: Final = -1  # size and time of what cannot be looked at, such as a link to nothing
_CHUNK: Final = 1 << 20
_AT_ONCE: Final = 1000
_TABLES: Final = (
    "CREATE TEMP TABLE IF NOT EXISTS todo (n INTEGER PRIMARY KEY, path BLOB UNIQUE, size INTEGER, mtime INTEGER,"
    " known INTEGER, hash BLOB)",
    "CREATE TEMP TABLE IF NOT EXISTS seen (id INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS vanished (id INTEGER PRIMARY KEY, size INTEGER, hash BLOB)",
    "CREATE INDEX IF NOT EXISTS temp.by_content ON vanished (size, hash)",
    "CREATE TEMP TABLE IF NOT EXISTS touched (id INTEGER PRIMARY KEY, path BLOB, mtime INTEGER)",
)


@dataclass
class Changes:
    """What a look at the folder found.

    Attributes:
        unchanged: pictures that stay as they are; those whose time alone changed among them.
        new, changed: pictures to embed.
        moved: pictures that were found elsewhere, by their content.
        removed: pictures that are gone.
        unreadable: folders that could not be searched; their pictures stay in the index.
    """

    unchanged: int = 0
    new: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unreadable: tuple[PictureError, ...] = ()

    @property
    def todo(self) -> int:
        """Pictures to embed."""
        return self.new + self.changed


def scan(
    store: Store,
    root: str,
    *,
    rehash: bool = False,
    retry: bool = False,
    on_found: Callable[[int], object] = lambda _: None,
) -> Changes:
    """Compare a folder with its index, take over what moved and drop what is gone; the rest is left in ``temp.todo``.

    Args:
        store: the index, held by this process alone.
        root: the folder.
        rehash: believe the content of each file, not its size and time.
        retry: try all pictures again that could not be read.
        on_found: called with the number of pictures that were looked at since the last call.

    Raises:
        OutputError: the folder is missing, or has no pictures any more, as when its drive is not there.
    """
    if not Path(root).is_dir():
        raise OutputError(
            f"the indexed folder {safe(root)} is not there",
            hint="mount its drive; or, if it has another name now, give it with the model: "
            "sigrun index MODEL FOLDER -o INDEX",
        )
    with store.plainly():
        for statement in _TABLES:
            store.db.execute(statement)
        for table in ("todo", "seen", "vanished", "touched"):
            store.db.execute(f"DELETE FROM temp.{table}")
        return _Scan(store, root, rehash, retry).run(on_found)


class _Scan:
    def __init__(self, store: Store, root: str, rehash: bool, retry: bool) -> None:
        self.store, self.db, self.root = store, store.db, root
        self.rehash, self.retry = rehash, retry
        self.prefix = os.path.join(root, "")  # noqa: PTH118 (pathlib drops the end)
        self.changes = Changes()
        self.unreadable: list[Found] = []

    def run(self, on_found: Callable[[int], object]) -> Changes:
        self.db.execute("BEGIN")  # of temporary tables alone: nobody waits for it
        looked = 0
        for found in pictures_in(self.root):
            if found.error is not None:
                self.unreadable.append(found)
                continue
            self._look(found.name)
            looked += 1
            on_found(1)
        self.db.execute(
            "INSERT INTO vanished SELECT id, size, hash FROM pictures"
            " WHERE id NOT IN (SELECT id FROM seen) AND id NOT IN (SELECT known FROM todo WHERE known IS NOT NULL)"
        )
        for found in self.unreadable:
            self._spare(found.name)
        (gone,) = self.db.execute("SELECT count(*) FROM vanished").fetchone()
        self.db.execute("COMMIT")
        if gone and not looked:
            raise OutputError(
                f"the indexed folder {safe(self.root)} holds no pictures any more, and the index has {gone:,}",
                hint="mount its drive; if they are really gone, delete the index",
            )
        self._moves()
        self._take_over()
        self.changes.unreadable = tuple(f.error for f in self.unreadable if f.error is not None)
        return self.changes

    def _look(self, path: str) -> None:
        """Put a file among those that stay, or those to embed."""
        key = to_key(path.removeprefix(self.prefix))
        size, mtime = looked_at(path)
        known = self.db.execute(
            "SELECT id, size, mtime, hash, row FROM pictures WHERE path = ?", (key,)
        ).fetchone()
        content = None
        if known is not None:
            number, old_size, old_mtime, old_hash, row = known
            same = (size, mtime) == (old_size, old_mtime) and not (self.retry and row is None)
            if not same or self.rehash:
                same = False
                if size == old_size and old_hash is not None and row is not None:
                    content = hashed(path)
                    same = content == old_hash
                    if same:
                        self.db.execute("INSERT INTO touched VALUES (?, ?, ?)", (number, key, mtime))
            if same:
                self.db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (number,))
                self.changes.unchanged += 1
                return
            self.changes.changed += 1
        else:
            self.changes.new += 1
        self.db.execute(
            "INSERT INTO todo (path, size, mtime, known, hash) VALUES (?, ?, ?, ?, ?)",
            (key, size, mtime, None if known is None else known[0], content),
        )

    def _spare(self, folder: str) -> None:
        """Keep the pictures of a folder that could not be searched."""
        below = folder.removeprefix(self.prefix)
        if folder == self.root:
            self.db.execute("DELETE FROM vanished")
            return
        prefix = to_key(below) + b"/"
        self.db.execute(
            "DELETE FROM vanished WHERE id IN (SELECT id FROM pictures WHERE substr(path, 1, ?) = ?)",
            (len(prefix), prefix),
        )

    def _moves(self) -> None:
        """Find vanished pictures among the new ones: by size first, then by content."""
        last = 0
        while candidates := self.db.execute(
            "SELECT n, path, mtime, size FROM todo WHERE known IS NULL AND n > ?"
            " AND size IN (SELECT size FROM vanished WHERE hash IS NOT NULL) ORDER BY n LIMIT ?",
            (last, _AT_ONCE),
        ).fetchall():
            self.db.execute("BEGIN")
            for n, key, mtime, size in candidates:
                self._move(n, key, mtime, size)
                last = n
            self.db.execute("COMMIT")

    def _move(self, n: int, key: bytes, mtime: int, size: int) -> None:
        """Look for a vanished picture of the same content as a new one."""
        content = hashed(self.prefix + from_key(key, self.store.where))
        self.db.execute("UPDATE todo SET hash = ? WHERE n = ?", (content, n))
        match = self.db.execute(
            "SELECT v.id FROM vanished v JOIN pictures p ON p.id = v.id"
            " WHERE v.size = ? AND v.hash = ? AND p.row IS NOT NULL ORDER BY v.id LIMIT 1",
            (size, content),
        ).fetchone()
        if match is not None:
            self.db.execute("DELETE FROM vanished WHERE id = ?", match)
            self.db.execute("DELETE FROM todo WHERE n = ?", (n,))
            self.db.execute("INSERT INTO touched VALUES (?, ?, ?)", (match[0], key, mtime))
            self.changes.moved += 1
            self.changes.new -= 1

    def _take_over(self) -> None:
        """Put moves, new times and deletions into the index, all at once."""
        (self.changes.removed,) = self.db.execute("SELECT count(*) FROM vanished").fetchone()
        (touched,) = self.db.execute("SELECT count(*) FROM touched").fetchone()
        if not (self.changes.removed or touched):
            return
        with self.store.writing():
            self.db.execute("DELETE FROM pictures WHERE id IN (SELECT id FROM vanished)")
            self.db.execute(
                "UPDATE pictures SET (path, mtime) = (SELECT path, mtime FROM touched t WHERE t.id = pictures.id)"
                " WHERE id IN (SELECT id FROM touched)"
            )


def looked_at(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds of a plain file."""
    try:
        about = Path(path).stat()
    except (OSError, ValueError):
        return MISSING, MISSING
    if not stat.S_ISREG(about.st_mode):
        return MISSING, MISSING
    return about.st_size, about.st_mtime_ns


def hashed(path: str) -> bytes | None:
    """A hash of a file's content; none if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        if not Path(path).is_file():  # nor a pipe, which would be waited for
            return None
        with Path(path).open("rb", buffering=0) as file:
            while data := file.read(_CHUNK):
                digest.update(data)
    except (OSError, ValueError):
        return None
    return digest.digest()
