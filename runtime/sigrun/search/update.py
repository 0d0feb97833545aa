"""Brings an index up to date with its folder: interruptible at any moment, and gone on with by the next run."""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sigrun.embeddings import EmbeddedPicture
from sigrun.errors import ArtifactError, OutputError
from sigrun.gather import safe
from sigrun.output import write_error
from sigrun.search.about import About
from sigrun.search.locking import locked
from sigrun.search.scan import hashed
from sigrun.search.store import Store, begun, from_key, is_index, refuse_foreign
from sigrun.search.vectors import Appender, Rows, encoded, stride, sync_folder

BATCH: Final = 256  # pictures that are kept at once; a killed process loses fewer
SECONDS: Final = 5.0  # or those of so long
ASKED: Final = 512  # pictures read from the list of what is to do at a time
HOLES: Final = 0.25  # share of vectors that no picture has, from which on the file is written anew
MOST_NOTE: Final = 2000  # characters

Embed = Callable[[Iterable[str]], Iterator[EmbeddedPicture]]
"""Embeds pictures in their order, as :meth:`sigrun.Siglip.iter_images` does."""
Done = Callable[[str, EmbeddedPicture], object]


@contextmanager
def writer(folder: Path, about: Callable[[], About] | None = None, *, anew: bool = False) -> Iterator[Store]:
    """Hold an index for changing.

    Args:
        folder: the index.
        about: what a new one would be of, asked before anything is written; without, it must exist.
        anew: empty it first.

    Raises:
        OutputError: another process writes there, or the folder is no index, or it cannot be written.
        ArtifactError: it is damaged, or missing and ``about`` is not given.
    """
    if about is None and not is_index(folder):
        Store.open(folder).close()  # says so
    refuse_foreign(folder)
    made = about() if about is not None and (anew or not begun(folder)) else None
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder))
            if made is None or (not anew and begun(folder)):
                store = Store.open(folder, write=True)
            else:
                store = Store.create(folder, made)
            held.callback(store.close)
            store.remove_old()
        except OSError as error:
            raise write_error(folder, error) from error
        yield store


@dataclass(frozen=True)
class _Wanted:
    """A picture to embed."""

    key: bytes
    path: str
    size: int
    mtime: int
    hash: bytes | None


def embed_all(store: Store, root: str, embed: Embed, on_done: Done = lambda _, __: None) -> tuple[int, int]:
    """Embed what :func:`sigrun.search.scan.scan` left to do.

    Args:
        store: the index.
        root: the folder.
        embed: embeds pictures; asked for paths a little ahead of what it gives.
        on_done: called after each picture.

    Returns:
        How many were embedded, and how many could not be read.

    Raises:
        ArtifactError: the index is damaged.
        OutputError: it cannot be written; what was finished is kept.
    """
    with store.reading():
        rows, generation = store.number("rows"), store.number("generation")
    about = store.about
    waiting: deque[_Wanted] = deque()
    ready: list[tuple[_Wanted, EmbeddedPicture]] = []
    counts = [0, 0]
    try:
        path = store.vectors(generation)
        appender = Appender(path, rows, stride(about.width, about.encoding), store.where)
    except OSError as error:
        raise write_error(store.folder, error) from error

    def asked() -> Iterator[str]:
        for wanted in _todo(store, root):
            waiting.append(wanted)
            yield wanted.path

    def keep() -> None:
        nonlocal rows
        if ready:
            rows = _keep(store, appender, rows, ready)
            ready.clear()

    last = time.monotonic()
    try:
        for done in embed(asked()):
            wanted = waiting.popleft()
            ready.append((wanted, done))
            counts[done.vector is None] += 1
            on_done(wanted.path, done)
            if len(ready) >= BATCH or time.monotonic() - last > SECONDS:
                keep()
                last = time.monotonic()
    finally:
        try:
            keep()  # after an interrupt too
        finally:
            appender.close()
    return counts[0], counts[1]


def _todo(store: Store, root: str) -> Iterator[_Wanted]:
    """What is to do, some at a time, each with the hash of its content."""
    last = 0
    while True:
        with store.plainly():
            rows = store.db.execute(
                "SELECT n, path, size, mtime, hash FROM temp.todo WHERE n > ? ORDER BY n LIMIT ?",
                (last, ASKED),
            ).fetchall()
        if not rows:
            return
        for n, key, size, mtime, content in rows:
            path = os.path.join(root, from_key(key, store.where))  # noqa: PTH118 (as the folder was named)
            yield _Wanted(key, path, size, mtime, content or hashed(path))
            last = n


