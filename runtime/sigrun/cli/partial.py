"""Rows of a long run, kept in a folder beside its output until they are all there.

``FILE.partial`` holds the vectors end to end (``vectors``), the features likewise (``features``), what the run is
(``run.json``), and one line for each part that is finished, with its hashes and errors (``parts.jsonl``). A part
counts once its line is written, after its rows have reached the disk: whatever a killed process left beyond that is
cut off. Parts begin at fixed rows, so that a run in two pieces puts the same pictures together as one in one piece.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import OutputError
from sigrun.locks import only_writer

SUFFIX = ".partial"
FORMAT = 1
RUN, PARTS, VECTORS, FEATURES, LOCK = "run.json", "parts.jsonl", "vectors", "features", "lock"
OURS = {RUN, f"{RUN}.new", PARTS, VECTORS, FEATURES, LOCK}
CHUNK = 1 << 20  # bytes hashed at a time
RESTART = "pass --restart to begin anew, or move the folder away"
WORDS = {
    "items": "the list of items",
    "count": "the number of items",
    "artifact": "the artifact",
    "compute": "--compute",
    "provider": "--provider",
    "decode": "--decode",
    "max_pixels": "--max-megapixels",
    "features": "--features",
    "kind": "what is embedded",
    "part": "Sigrun's version",
    "format": "Sigrun's version",
    "space": "the embedding space",
}
"""What users call the settings of a run."""


@dataclass(frozen=True)
class Part:
    """Some rows, one after the other.

    Attributes:
        vectors: float32 [n, width]; a row that failed is NaN.
        features: float32 [n, tokens, width], if they were asked for.
        errors: row within the part → why it failed.
    """

    vectors: NDArray[np.float32]
    features: NDArray[np.float32] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)


class Partial:
    """The folder of a run; make one with :meth:`opened`.

    Attributes:
        done: rows that are finished.
        errors: row → why it failed, of those.
        folder: where they lie.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, Sequence[int]]) -> None:
        self.folder = folder
        self.done = 0
        self.errors: dict[int, str] = {}
        self._row_bytes = {name: 4 * int(np.prod(shape)) for name, shape in shapes.items()}

    @classmethod
    @contextmanager
    def opened(
        cls,
        output: Path,
        settings: Mapping[str, Any],
        shapes: Mapping[str, Sequence[int]],
        *,
        restart: bool = False,
    ) -> Iterator[Self]:
        """Begin a run, or go on with the one that was left off.

        Args:
            output: the file that is to be written in the end.
            settings: all that the rows follow from; a run with other settings is not gone on with.
            shapes: ``vectors`` and, where wanted, ``features`` → shape of one row.
            restart: throw away what an earlier run left.

        Raises:
            OutputError: the folder is another run's, damaged, in use, or cannot be written.
        """
        folder = output.with_name(output.name + SUFFIX)
        if folder.exists() and not folder.is_dir():
            raise OutputError(
                f"{folder}, where finished rows would lie, is a file", hint="move it away first"
            )
        try:
            folder.mkdir(exist_ok=True)
            alien = sorted({path.name for path in folder.iterdir()} - OURS)
            if alien:
                raise OutputError(
                    f"{folder} holds files that are not Sigrun's: nothing is written there",
                    hint="move it away first",
                )
            with only_writer(folder / LOCK):
                if restart:
                    _emptied(folder)
                partial = cls(folder, shapes)
                partial._resume({"format": FORMAT, **settings})
                yield partial
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot write: {error.strerror or error}",
                hint="what is finished stays there: when this is mended, the same command goes on",
            ) from error

    def _resume(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / RUN
        if not path.exists():
            _emptied(self.folder)
            new = self.folder / f"{RUN}.new"
            new.write_text(json.dumps(settings, indent=1), "utf-8")
            new.replace(path)
        else:
            self._same(settings, path)
        for name in self._row_bytes:
            (self.folder / name).touch()
        log = self.folder / PARTS
        log.touch()
        kept = 0  # bytes of whole lines
        with log.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # the process ended while it wrote this
                self._take(line)
                kept += len(line)
        os.truncate(log, kept)
        for name, size in self._row_bytes.items():
            os.truncate(self.folder / name, self.done * size)

    def _same(self, settings: Mapping[str, Any], path: Path) -> None:
        """Refuse unless an earlier run had the same settings."""
        try:
            before = json.loads(path.read_text("utf-8"))
        except ValueError:
            before = None
        if not isinstance(before, dict):
            raise self._damaged()
        changed = [name for name in settings if settings[name] != before.get(name)]
        if changed:
            words = ", ".join(WORDS.get(name, name) for name in changed)
            raise OutputError(
                f"{self.folder} holds the beginning of another run: {words} changed since then",
                hint=f"repeat that run's command to go on with it, {RESTART}",
            )

    def _take(self, line: bytes) -> None:
        """Count a finished part, after a look at its rows."""
        try:
            part = json.loads(line)
            first, rows, hashes = part["first"], part["rows"], part["sha256"]
            errors = {int(row): str(why) for row, why in part["errors"].items()}
            good = first == self.done and isinstance(rows, int) and rows > 0
        except (ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise self._damaged()
        for name, size in self._row_bytes.items():
            with (self.folder / name).open("rb") as file:
                file.seek(first * size)
                if _hash(file, rows * size) != hashes.get(name):
                    raise self._damaged()
        self.errors |= {first + row: why for row, why in errors.items()}
        self.done += rows

    def _damaged(self) -> OutputError:
        return OutputError(f"{self.folder} is damaged: it cannot be gone on with", hint=RESTART)

    def append(self, part: Part) -> None:
        """Keep finished rows; once this returns they survive whatever happens to the process.

        Raises:
            OSError: they cannot be written.
        """
        hashes = {}
        arrays = {VECTORS: part.vectors, FEATURES: part.features}
        for name, size in self._row_bytes.items():
            array = arrays[name]
            assert array is not None
            data = np.ascontiguousarray(array, "<f4").data.cast("B")
            assert len(data) == len(part.vectors) * size
            hashes[name] = hashlib.sha256(data).hexdigest()
            _write(self.folder / name, self.done * size, data)
        line = {
            "first": self.done,
            "rows": len(part.vectors),
            "sha256": hashes,
            "errors": {str(row): why for row, why in part.errors.items()},
        }
        log = self.folder / PARTS
        _write(log, log.stat().st_size, (json.dumps(line) + "\n").encode("ascii"))
        self.errors |= {self.done + row: why for row, why in part.errors.items()}
        self.done += len(part.vectors)

    def file(self, name: str) -> Path:
        """The file of all ``vectors`` or ``features``, little-endian float32, row after row."""
        return self.folder / name

    def remove(self) -> None:
        """Remove the folder, after it was left; what cannot be removed stays."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, at: int, data: bytes | memoryview) -> None:
    """Write at a place in a file, whatever stands there, and see it on the disk."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _hash(file: BinaryIO, nbytes: int) -> str:
    digest = hashlib.sha256()
    while nbytes > 0 and (data := file.read(min(CHUNK, nbytes))):
        digest.update(data)
        nbytes -= len(data)
    return digest.hexdigest()


def _emptied(folder: Path) -> None:
    for name in OURS - {LOCK}:
        (folder / name).unlink(missing_ok=True)
