"""Matrices of form int8 in a file from which ONNX Runtime reads them, one at a time, and lets go of each again.

A prepared folder holds the matrices end to end, then their scales (``matrices``), the hash of each (``sha256``), and
an empty file ``weights``, which graphs name for all that is handed over as arrays. It lies in a cache that outlives
the process, or in a temporary folder. Its name in the cache is a hash of all that the matrices follow from, so one
that does not fit is never found; its content is checked each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sigrun.artifact import Artifact

MATRICES = "sigrun.int8.matrices"
"""The file that graphs name for their int8 matrices; no graph of another layout has this word in it."""
NAMED = "weights"  # the file that graphs name for all else
HASHES = "sha256"
VERSION = 1  # of this layout and of the rounding
ALIGNMENT = 1 << 16  # what Windows asks of a place in a file that is mapped into memory
MOST_BYTES = 4 << 30  # of all that is cached, beyond which the longest unused goes
IN_USE_S = (
    3600  # seconds since its last use in which nothing is dropped: another process may be about to read it
)
SPARE_BYTES = 64 << 20  # to leave free on a disk
CHUNK = 1 << 20  # bytes read at a time
KEY = re.compile("[0-9a-f]{64}")
TEMPORARY = ".sigrun-"  # how folders begin that are being made
TESTED = ".tested"  # suffix of files that say of a key that its self-test passed
OURS = re.compile(
    rf"[0-9a-f]{{64}}({re.escape(TESTED)})?|{re.escape(TEMPORARY)}.+"
)  # all that Sigrun puts into a cache

Cache = str | os.PathLike[str] | Literal["auto"] | None
Scales = dict[str, NDArray[np.float32]]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Place:
    """Where a matrix lies in the file, in bytes."""

    offset: int
    nbytes: int


def places(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Place]:
    """Where each matrix lies: in the order of their names, each at a multiple of ``ALIGNMENT``.

    Graphs and the runtime both follow from this.
    """
    found: dict[str, Place] = {}
    end = 0
    for name in sorted(shapes):
        rows, columns = shapes[name]
        start = end + -end % ALIGNMENT
        found[name] = Place(start, rows * columns)
        end = start + rows * columns
    return found


def cache_folder(cache: Cache) -> Path | None:
    """The folder to cache in, or none.

    Args:
        cache: a folder; ``auto`` for what the environment variable ``SIGRUN_CACHE`` says (a folder, or ``off``), by
            default a folder of the user's caches; none to cache nothing.
    """
    if cache != "auto":
        return None if cache is None else Path(cache).absolute()
    given = os.environ.get("SIGRUN_CACHE")
    if given:
        return None if given == "off" else Path(given).absolute()
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA", ""))
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            named = Path(os.environ.get("XDG_CACHE_HOME", ""))
            base = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return None
    return base / "sigrun" if base.is_absolute() else None


class Matrices:
    """The int8 matrices of one graph.

    Args:
        artifact: the open file.
        names: the weights.
        most: the largest int8 value.
        threads: how many are made or checked side by side; so many are in memory at once.
    """

    def __init__(self, artifact: Artifact, names: list[str], most: int, threads: int) -> None:
        self._artifact = artifact
        self._most = most
        self._threads = threads
        self._places = places({name: artifact.tensors[name].shape for name in names})
        self._end = max(place.offset + place.nbytes for place in self._places.values())

    def key(self) -> str:
        """Hash of all that the matrices and their places follow from."""
        stored = self._artifact.manifest.tensors
        digest = hashlib.sha256(f"{VERSION} {self._most} {sys.byteorder}\n".encode())
        for name in self._places:
            tensor = stored[name]  # the hash of its bytes is checked when they are read
            digest.update(f"{name!r} {tensor.encoding} {tensor.shape} {tensor.sha256}\n".encode())
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self._end + 4 * sum(self._artifact.tensors[name].shape[0] for name in self._places)

    def write(self, folder: Path) -> Scales:
        """Write the files of a prepared folder, which is empty.

        Raises:
            ArtifactError: a weight is damaged.
            OSError: a file cannot be written.
        """
        path = folder / MATRICES
        (folder / NAMED).touch(0o600)
        path.touch(0o600)
        scales: Scales = {}

        def one(name: str) -> tuple[str, NDArray[np.float32], str]:
            rounded = self._artifact.int8(name, self._most)
            self._artifact.release(name)
            with path.open("r+b") as file:
                file.seek(self._places[name].offset)
                file.write(rounded.q.data)
            return name, rounded.scales, hashlib.sha256(rounded.q.data).hexdigest()

        hashes = []
        for name, of_rows, digest in self._each(one):
            scales[name] = of_rows
            hashes.append(digest)
        tail = b"".join(of_rows.tobytes() for of_rows in scales.values())
        with path.open("r+b") as file:
            file.seek(self._end)
            file.write(tail)
        hashes.append(hashlib.sha256(tail).hexdigest())
        (folder / HASHES).touch(0o600)
        (folder / HASHES).write_text("\n".join(hashes), "ascii")
        return scales

    def read(self, folder: Path) -> Scales | None:
        """The scales in a prepared folder, if all in it is as it was written."""
        path = folder / MATRICES
        try:
            hashes = (folder / HASHES).read_text("ascii").split("\n")
            if (
                not _only_ours(folder)
                or path.stat().st_size != self.nbytes
                or (folder / NAMED).stat().st_size
                or len(hashes) != len(self._places) + 1
            ):
                return None

            def one(name: str) -> str:
                place = self._places[name]
                return _hash(path, place.offset, place.nbytes)

            if [_hash(path, self._end, self.nbytes - self._end), *self._each(one)] != [
                hashes[-1],
                *hashes[:-1],
            ]:
                return None
            tail = np.fromfile(path, np.float32, offset=self._end)
            with contextlib.suppress(OSError):  # a cache that is only read has no last use
                os.utime(folder)
        except (OSError, ValueError):  # ValueError: hashes that are not text
            return None
        ends = np.cumsum([self._artifact.tensors[name].shape[0] for name in self._places])
        return dict(zip(self._places, np.split(tail, ends[:-1]), strict=True))

    def _each(self, action: Callable[[str], Made]) -> Iterator[Made]:
        with ThreadPoolExecutor(self._threads) as pool:
            yield from pool.map(action, self._places)


@dataclass
class Prepared:
    """A prepared folder and the scales in it. ``done`` must be called once the session is made."""

    folder: Path
    scales: Scales
    temporary: bool

    def done(self) -> None:
        """Remove a temporary folder; where files in use cannot be removed, when this goes: after the session."""
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.exists():
                weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def prepare(matrices: Matrices, cache: Path | None) -> Prepared | None:
    """A prepared folder: one from the cache, else a new one, which goes into the cache if it can.

    Returns:
        The folder, or none where no disk takes it.

    Raises:
        ArtifactError: a weight is damaged.
    """
    if cache is not None:
        final = cache / matrices.key()
        scales = matrices.read(final)
        if scales is not None:
            return Prepared(final, scales, temporary=False)
        made = _new(matrices, cache)
        if made is not None:
            if not _move(matrices, made.folder, final):
                return made
            _drop_old(cache, final)
            return Prepared(final, made.scales, temporary=False)
    return _new(matrices, None)


def _new(matrices: Matrices, parent: Path | None) -> Prepared | None:
    """A folder written anew, in ``parent`` or where temporary files go; none where that fails."""
    folder: Path | None = None
    try:
        if parent is not None:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=parent))  # mode 0700
        if shutil.disk_usage(folder).free < matrices.nbytes + SPARE_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return Prepared(folder, matrices.write(folder), temporary=True)
    except OSError:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        return None
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _move(matrices: Matrices, folder: Path, final: Path) -> bool:
    """Put a finished folder in its place at once, instead of a damaged one; false where that cannot be."""
    try:
        if os.path.lexists(final):
            if matrices.read(final) is not None:  # another process was faster
                shutil.rmtree(folder, ignore_errors=True)
                return True
            away = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=final.parent))
            try:
                final.rename(away / final.name)
            finally:
                shutil.rmtree(away, ignore_errors=True)
        folder.rename(final)
    except OSError:
        return False
    return True


def _drop_old(cache: Path, kept: Path) -> None:
    """Remove what was not used for longest until the cache is within its limit, and what was left half-made."""
    now = time.time()
    with contextlib.suppress(OSError):
        entries = []
        for path in cache.iterdir():
            used = path.stat().st_mtime
            if path == kept or now - used < IN_USE_S:
                continue
            if path.name.startswith(TEMPORARY):
                shutil.rmtree(path, ignore_errors=True)
            elif KEY.fullmatch(path.name):
                entries.append((used, path))
        total = _cached_bytes(cache)
        for _, path in sorted(entries):
            if total <= MOST_BYTES:
                break
            total -= _nbytes(path)
            shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class CacheEntry:
    """One thing in a cache: the matrices of a graph, a passed self-test, or what was left half-made.

    Attributes:
        path: where it is.
        nbytes: its size.
        used: when it was last used, in seconds since 1970.
    """

    path: Path
    nbytes: int
    used: float


def cache_entries(folder: Path) -> list[CacheEntry]:
    """What Sigrun keeps in a cache folder, the last used first; nothing else that lies there.

    Raises:
        OSError: the folder cannot be read; one that is not there is empty.
    """
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if not OURS.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # another process removed it meanwhile
                about = os.lstat(path)
                parts = list(path.iterdir()) if stat.S_ISDIR(about.st_mode) else [path]
                nbytes = sum(os.lstat(part).st_size for part in parts)
                found.append(CacheEntry(path, nbytes, about.st_mtime))
    return sorted(found, key=lambda entry: (-entry.used, entry.path))


def clear(folder: Path) -> list[CacheEntry]:
    """Remove what Sigrun keeps in a cache folder, and nothing else; models that are loaded go on working.

    Returns:
        What was removed. What is in use on Windows stays.

    Raises:
        OSError: the folder cannot be read.
    """
    removed = []
    for entry in cache_entries(folder):
        if entry.path.is_dir() and not entry.path.is_symlink():
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.path.unlink()
        if not os.path.lexists(entry.path):
            removed.append(entry)
    return removed


def _cached_bytes(cache: Path) -> int:
    return sum(_nbytes(path) for path in cache.iterdir() if KEY.fullmatch(path.name))


def _nbytes(folder: Path) -> int:
    try:
        return (folder / MATRICES).stat().st_size
    except OSError:
        return 0


def _only_ours(folder: Path) -> bool:
    """Whether no other user could have written there. Windows keeps each user's caches to that user."""
    if sys.platform == "win32":
        return True
    about = os.lstat(folder)
    return stat.S_ISDIR(about.st_mode) and about.st_uid in (0, os.geteuid()) and not about.st_mode & 0o022


def _hash(path: Path, offset: int, nbytes: int) -> str:
    """Hash of a part of a file, none of it mapped into memory."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(CHUNK, nbytes)))
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while nbytes > 0:
            count = file.readinto(buffer[: min(len(buffer), nbytes)])
            if not count:
                raise OSError("the file ends too soon")
            digest.update(buffer[:count])
            nbytes -= count
    return digest.hexdigest()
