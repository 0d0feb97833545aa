"""One writer at a time: a lock that goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sigrun.errors import OutputError

FILE = "lock"


@contextmanager
def locked(folder: Path, name: str = FILE, what: str = "this index") -> Iterator[None]:
    """Keep other writers out of a folder.

    The system gives the lock back when its process ends, killed or not: a lock file that lies around means nothing.

    Raises:
        OutputError: another process writes there, or the folder's drive has no locks.
    """
    path = folder / name
    with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            raise OutputError(
                f"{folder}: another process{_owner(file)} is writing to {what}",
                hint="let it finish, or end it: nothing that is done is lost",
            ) from error
        except OSError as error:
            raise OutputError(
                f"{folder}: this drive cannot lock files ({error.strerror or error}), and {what} needs that",
                hint="name a folder on a local disk; the pictures may lie on a network drive",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}".encode("utf-8", "replace"))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def _owner(file: BinaryIO) -> str:
    with contextlib.suppress(OSError):
        file.seek(0)
        said = file.read(200).decode("utf-8", "replace").strip()
        if said.isprintable() and said:
            return f" ({said})"
    return ""


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(1 << 30)  # a byte beyond the text: what is locked cannot be read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
