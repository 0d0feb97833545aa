"""Reads an index while others may write it: its pictures, their vectors, and what could not be read."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import ArtifactError, OutputError
from sigrun.gather import safe
from sigrun.search.about import About, damaged
from sigrun.search.scan import looked_at
from sigrun.search.store import Store, from_key, to_key
from sigrun.search.vectors import Rows

TRIES = 5  # times that a look is begun again because the index was compacted under it
_ASKED = 500  # names that are looked up at once
_BLOCK = 2048  # vectors that are read at once


@dataclass(frozen=True)
class State:
    """An index as it was at one moment.

    Attributes:
        changes: how often it had been changed.
        generation: which file of vectors it had.
        live: rows that pictures have, rising.
        rows: all vectors.
    """

    changes: int
    generation: int
    live: NDArray[np.int64]
    rows: Rows


class Reader:
    """Reads an index; safe to use from several threads.

    Args:
        store: the index; closed by whoever opened it.

    Raises:
        ArtifactError: it is damaged.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._state = self._look()

    def state(self) -> State:
        """The index as it is now."""
        with self._lock:
            with self.store.reading():
                changes = self.store.number("changes")
            if changes != self._state.changes:
                self._state = self._look()
            return self._state

    def _look(self) -> State:
        store = self.store
        for attempt in range(TRIES):
            with store.reading():
                store.about = About.from_json(store.meta("about"), store.where)
                changes, generation = store.number("changes"), store.number("generation")
                count = store.number("rows")
                live = store.used(count)
            about = store.about
            path = store.vectors(generation)
            try:
                rows = Rows(path, count, about.width, about.encoding, store.where)
            except (ArtifactError, OSError):
                if path.exists() or attempt == TRIES - 1:
                    raise
                continue  # compacted this moment
            return State(changes, generation, live, rows)
        raise busy(store)

    def named(self, state: State, rows: NDArray[np.int64]) -> dict[int, str] | None:
        """Row → path, of those that pictures still have; none if the index was compacted since.

        Raises:
            ArtifactError: a vector is not the one that was stored.
        """
        found: dict[int, str] = {}
        wanted = rows.tolist()
        for start in range(0, len(wanted), _ASKED):
            part = wanted[start : start + _ASKED]
            with self._lock, self.store.reading():
                if self.store.number("generation") != state.generation:
                    return None
                marks = ",".join("?" * len(part))
                answer = self.store.db.execute(
                    f"SELECT row, path, crc FROM pictures WHERE row IN ({marks})", part
                ).fetchall()
            for row, key, crc in answer:
                path = self.path(key)
                if zlib.crc32(state.rows.stored(row)) != crc:
                    raise damaged(self.store.where, f"the vector of {safe(path)} has changed")
                found[row] = path
        return found

    def path(self, key: object) -> str:
        """A picture's path, below the folder as that was named."""
        return os.path.join(self.store.about.folder, from_key(key, self.store.where))  # noqa: PTH118

    def vector(self, path: str | os.PathLike[str]) -> NDArray[np.float32] | None:
        """The stored vector of a picture, float32 [width]; none if it is not in the index as it is now."""
        root = os.path.join(os.path.realpath(self.store.about.folder), "")  # noqa: PTH118
        try:
            full = os.path.realpath(os.fspath(path))
        except ValueError:  # a NUL
            return None
        if not full.startswith(root):
            return None
        key = to_key(full.removeprefix(root))
        for _ in range(TRIES):
            state = self.state()
            with self._lock, self.store.reading():
                if self.store.number("generation") != state.generation:
                    continue
                found = self.store.db.execute(
                    "SELECT row, size, mtime FROM pictures WHERE path = ? AND row IS NOT NULL", (key,)
                ).fetchone()
            if found is None or looked_at(full) != (found[1], found[2]):
                return None
            place = int(np.searchsorted(state.live, found[0]))
            if place < len(state.live) and state.live[place] == found[0]:
                vector: NDArray[np.float32] = state.rows.taken(state.live[place : place + 1])[0]
                return vector
        return None

    def pictures(self) -> Iterator[str]:
        """The paths of all pictures that have a vector, sorted."""
        last = b""
        while True:
            with self._lock, self.store.reading():
                found = self.store.db.execute(
                    "SELECT path FROM pictures WHERE path > ? AND row IS NOT NULL ORDER BY path LIMIT ?",
                    (last, _ASKED),
                ).fetchall()
            if not found:
                return
            yield from (self.path(key) for (key,) in found)
            last = found[-1][0]

    def errors(self) -> Iterator[tuple[str, str, str | None]]:
        """Pictures that could not be read: path, why, and the way out if there is one."""
        with self._lock, self.store.reading():
            found = self.store.db.execute(
                "SELECT path, error, hint FROM pictures WHERE row IS NULL ORDER BY path"
            ).fetchall()
        for key, error, hint in found:
            yield self.path(key), str(error), None if hint is None else str(hint)

    def blocks(self) -> Iterator[tuple[NDArray[np.float32], list[tuple[str, int]]]]:
        """All vectors in blocks: float32 [n, width], and which picture has which row of them.

        Raises:
            OutputError: another process compacted the index meanwhile.
        """
        state = self.state()
        for first, part in state.rows.blocks(_BLOCK):
            with self._lock, self.store.reading():
                if self.store.number("generation") != state.generation:
                    raise busy(self.store)
                found = self.store.db.execute(
                    "SELECT path, row FROM pictures WHERE row >= ? AND row < ? ORDER BY row",
                    (first, first + len(part)),
                ).fetchall()
            yield part, [(self.path(key), row - first) for key, row in found]


def busy(store: Store) -> OutputError:
    """An error for an index that is compacted whenever one looks."""
    return OutputError(
        f"{store.where} was compacted by another process while it was read", hint="run it again"
    )
