"""One writer at a time: a lock that goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sigrun.errors import OutputError
from sigrun.locks import lock

FILE = "lock"
UNREAD = 1 << 30  # beyond the text: what is locked cannot be read on Windows


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
            lock(file, UNREAD)
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
