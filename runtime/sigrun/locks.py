"""Locks on files that go with their process, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sigrun.errors import OutputError

TRIES = 5  # times that a lock file is opened anew because its last owner took it away meanwhile

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
def only_writer(path: Path, done: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Keep other processes out of the folder that a lock file lies in; where the drive has no locks, nobody is.

    Args:
        path: the lock file.
        done: asked at the end whether nobody needs the file any more: then it is removed.

    Raises:
        OutputError: another process writes there.
    """
    with _owned(path) as file:
        try:
            yield
        finally:
            remove = done()
            if remove and sys.platform != "win32":  # while it is held: else it might be the next owner's
                path.unlink(missing_ok=True)
            file.close()
            if remove and sys.platform == "win32":  # where nobody can remove what somebody has open
                with contextlib.suppress(OSError):
                    path.unlink()


def _owned(path: Path) -> BinaryIO:
    """A lock file, open and locked. It is the one that lies at the path, where others look for it."""
    busy = OutputError(f"{path.parent}: another process is writing there", hint="let it finish")
    for _ in range(TRIES):
        file = path.open("a+b")
        try:
            lock(file)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:  # it was taken away between opening and locking
            pass
        except (BlockingIOError, PermissionError) as error:
            file.close()
            raise busy from error
        except OSError:  # a network folder without locks
            return file
        except BaseException:
            file.close()
            raise
        file.close()
    raise busy
