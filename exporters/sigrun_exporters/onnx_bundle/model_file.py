"""Writes a model file with its weights, one array in memory at a time: beside the file, or inside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import onnx
from onnx import TensorProto

from sigrun.spm import varint
from sigrun_exporters.onnx_bundle.weights import Array

SMALL_ALIGNMENT = 64
PAGE_ALIGNMENT = 1 << 16  # what Windows asks of a place in a file that is mapped into memory
PAGED = 1 << 18  # arrays of this many bytes and more are worth mapping
_DTYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype("<f4"),
    TensorProto.FLOAT16: np.dtype("<f2"),
    TensorProto.UINT8: np.dtype(np.uint8),
    TensorProto.INT8: np.dtype(np.int8),
}
# Keys of protobuf fields of a length given in front: field << 3 | 2.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7 << 3 | 2, 5 << 3 | 2, 9 << 3 | 2


@dataclass(frozen=True)
class Written:
    """A finished file: its size and hash."""

    nbytes: int
    sha256: str


def place(model: onnx.ModelProto, weights: Iterable[str], location: str) -> int:
    """Give a model's weights their places in the file that :func:`write_beside` would write, and say its size.

    Args:
        model: its external initializers are given their places.
        weights: the tensors in the order in which they are written; each has one or more initializers.
        location: name of the file.
    """
    declared = _external(model)
    total = 0
    for weight in weights:
        for name, tensor in declared.items():
            if name == weight or name.startswith(f"{weight}."):
                total += -total % _alignment(_nbytes(tensor))
                _at(tensor, location, total, _nbytes(tensor))
                total += _nbytes(tensor)
    return total


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the weights that a model declares as external."""
    return sum(_nbytes(t) for t in _external(model).values())


def external_names(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the weights that a model declares as external."""
    return frozenset(_external(model))


def write_beside(
    path: Path,
    model: onnx.ModelProto,
    weights: Iterable[tuple[str, Array]],
    suffix: str,
    most: int | None = None,
) -> dict[str, Written]:
    """Write a model, and its weights to ``<path><suffix>`` beside it.

    Args:
        path: the model file.
        model: its external initializers are given their places.
        weights: every external initializer, in the order in which they are written.
        suffix: what the data file's name has more than the model's.
        most: bytes of a data file, beyond which another is begun: ``<suffix>_1``, ``<suffix>_2``, and so on.

    Returns:
        The files by name, the model first.

    Raises:
        ValueError: an array is not as the model declares it.
        OSError: a file cannot be written.
    """
    declared = _external(model)
    files: dict[str, Written] = {}
    data = _HashedFile(path.with_name(path.name + suffix))
    try:
        for name, array in weights:
            tensor = declared[name]
            if most is not None and data.nbytes and data.nbytes + PAGE_ALIGNMENT + array.nbytes > most:
                data.close()
                files[data.path.name] = data.written
                data = _HashedFile(path.with_name(f"{path.name}{suffix}_{len(files)}"))
            data.write(bytes(-data.nbytes % _alignment(array.nbytes)))
            _at(tensor, data.path.name, data.nbytes, array.nbytes)
            data.write(_raw(tensor, array))
    finally:
        data.close()
    files[data.path.name] = data.written
    with _HashedFile(path) as file:
        file.write(model.SerializeToString(deterministic=True))
    return {path.name: file.written, **files}


def write_inside(
    path: Path, model: onnx.ModelProto, weights: Iterable[tuple[str, Array]]
) -> dict[str, Written]:
    """Write a model with its weights inside: one file of less than 2 GB, the most that protobuf allows.

    The message is put together by hand, because protobuf would hold all weights in memory, twice.

    Args, Returns, Raises: as for :func:`write_beside`.
    """
    declared = _external(model)
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    kept = [t for t in rest.graph.initializer if t.name not in declared]
    del rest.graph.initializer[:]
    rest.graph.initializer.extend(kept)
    graph = rest.graph.SerializeToString(deterministic=True)
    rest.ClearField("graph")
    heads = {name: _head(tensor) for name, tensor in declared.items()}
    size = len(graph) + sum(len(head) + _nbytes(declared[name]) for name, head in heads.items())
    with _HashedFile(path) as file:
        file.write(rest.SerializeToString(deterministic=True) + bytes([_MODEL_GRAPH]) + varint(size) + graph)
        for name, array in weights:
            file.write(heads[name])
            file.write(_raw(declared[name], array))
    return {path.name: file.written}


def write_plain(path: Path, data: bytes) -> dict[str, Written]:
    """Write a file as it is."""
    with _HashedFile(path) as file:
        file.write(data)
    return {path.name: file.written}


def _external(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {t.name: t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL}


def _at(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Say where an external initializer lies."""
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _alignment(nbytes: int) -> int:
    return PAGE_ALIGNMENT if nbytes >= PAGED else SMALL_ALIGNMENT


def _nbytes(tensor: TensorProto) -> int:
    return int(prod(tensor.dims)) * _DTYPES[tensor.data_type].itemsize


def _head(tensor: TensorProto) -> bytes:
    """A graph's initializer up to where its numbers begin."""
    nbytes = _nbytes(tensor)
    plain = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    body: bytes = plain.SerializeToString(deterministic=True) + bytes([_TENSOR_RAW_DATA]) + varint(nbytes)
    return bytes([_GRAPH_INITIALIZER]) + varint(len(body) + nbytes) + body


def _raw(tensor: TensorProto, array: Array) -> memoryview:
    """An array's bytes as ONNX keeps them."""
    expected = _DTYPES[tensor.data_type]
    if array.dtype != expected or array.shape != tuple(tensor.dims):
        raise ValueError(
            f"{tensor.name} is {array.dtype} {array.shape}; the graph takes {expected} {tuple(tensor.dims)}"
        )
    little = np.ascontiguousarray(array, dtype=expected)
    return little.reshape(-1).view(np.uint8).data


class _HashedFile:
    """A new file that is hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nbytes = 0
        self._hash = hashlib.sha256()
        self._file: IO[bytes] = path.open("xb")

    @property
    def written(self) -> Written:
        return Written(self.nbytes, self._hash.hexdigest())

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.nbytes += len(data)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
