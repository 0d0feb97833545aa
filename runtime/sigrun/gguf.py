"""A small, strict GGUF reader over a memory map.

Reads GGUF version 2 and 3, little-endian. Every length in the file is checked against the bytes that are
there before anything is allocated or read, so a damaged or hostile file gives an :class:`ArtifactError` that
names the field, never a crash. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sigrun import blocks
from sigrun.errors import ArtifactError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
HASHED_BYTES = 4 << 20

# Scalar metadata types: number → (struct format, numpy dtype)
_SCALARS: dict[int, tuple[str, str]] = {
    0: ("<B", "<u1"),
    1: ("<b", "<i1"),
    2: ("<H", "<u2"),
    3: ("<h", "<i2"),
    4: ("<I", "<u4"),
    5: ("<i", "<i4"),
    6: ("<f", "<f4"),
    7: ("<?", "?"),
    10: ("<Q", "<u8"),
    11: ("<q", "<i8"),
    12: ("<d", "<f8"),
}
_STRING, _ARRAY = 8, 9
_MIN_KEY_BYTES = 8 + 4  # an empty key and its type
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8  # an empty name, no dimensions, type, offset


@dataclass(frozen=True)
class TensorType:
    """A ggml tensor type: ``weights`` consecutive weights take ``size`` bytes."""

    name: str
    weights: int
    size: int


TENSOR_TYPES: dict[int, TensorType] = {
    number: TensorType(name, *blocks.BLOCKS[name])
    for number, name in ((0, "f32"), (1, "f16"), (8, "q8_0"), (12, "q4_k"), (13, "q5_k"), (14, "q6_k"))
} | {24: TensorType("i8", 1, 1)}
"""The types that Sigrun writes, by their number in the file."""


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies. ``shape`` is outermost extent first; ``offset`` counts from the file's start."""

    name: str
    type: TensorType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class GgufFile:
    """An open GGUF file: ``metadata``, ``tensors``, and the bytes of each tensor without copying.

    Args:
        path: the file.

    Raises:
        ArtifactError: there is no such file, or it is not a sound GGUF file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._map: mmap.mmap | None = None
        try:
            if self.path.exists() and not self.path.is_file():
                raise ArtifactError(
                    f"{self.path}: cannot open: it is not a file",
                    hint="name the .gguf file that sigrun-export made",
                )
            with self.path.open("rb") as file:
                self.nbytes = os.fstat(file.fileno()).st_size
                if self.nbytes < len(MAGIC) + 20:
                    raise ArtifactError(
                        f"{self.path}: not a GGUF file: {self.nbytes} bytes is too short",
                        hint="export or copy it again; the transfer may have been cut off",
                    )
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or error
            raise ArtifactError(
                f"{self.path}: cannot open: {reason}", hint="name the .gguf file that sigrun-export made"
            ) from error
        try:
            cursor = _Cursor(self._map, self.nbytes, str(self.path))
            self.metadata, self.tensors = _read_head(cursor)
        except BaseException:
            self.close()
            raise

    def data(self, name: str) -> NDArray[np.uint8]:
        """The raw bytes of a tensor, [nbytes] uint8, read-only, still in the file.

        Raises:
            ArtifactError: there is no such tensor, or the file is closed.
        """
        info = self.tensors.get(name)
        if info is None:
            raise ArtifactError(f"{self.path}: has no tensor '{name}'")
        if self._map is None:
            raise ArtifactError(f"{self.path}: is closed")
        return np.frombuffer(self._map, np.uint8, info.nbytes, info.offset)

    def sha256(self, name: str) -> str:
        """Hash of a tensor's bytes; no more than a part of it stays in memory."""
        data = self.data(name)
        digest = hashlib.sha256()
        for start in range(0, len(data), HASHED_BYTES):
            part = data[start : start + HASHED_BYTES]
            digest.update(part.data)
            self._release(self.tensors[name].offset + start, len(part))
        return digest.hexdigest()

    def release(self, name: str | None = None) -> None:
        """Let the system take a tensor's pages back, or all of the file's; they are read again when needed."""
        if name is None:
            self._release(0, self.nbytes)
        else:
            self._release(self.tensors[name].offset, self.tensors[name].nbytes)

    def _release(self, offset: int, nbytes: int) -> None:
        advise = getattr(mmap, "MADV_DONTNEED", None)
        if self._map is None or advise is None or nbytes == 0:
            return
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._map.madvise(advise, start, offset + nbytes - start)

    def close(self) -> None:
        """Unmap the file. Arrays from :meth:`data` that are still in use keep it mapped until they go."""
        if self._map is not None:
            with contextlib.suppress(BufferError):  # an array still points into it: it unmaps with the array
                self._map.close()
            self._map = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Cursor:
    """Reads forward through the head of the file and refuses to leave it."""

    def __init__(self, buffer: mmap.mmap, size: int, where: str) -> None:
        self.buffer = buffer
        self.size = size
        self.where = where
        self.at = 0

    def fail(self, problem: str) -> ArtifactError:
        return ArtifactError(
            f"{self.where}: damaged GGUF file: {problem} (at byte {self.at:,} of {self.size:,})",
            hint="export or copy it again; the transfer may have been cut off",
        )

    def need(self, count: int, field: str) -> None:
        if count > self.size - self.at:
            raise self.fail(f"{field} needs {count:,} bytes, {self.size - self.at:,} are left")

    def take(self, count: int, field: str) -> bytes:
        self.need(count, field)
        start = self.at
        self.at += count
        return self.buffer[start : self.at]

    def number(self, code: str, field: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code), field))[0]

    def count(self, least: int, field: str) -> int:
        """A 64-bit count of things that take at least ``least`` bytes each."""
        count: int = self.number("<Q", field)
        if count > (self.size - self.at) // least:
            raise self.fail(f"{field} is {count:,}, more than the file could hold")
        return count

    def text(self, field: str) -> str:
        raw = self.take(self.count(1, f"length of {field}"), field)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fail(f"{field} is not UTF-8") from error


