"""Writes results beside their final name and renames them, so that no half file ever bears it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sigrun.errors import OutputError

PARTIAL = ".partial"
_FULL = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG")}  # not every system has all


@contextmanager
def finished(path: Path, *, force: bool, keep: bool = True) -> Iterator[Path]:
    """Give a path to write to; on success it becomes ``path``, on any failure or interrupt it is removed.

    Two writers of one path do not disturb each other: each has a file of its own, and the later to finish is
    refused, or with ``force`` replaces the earlier.

    Args:
        path: the final name.
        force: replace an existing file.
        keep: false for a file that is only needed for the time being: it never gets its name.

    Raises:
        OutputError: the file exists and ``force`` is false, or it cannot be written.
    """
    if keep:
        refuse_existing(path, force=force)
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}{PARTIAL}")
    try:
        partial.open("xb").close()
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield partial
        if keep:
            refuse_existing(path, force=force)
            partial.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def finished_folder(path: Path, *, force: bool, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """As :func:`finished`, for a folder of files: give an empty folder, which becomes ``path`` as a whole.

    Args:
        path: the final name.
        force: replace an existing folder.
        ours: whether an existing folder is one that this program wrote; another is never replaced.

    Raises:
        OutputError: the folder exists and ``force`` is false, or is not ours, or it cannot be written.
    """
    refuse_existing(path, force=force, folder=True)
    if path.exists() and any(path.iterdir()) and not ours(path):
        raise OutputError(
            f"{path} holds files that are not Sigrun's: it is not replaced", hint="move it away first"
        )
    token = secrets.token_hex(6)
    partial = path.with_name(f".{path.name[:40]}.{token}{PARTIAL}")
    old = path.with_name(f".{path.name[:40]}.{token}.old")
    try:
        partial.mkdir()
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield partial
        refuse_existing(path, force=force, folder=True)
        if path.exists():  # a folder cannot be replaced in one step
            path.replace(old)
        partial.replace(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.replace(path)
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def refuse_existing(path: Path, *, force: bool, folder: bool = False) -> None:
    """Raise :class:`OutputError` if ``path`` exists and may not be replaced."""
    if path.exists() and not (path.is_dir() if folder else path.is_file()):
        kind = "folder" if folder else "plain file"
        raise OutputError(f"{path} exists and is not a {kind}, so nothing is written there")
    if os.path.lexists(path) and not force:
        raise OutputError(
            f"{path} exists already",
            hint="pass --force to replace it (with make FORCE=1, in Python force=True)",
        )


def folder_with_room(folder: Path, nbytes: int) -> None:
    """Create ``folder`` and check that ``nbytes`` can be written there.

    Raises:
        OutputError: it cannot be created, or the disk has less room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write to {str(folder)!r}: {reason}") from error
    if free < nbytes:
        raise OutputError(
            f"{folder}: the export needs {nbytes / 2**20:,.0f} MiB while it works, "
            f"the disk has {free / 2**20:,.0f} MiB free",
            hint="free some space, or choose another folder with -o (OUT= with make)",
        )


def write_error(path: Path, error: OSError) -> OutputError:
    """An :class:`OutputError` in plain words for a failed write."""
    if error.errno in _FULL:
        return OutputError(
            f"{path}: the disk is full; nothing was kept", hint="free some space and run it again"
        )
    return OutputError(f"{path}: cannot write: {error.strerror or error}")
