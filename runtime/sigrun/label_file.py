"""One matrix of float32 numbers and some strings in a safetensors file, read without trusting it.

The layout is that of the safetensors package: eight bytes with the length of the header, little-endian; the header, a
JSON object; the numbers, little-endian. The file holds one tensor, ``embeddings`` [rows, width], and its
``__metadata__`` maps names to strings. Every number in the file is checked against its size before anything is
allocated by it. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import ArtifactError, OutputError
from sigrun.fields import strict_json
from sigrun.output import finished

TENSOR = "embeddings"
METADATA = "__metadata__"
MOST_HEADER_BYTES = 100_000_000  # the limit of the safetensors package itself
_ALIGNMENT = 8  # the numbers start at a multiple of it, as the safetensors package writes them
_AGAIN = "copy it again, or make it again with sigrun labels"


def write(path: Path, matrix: NDArray[np.float32], strings: Mapping[str, str], *, force: bool) -> None:
    """Write a file, at once or not at all. Equal arguments give equal bytes.

    Args:
        path: its name.
        matrix: float32 [rows, width].
        strings: name → text, all of it valid Unicode.
        force: replace an existing file.

    Raises:
        OutputError: it exists and ``force`` is false, it cannot be written, or the strings are too long for a header.
    """
    rows, width = matrix.shape
    entry = {"data_offsets": [0, rows * width * 4], "dtype": "F32", "shape": [rows, width]}
    header = json.dumps(
        {METADATA: dict(sorted(strings.items())), TENSOR: entry}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    if len(header) > MOST_HEADER_BYTES:
        raise OutputError(
            f"{path}: cannot write: the labels and templates take {len(header):,} bytes, "
            f"and the format has room for {MOST_HEADER_BYTES:,}"
        )
    with finished(path, force=force) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(header)))
        file.write(header)
        file.write(np.ascontiguousarray(matrix, "<f4").data)


def read(path: Path) -> tuple[NDArray[np.float32], dict[str, str]]:
    """Read a file.

    Returns:
        The matrix, float32 [rows, width], in memory of its own, and the strings.

    Raises:
        ArtifactError: there is no such file, or it is damaged or another kind of file; the message names the field.
    """
    try:
        if path.exists() and not path.is_file():  # nor a pipe, which would be waited for
            raise ArtifactError(f"{path}: cannot read: it is not a file")
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{path}: cannot read: {reason}") from error
    with file:
        try:
            return _read(file, str(path))
        except OSError as error:
            raise ArtifactError(f"{path}: cannot read: {error.strerror or error}") from error


def _read(file: BinaryIO, where: str) -> tuple[NDArray[np.float32], dict[str, str]]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    if start[:4] == b"GGUF":
        raise ArtifactError(
            f"{where}: is a GGUF file, not a label set",
            hint="to make a label set with it: sigrun labels MODEL.gguf --label ... -o NAME.labels.safetensors",
        )
    if len(start) < 8:
        raise _damaged(where, f"it has {size:,} bytes, too few for a header")
    length: int = struct.unpack("<Q", start)[0]
    if length > min(MOST_HEADER_BYTES, size - 8):
        raise _damaged(where, f"the header claims {length:,} bytes, and the file has {size:,}")
    raw = file.read(length)
    if len(raw) != length:
        raise _damaged(where, "it ends inside the header")
    header = _header(where, raw)
    rows, width = _extents(where, header, size - 8 - length)
    matrix = np.empty((rows, width), "<f4")  # as many bytes as the file has left
    if file.readinto(matrix.data.cast("B")) != matrix.nbytes:  # type: ignore[attr-defined]
        raise _damaged(where, f"it ends inside {TENSOR}")
    return matrix.astype(np.float32, copy=False), header[METADATA]


def _header(where: str, raw: bytes) -> dict[str, Any]:
    """The header, with ``__metadata__`` an object of strings and no tensor but ours."""
    try:
        header = strict_json(raw.decode("utf-8"))
    except ValueError as error:
        raise _damaged(where, f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise _damaged(where, "the header is not a JSON object")
    strings = header.get(METADATA)
    if not isinstance(strings, dict):
        raise _damaged(where, f"the header has no object {METADATA}")
    for name, value in strings.items():
        if not isinstance(value, str):
            raise _damaged(where, f"{METADATA}.{_shown(name)} is not a string")
    others = sorted(set(header) - {METADATA, TENSOR})
    if others or TENSOR not in header:
        raise _damaged(
            where, f"it should hold the tensor {TENSOR} alone, and holds {_shown(others) or 'none'}"
        )
    return header


def _extents(where: str, header: Mapping[str, Any], room: int) -> tuple[int, int]:
    """Rows and width of the tensor, whose bytes are exactly the ``room`` bytes after the header."""
    entry = header[TENSOR]
    if not isinstance(entry, dict):
        raise _damaged(where, f"{TENSOR} is not an object")
    dtype, shape, offsets = (entry.get(name) for name in ("dtype", "shape", "data_offsets"))
    if dtype != "F32":
        raise _damaged(where, f"{TENSOR}.dtype is {_shown(dtype)}, not 'F32'")
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)):
        raise _damaged(where, f"{TENSOR}.shape is {_shown(shape)}, not two positive whole numbers")
    rows, width = shape
    if rows * width * 4 != room:
        raise _damaged(
            where,
            f"{TENSOR}.shape is {_shown(shape)}, which takes {_shown(rows * width * 4)} bytes, and {room:,} follow",
        )
    if offsets != [0, room] or any(type(n) is not int for n in offsets):
        raise _damaged(where, f"{TENSOR}.data_offsets is {_shown(offsets)}, not [0, {room}]")
    return rows, width


def _shown(value: object) -> str:
    """A value of the file, short enough for a message; none for nothing."""
    if isinstance(value, int) and abs(value) > 10**30:
        return "more than 10^30"
    text = ascii(value) if value or isinstance(value, int) else ""
    return text if len(text) <= 60 else f"{text[:59]}…"


def _damaged(where: str, problem: str) -> ArtifactError:
    return ArtifactError(f"{where}: not a label set, or a damaged one: {problem}", hint=_AGAIN)
