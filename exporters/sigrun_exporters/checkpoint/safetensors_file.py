"""Reads tensors of a safetensors file one at a time, with plain reads.

The safetensors package maps the whole file, and its NumPy side knows no bfloat16; an export would then hold
all 3.5 GB of a checkpoint resident. This reader keeps one tensor in memory and checks every number of the
header against the file's size. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors package itself
MAX_DIMENSIONS = 8
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_CUT_OFF = "download or copy it again; the transfer may have been cut off"


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: ``start`` and ``stop`` count from the file's first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """The header of a safetensors file, and its tensors on request.

    Args:
        path: the file.

    Raises:
        CheckpointError: the file is missing, truncated or not safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.exists() and not path.is_file():
                raise CheckpointError(f"{path}: is not a file")
            with path.open("rb") as file:
                self.nbytes = os.fstat(file.fileno()).st_size
                head = file.read(8)
                if len(head) < 8:
                    raise CheckpointError(
                        f"{path}: not a safetensors file: it has {self.nbytes} bytes", hint=_CUT_OFF
                    )
                length = struct.unpack("<Q", head)[0]
                if length > min(MAX_HEADER_BYTES, self.nbytes - 8):
                    raise CheckpointError(
                        f"{path}: not a safetensors file, or cut off: its header claims {length:,} bytes, "
                        f"the file has {self.nbytes:,}",
                        hint=_CUT_OFF,
                    )
                raw = file.read(length)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot read: {error.strerror or error}") from error
        self.entries: Mapping[str, Entry] = _entries(path, raw, 8 + length, self.nbytes)

    def read(self, name: str, rows: slice | None = None) -> NDArray[np.float32]:
        """A tensor as float32, or only some of its rows (first axis)."""
        entry = self.entries[name]
        item = _ITEM_BYTES.get(entry.dtype)
        if item is None:
            raise CheckpointError(
                f"{self.path}: tensor '{name}' is {entry.dtype}; Sigrun reads {', '.join(_ITEM_BYTES)}"
            )
        shape, start = entry.shape, entry.start
        if rows is not None:
            first, last, _ = rows.indices(shape[0])
            row = int(np.prod(shape[1:], dtype=np.int64))
            start += first * row * item
            shape = (last - first, *shape[1:])
        count = int(np.prod(shape, dtype=np.int64))
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                raw = np.fromfile(file, np.dtype(f"<u{item}"), count)
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot read tensor '{name}': {error.strerror or error}"
            ) from error
        if raw.size != count:
            raise CheckpointError(f"{self.path}: ends inside tensor '{name}'", hint=_CUT_OFF)
        return _TO_FLOAT[entry.dtype](raw).reshape(shape)


def _bfloat16(raw: NDArray[Any]) -> NDArray[np.float32]:
    wide = raw.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


_TO_FLOAT: dict[str, Callable[[NDArray[Any]], NDArray[np.float32]]] = {
    "F32": lambda raw: raw.view(np.float32),
    "F16": lambda raw: raw.view(np.float16).astype(np.float32),
    "BF16": _bfloat16,
}


def _entries(path: Path, raw: bytes, base: int, size: int) -> dict[str, Entry]:
    def fail(problem: str) -> CheckpointError:
        return CheckpointError(f"{path}: damaged safetensors header: {problem}", hint=_CUT_OFF)

    try:
        header = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise fail("it is not JSON") from error
    if not isinstance(header, dict):
        raise fail("it is not an object")
    entries: dict[str, Entry] = {}
    for name, value in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(value, dict):
            raise fail(f"'{name}' is not an object")
        dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
        if not isinstance(dtype, str) or not _whole(shape) or not _whole(offsets) or len(offsets) != 2:
            raise fail(f"'{name}' lacks a dtype, shape or data_offsets")
        if len(shape) > MAX_DIMENSIONS:
            raise fail(f"'{name}' has {len(shape)} dimensions")
        start, stop = offsets
        if not 0 <= start <= stop or base + stop > size:
            raise CheckpointError(
                f"{path}: cut off: tensor '{name}' ends at byte {base + stop:,}, the file has {size:,}",
                hint=_CUT_OFF,
            )
        item = _ITEM_BYTES.get(dtype)
        count = 1
        for extent in shape:
            count *= extent
        if item is not None and count * item != stop - start:
            raise fail(f"'{name}' of shape {shape} {dtype} does not fill its {stop - start:,} bytes")
        entries[name] = Entry(dtype, tuple(shape), base + start, base + stop)
    if not entries:
        raise fail("it lists no tensor")
    return entries


def _whole(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)
