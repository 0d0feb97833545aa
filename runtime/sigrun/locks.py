"""Locks on files that go with their process, however that ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sigrun.errors import OutputError

if sys.platform == "win32":
    import msvcrt

    def lock(file: BinaryIO, at: int = 0) -> None:
        """Lock a file, or raise OSError: BlockingIOError or PermissionError where another process has it.

        Args:
            file: an open file; it is locked until it is closed.
            at: the byte that Windows locks, and lets nobody else read; one beyond the file's end will do.
        """
        file.seek(at)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)

else:
    import fcntl

    def lock(file: BinaryIO, at: int = 0) -> None:
        """Lock a file, or raise OSError: BlockingIOError or PermissionError where another process has it.

        Args:
            file: an open file; it is locked until it is closed.
            at: of use on Windows only.
        """
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Keep other processes out of the folder that a lock file lies in; where the drive has no locks, nobody is.

    Raises:
        OutputError: another process writes there.
    """
    with path.open("a+b") as file:
        try:
            lock(file)
        except (BlockingIOError, PermissionError) as error:
            raise OutputError(
                f"{path.parent}: another process is writing there", hint="let it finish"
            ) from error
        except OSError:  # a network folder without locks
            pass
        yield