def _keep(store: Store, appender: Appender, rows: int, ready: list[tuple[_Wanted, EmbeddedPicture]]) -> int:
    """Put a batch into the index: its vectors first, and when they are on the disk, the rows that name them."""
    about = store.about
    vectors = [done.vector for _, done in ready if done.vector is not None]
    size = stride(about.width, about.encoding)
    data = encoded(np.stack(vectors), about.encoding) if vectors else b""
    if len(data) != len(vectors) * size:
        raise ArtifactError(
            f"{store.where} is for vectors of {about.width} numbers, and the model gives others"
        )
    try:
        appender.write(rows, data)
    except OSError as error:
        raise OutputError(
            f"{store.where}: the vectors cannot be written: {error.strerror or error}; what was finished is kept",
            hint="when this is mended, the same command goes on",
        ) from error
    records = []
    taken = 0
    for wanted, done in ready:
        row = crc = why = hint = None
        if done.vector is not None:
            row, crc = rows + taken, zlib.crc32(data[taken * size : (taken + 1) * size])
            taken += 1
        elif done.error is not None:
            why, hint = safe(done.error.message)[:MOST_NOTE], safe(done.error.hint or "")[:MOST_NOTE] or None
        note = None if done.note is None else safe(done.note)[:MOST_NOTE]
        records.append((wanted.key, wanted.size, wanted.mtime, wanted.hash, row, crc, why, hint, note))
    with store.writing():
        store.db.executemany(
            "INSERT INTO pictures (path, size, mtime, hash, row, crc, error, hint, note)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET size = excluded.size,"
            " mtime = excluded.mtime, hash = excluded.hash, row = excluded.row, crc = excluded.crc,"
            " error = excluded.error, hint = excluded.hint, note = excluded.note",
            records,
        )
        store.set_meta("rows", rows + taken)
    return rows + taken


def holes(store: Store) -> tuple[int, int]:
    """How many vectors the file holds, and how many of them no picture has."""
    with store.reading():
        rows = store.number("rows")
        (used,) = store.db.execute("SELECT count(row) FROM pictures").fetchone()
    return rows, rows - used


def compact(store: Store) -> None:
    """Write the vectors that pictures have to a new file, in their order, and point the rows there.

    Interrupted, the index is as it was.

    Raises:
        ArtifactError: the index is damaged.
        OutputError: it cannot be written.
    """
    about = store.about
    with store.reading():
        count, generation = store.number("rows"), store.number("generation")
        old = store.used(count)
    rows = Rows(store.vectors(generation), count, about.width, about.encoding, store.where)
    path = store.vectors(generation + 1)
    try:
        with path.open("wb") as file:
            for row in old:
                file.write(rows.stored(int(row)))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(store.folder)
    except OSError as error:
        raise write_error(path, error) from error
    with store.writing():
        # In rising order, so that no two rows ever have one number.
        store.db.executemany(
            "UPDATE pictures SET row = ? WHERE row = ?",
            ((new, int(row)) for new, row in enumerate(old) if new != row),
        )
        store.set_meta("rows", len(old))
        store.set_meta("generation", generation + 1)
    del rows
    store.remove_old()


def check(store: Store) -> Iterator[str]:
    """What is wrong with an index, looked at in full: the database, and the checksum of every vector."""
    about = store.about
    with store.reading():
        for (said,) in store.db.execute("PRAGMA integrity_check").fetchall():
            if said != "ok":
                yield str(said)
        count, generation = store.number("rows"), store.number("generation")
        pictures = store.db.execute("SELECT path, row, crc FROM pictures WHERE row IS NOT NULL").fetchall()
    rows = Rows(store.vectors(generation), count, about.width, about.encoding, store.where)
    for key, row, crc in pictures:
        name = from_key(key, store.where)
        if not isinstance(row, int) or not 0 <= row < count:
            yield f"{safe(name)}: its vector lies beyond the end"
        elif zlib.crc32(rows.stored(row)) != crc:
            yield f"{safe(name)}: its vector is damaged"
