"""Locks on files that go with their process, however that ends."""

from __future__ import annotations

import sys
from typing import BinaryIO

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