def _read_head(cursor: _Cursor) -> tuple[Mapping[str, Any], Mapping[str, TensorInfo]]:
    magic = cursor.take(4, "magic")
    if magic != MAGIC:
        raise ArtifactError(
            f"{cursor.where}: not a GGUF file: it starts with {magic!r}, not {MAGIC!r}",
            hint="the artifact, a .gguf file made by sigrun-export, comes first, then the pictures",
        )
    version = cursor.number("<I", "version")
    if version not in VERSIONS:
        raise ArtifactError(
            f"{cursor.where}: GGUF version {version} is not supported, only {' and '.join(map(str, VERSIONS))}"
        )
    tensor_count = cursor.count(_MIN_TENSOR_BYTES, "number of tensors")
    key_count = cursor.count(_MIN_KEY_BYTES, "number of metadata keys")
    metadata: dict[str, Any] = {}
    for i in range(key_count):
        key = cursor.text(f"metadata key {i}")
        if key in metadata:
            raise cursor.fail(f"metadata key '{key}' appears twice")
        metadata[key] = _value(cursor, key)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise cursor.fail(f"general.alignment is {alignment!r}, not a power of two")
    pending = [_tensor_head(cursor, i) for i in range(tensor_count)]
    base = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, make in pending:
        if name in tensors:
            raise cursor.fail(f"tensor '{name}' appears twice")
        info = make(base)
        if info.offset % alignment:
            raise cursor.fail(f"tensor '{name}' lies at {info.offset:,}, which is not aligned to {alignment}")
        if info.offset + info.nbytes > cursor.size:
            raise cursor.fail(f"tensor '{name}' ends at byte {info.offset + info.nbytes:,}, beyond the file")
        tensors[name] = info
    _no_overlap(cursor, tensors)
    return metadata, tensors


def _no_overlap(cursor: _Cursor, tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse tensors that share bytes: many over one region would unpack to far more than the file."""
    end, before = 0, ""
    for info in sorted(tensors.values(), key=lambda t: (t.offset, t.nbytes)):
        if info.nbytes and info.offset < end:
            raise cursor.fail(f"tensors '{before}' and '{info.name}' overlap")
        if info.nbytes:
            end, before = info.offset + info.nbytes, info.name


def _value(cursor: _Cursor, key: str) -> Any:
    kind: int = cursor.number("<I", f"type of {key}")
    if kind == _STRING:
        return cursor.text(key)
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind not in _SCALARS:
        raise cursor.fail(f"{key} has type {kind}, which GGUF does not define")
    return cursor.number(_SCALARS[kind][0], key)


def _array(cursor: _Cursor, key: str) -> list[str] | NDArray[Any]:
    kind: int = cursor.number("<I", f"element type of {key}")
    if kind == _STRING:
        return [cursor.text(f"{key}[{i}]") for i in range(cursor.count(8, f"length of {key}"))]
    if kind not in _SCALARS:
        raise cursor.fail(f"{key} is an array of type {kind}, which is not supported")
    dtype = np.dtype(_SCALARS[kind][1])
    count = cursor.count(dtype.itemsize, f"length of {key}")
    return np.frombuffer(cursor.take(count * dtype.itemsize, key), dtype)


def _tensor_head(cursor: _Cursor, index: int) -> tuple[str, Callable[[int], TensorInfo]]:
    name = cursor.text(f"name of tensor {index}")
    dimensions = cursor.number("<I", f"dimensions of {name}")
    if dimensions > MAX_DIMENSIONS:
        raise cursor.fail(f"tensor '{name}' has {dimensions} dimensions, more than {MAX_DIMENSIONS}")
    extents = tuple(cursor.number("<Q", f"shape of {name}") for _ in range(dimensions))
    number = cursor.number("<I", f"type of {name}")
    start: int = cursor.number("<Q", f"offset of {name}")
    if number not in TENSOR_TYPES:
        raise ArtifactError(
            f"{cursor.where}: tensor '{name}' has ggml type {number}, which Sigrun does not run",
            hint="Sigrun runs files made by sigrun-export: "
            + " ".join(t.name for t in TENSOR_TYPES.values()),
        )
    kind = TENSOR_TYPES[number]
    count = 1
    for extent in extents:
        count *= extent
    if extents and extents[0] % kind.weights:
        raise cursor.fail(
            f"tensor '{name}' has rows of {extents[0]}, not a multiple of {kind.weights} as {kind.name} asks"
        )
    nbytes = count // kind.weights * kind.size
    shape = tuple(reversed(extents))
    return name, lambda base: TensorInfo(name, kind, shape, base + start, nbytes)
