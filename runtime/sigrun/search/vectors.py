"""Vectors in a file, row after row, without a heading: float16, or int8 with a factor a row.

======== ==========================================================================================
float16  ``width`` numbers, little-endian
int8     ``width`` numbers, then a float32, little-endian, which times the numbers is the vector
======== ==========================================================================================

Both are read through a memory map, a block at a time, so that a search takes little memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sigrun.search.about import Encoding, damaged

BLOCK: Final = 256  # rows; with their float32 form they stay in a core's cache
_SHIFT: Final = np.float32(2.0**112)  # between the exponents of float16 and float32
_KEPT: Final = np.int32(~0x70000000)  # all bits but copies of the sign


def stride(width: int, encoding: Encoding) -> int:
    """Bytes of a row."""
    return 2 * width if encoding == "float16" else width + 4


def encoded(vectors: NDArray[np.float32], encoding: Encoding) -> bytes:
    """Unit vectors, float32 [n, width], as they are stored."""
    if encoding == "float16":
        return vectors.astype("<f2").tobytes()
    most = np.abs(vectors).max(axis=1, keepdims=True)
    codes = np.rint(vectors * (127 / np.maximum(most, 1e-30))).astype(np.int8)
    rows = np.empty(len(vectors), _structure(vectors.shape[1]))
    rows["codes"] = codes
    # The factor that makes the stored vector one of unit length again.
    rows["factor"] = 1 / np.maximum(np.linalg.norm(codes.astype(np.float32), axis=1), 1)
    return rows.tobytes()


class Rows:
    """Stored vectors, mapped into memory.

    Args:
        path: their file.
        count: rows that count; what lies beyond is left from an interrupt.
        width: numbers of a vector.
        encoding: how they are stored.
        where: the index, for messages.

    Raises:
        ArtifactError: the file is missing or too short.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, count: int, width: int, encoding: Encoding, where: str) -> None:
        self.count, self.width, self.encoding, self._where = count, width, encoding, where
        size = path.stat().st_size if path.is_file() else 0  # an empty index has none
        if size < count * stride(width, encoding):
            raise damaged(where, f"{path.name} should hold {count:,} vectors, and has {size:,} bytes")
        kind: Any = np.dtype("<i2") if encoding == "float16" else _structure(width)
        shape = (count, width) if encoding == "float16" else (count,)
        self._map: NDArray[Any] = np.memmap(path, kind, "r", shape=shape) if count else np.empty(shape, kind)

    def __len__(self) -> int:
        return self.count

    def stored(self, row: int) -> bytes:
        """The bytes of a row."""
        return self._map[row : row + 1].tobytes()

    def taken(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some vectors, float32 [n, width]."""
        return self._decoded(self._map[rows])

    def vectors(self, start: int, stop: int) -> NDArray[np.float32]:
        """Vectors of neighbouring rows, float32 [n, width]."""
        return self._decoded(self._map[start:stop])

    def cosines(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """The cosine of every row with unit vectors [t, width], float32 [rows, t].

        Raises:
            ArtifactError: a number in the file cannot be part of a unit vector.
        """
        result = np.empty((self.count, len(queries)), np.float32)
        turned = np.ascontiguousarray(queries.T)
        if self.encoding == "float16":
            turned = turned * _SHIFT
        room = np.empty((BLOCK, self.width), np.int32)
        floats = room.view(np.float32)
        for start in range(0, self.count, BLOCK):
            part = self._map[start : start + BLOCK]
            out = result[start : start + len(part)]
            if self.encoding == "float16":
                np.matmul(_widened(part, room[: len(part)]), turned, out=out)
            else:
                np.copyto(floats[: len(part)], part["codes"])
                np.matmul(floats[: len(part)], turned, out=out)
                out *= part["factor"][:, np.newaxis]
        if len(result) and not np.abs(result).max() <= 1.05:
            raise damaged(self._where, "a vector is not of unit length")
        return result

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All vectors in blocks: the first row of each, and float32 [n, width]."""
        for start in range(0, self.count, size):
            yield start, self.vectors(start, min(start + size, self.count))

    def _decoded(self, part: NDArray[Any]) -> NDArray[np.float32]:
        if self.encoding == "float16":
            wide: NDArray[np.float32] = _widened(part, np.empty(part.shape, np.int32)) * _SHIFT
            return wide
        result: NDArray[np.float32] = part["codes"].astype(np.float32) * part["factor"][:, np.newaxis]
        return result


def _widened(part: NDArray[np.int16], room: NDArray[np.int32]) -> NDArray[np.float32]:
    """The bits of float16 numbers as float32 numbers that are exactly 2^112 times smaller.

    This is several times faster than a conversion by NumPy, and gives the same numbers. Infinities and NaN, which no
    unit vector holds, become large numbers.
    """
    np.copyto(room, part)
    np.left_shift(room, 13, out=room)
    np.bitwise_and(room, _KEPT, out=room)
    return room.view(np.float32)


def _structure(width: int) -> np.dtype[Any]:
    return np.dtype([("codes", "i1", (width,)), ("factor", "<f4")])


class Appender:
    """Writes rows to the end of a vector file, each batch on the disk before it returns.

    Args:
        path: the file, made if it is missing and no rows count yet.
        count: rows that count; what lies beyond is cut off.
        nbytes: bytes of a row.
        where: the index, for messages.

    Raises:
        ArtifactError: the file is shorter than ``count`` rows.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, count: int, nbytes: int, where: str) -> None:
        self._nbytes, end = nbytes, count * nbytes
        new = not path.exists()
        if new and count:
            raise damaged(where, f"{path.name} is missing")
        self._file = path.open("w+b" if new else "r+b", buffering=0)
        try:
            if new:
                sync_folder(path.parent)
            size = os.fstat(self._file.fileno()).st_size
            if size < end:
                raise damaged(where, f"{path.name} should hold {end:,} bytes, and has {size:,}")
            if size > end:
                os.truncate(self._file.fileno(), end)
        except BaseException:
            self._file.close()
            raise

    def write(self, row: int, data: bytes) -> None:
        """Write whole rows at their place, over what stands there, and see them on the disk."""
        self._file.seek(row * self._nbytes)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def sync_folder(folder: Path) -> None:
    """See the names in a folder on the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
