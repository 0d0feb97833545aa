"""Copies or moves pictures into folders: never over a file, with a log that says what went where.

The log, ``sigrun-sort.jsonl`` in the folder that is filled, has a line before each file is touched and one after. A run
that was interrupted is gone on with by the same command: what the log says is done is left alone, and what was begun is
finished under the name that it was given.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Literal, Self

from sigrun.errors import OutputError
from sigrun.gather import safe
from sigrun.search.locking import locked
from sigrun.search.scan import hashed

LOG: Final = "sigrun-sort.jsonl"
LOCK: Final = ".sigrun-sort.lock"
PARTIAL: Final = ".sigrun-partial"
MOST_EQUAL: Final = 100_000  # files of one name in a folder
MOST_NAME: Final = 80  # bytes of a folder's name
_FORBIDDEN: Final = set('<>:"/\\|?*')  # in names, by Windows or others
_DEVICES: Final = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}

Action = Literal["copy", "move"]


@dataclass(frozen=True)
class Filed:
    """What became of a picture: where it is now, and whether that was so before this run."""

    path: Path
    before: bool = False


class Filing:
    """A folder that pictures are sorted into; a context manager, which holds its log.

    Args:
        folder: made if it is missing.
        action: copy or move.

    Raises:
        OutputError: the folder cannot be written, another process fills it, or its log is of something else.
    """

    def __init__(self, folder: Path, action: Action) -> None:
        self.folder, self.action = folder, action
        self._held = contextlib.ExitStack()
        self._done: dict[tuple[str, str], Path] = {}
        self._begun: dict[tuple[str, str], Path] = {}
        self._log: BinaryIO

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(locked(self.folder, LOCK, "this folder"))
            self._read()
            self._log = self._held.enter_context((self.folder / LOG).open("ab"))
        except OSError as error:
            self._held.close()
            raise OutputError(f"{safe(str(self.folder))}: cannot write: {error.strerror or error}") from error
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def file(self, source: Path, label: str, probability: float) -> Filed:
        """Copy or move a picture into the folder of its label.

        Raises:
            OutputError: it cannot be done; the picture is where it was.
        """
        origin = os.path.abspath(source)  # noqa: PTH100  (links stay links)
        key = (origin, label)
        done = self._done.get(key)
        if done is not None and done.exists() and not (self.action == "move" and source.exists()):
            return Filed(done, before=True)
        begun = self._begun.get(key)
        try:
            if begun is not None and self._arrived(source, begun):
                self._note("done", origin, begun, label, probability)
                return Filed(begun, before=True)
            if not source.is_file():
                raise OutputError(f"{safe(str(source))}: cannot {self.action} it: it is not there any more")
            inside = self.folder / folder_name(label)
            inside.mkdir(exist_ok=True)
            target = self._reserved(source, inside, begun, label, probability)
            try:
                self._bring(source, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    if source.exists() and target.stat().st_size == 0:
                        target.unlink()
                raise
            self._note("done", origin, target, label, probability)
        except OSError as error:
            raise OutputError(
                f"{safe(str(source))}: cannot {self.action} it: {error.strerror or error}"
            ) from error
        self._done[key] = target
        return Filed(target)

    def _arrived(self, source: Path, target: Path) -> bool:
        """Whether an interrupted run had brought a picture to its place; a move is finished then."""
        if not target.exists() or not target.stat().st_size:
            return False
        if not source.exists():
            return True
        if hashed(str(source)) != hashed(str(target)):
            return False
        if self.action == "move":
            source.unlink()
        return True

    def _reserved(
        self, source: Path, inside: Path, begun: Path | None, label: str, probability: float
    ) -> Path:
        """An empty file of a name that nothing had, which the log holds before it is made."""
        if begun is not None and begun.parent == inside:
            if begun.exists() and begun.stat().st_size == 0:
                return begun  # an interrupted run reserved it
            if not begun.exists():
                begun.open("xb").close()
                return begun
        stem, suffix = os.path.splitext(source.name)  # noqa: PTH122  (of any name)
        for number in range(1, MOST_EQUAL):
            path = inside / (source.name if number == 1 else f"{stem} ({number}){suffix}")
            if os.path.lexists(path):
                continue
            self._note("begun", os.path.abspath(source), path, label, probability)  # noqa: PTH100
            try:
                path.open("xb").close()
            except FileExistsError:  # made by another this moment
                continue
            return path
        raise OutputError(f"{safe(str(inside / source.name))}: there are too many files of this name")

    def _bring(self, source: Path, target: Path) -> None:
        """Replace the reserved file by the picture."""
        if self.action == "move" and not source.is_symlink():
            try:
                source.replace(target)
                return
            except OSError:  # another drive
                pass
        partial = target.with_name(f".{target.name[:60]}{PARTIAL}")
        try:
            with source.open("rb") as read, partial.open("wb") as write:
                shutil.copyfileobj(read, write, 1 << 20)
                write.flush()
                os.fsync(write.fileno())
            if partial.stat().st_size != source.stat().st_size:
                raise OSError(f"it changed while it was copied: {safe(str(source))}")
            shutil.copystat(source, partial)
            partial.replace(target)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        if self.action == "move":
            source.unlink()

    def _note(self, state: str, source: str, target: Path, label: str, probability: float) -> None:
        record = {
            "state": state,
            "action": self.action,
            "from": source,
            "to": os.path.relpath(target, self.folder),
            "label": label,
            "probability": probability,
        }
        self._log.write((json.dumps(record) + "\n").encode("ascii"))
        self._log.flush()
        if state == "begun":
            os.fsync(self._log.fileno())

    def _read(self) -> None:
        """What earlier runs did. A last line that was cut off is taken off."""
        path = self.folder / LOG
        if not path.exists():
            return
        kept = 0
        with path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._take(line)
                kept += len(line)
        os.truncate(path, kept)

    def _take(self, line: bytes) -> None:
        record: Any
        try:
            record = json.loads(line)
            names = ("from", "to", "state", "action", "label")
            source, target, state, action, label = (record[name] for name in names)
            good = all(isinstance(record[name], str) for name in names)
        except (ValueError, KeyError, TypeError, RecursionError):
            good = False
        if not good:
            raise OutputError(f"{safe(str(self.folder / LOG))} is not a log of ours", hint="move it away")
        if action == self.action:
            (self._done if state == "done" else self._begun)[source, label] = self.folder / target


def folder_name(label: str) -> str:
    """A label as the name of a folder that every system takes."""
    text = unicodedata.normalize("NFC", label)
    name = "".join("-" if c in _FORBIDDEN or not c.isprintable() else c for c in text).strip(" .")
    while len(name.encode("utf-8", "replace")) > MOST_NAME:
        name = name[:-1]
    name = name.strip(" .") or "label"
    return f"{name}-" if name.split(".")[0].lower() in _DEVICES else name
