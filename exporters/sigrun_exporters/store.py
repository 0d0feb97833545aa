"""The stored weights of one export: quantized once, kept on disk, read by every writer.

Hashes over the stored bytes go into the head of the files that hold them, so the bytes must be known before
the first file is begun. They wait in one unnamed file beside the output, which the system removes on any exit.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from sigrun.blocks import BLOCKS, decode, runs
from sigrun.cpus import default_threads
from sigrun.errors import CheckpointError
from sigrun.progress import Progress
from sigrun_exporters.checkpoint import Checkpoint
from sigrun_exporters.quantize import quantize
from sigrun_exporters.transforms import rewritten
from sigrun_recipes import Plan, TensorPlan


@dataclass(frozen=True)
class WeightStore:
    """Every stored tensor of a plan.

    Attributes:
        plan: what is stored how.
        digests: SHA-256 of each tensor's stored bytes.
        errors: relative error of each stored tensor, the norm of the difference over the norm of the weights.
        sha256: hash over name, encoding, stored shape and digest of every tensor, in file order.
    """

    plan: Plan
    digests: Mapping[str, str]
    errors: Mapping[str, float]
    sha256: str
    _file: IO[bytes]
    _offsets: Mapping[str, int]

    def read(self, tensor: TensorPlan) -> NDArray[np.uint8]:
        """The stored bytes of a tensor."""
        self._file.seek(self._offsets[tensor.spec.name])
        return np.fromfile(self._file, np.uint8, tensor.nbytes)


ImportanceOf = Callable[[TensorPlan], NDArray[np.float32] | None]
"""What a squared error counts in each column of a stored matrix; none where nothing is known."""


@contextmanager
def stored(
    checkpoint: Checkpoint, plan: Plan, folder: Path, importance: ImportanceOf | None = None
) -> Iterator[WeightStore]:
    """Read, rewrite and quantize every tensor; one at a time is in memory.

    Args:
        checkpoint: where the weights come from.
        plan: how each is stored.
        folder: where the waiting file may lie; it needs room for the whole artifact.
        importance: the weight of errors by tensor; none where all count as the quantizers have it.

    Raises:
        CheckpointError: a tensor cannot be read or does not fit its encoding.
    """
    digest = hashlib.sha256()
    offsets: dict[str, int] = {}
    digests: dict[str, str] = {}
    errors: dict[str, float] = {}
    with (
        tempfile.TemporaryFile(dir=folder, prefix=".sigrun-") as file,
        Progress(
            f"quantizing to {plan.recipe.name}", sum(t.spec.size for t in plan.tensors) / 1e6, "M weights"
        ) as bar,
    ):
        for tensor in plan.tensors:
            name = tensor.spec.name
            values = rewritten(checkpoint.read(name), tensor)
            data = _encode(values, tensor, importance(tensor) if importance is not None else None)
            errors[name] = _relative_error(values, tensor.encoding.name, data)
            digests[name] = hashlib.sha256(data.data).hexdigest()
            line = f"{name}\0{tensor.encoding.name}\0{tensor.stored_shape}\0{digests[name]}\n"
            digest.update(line.encode("utf-8"))
            offsets[name] = file.tell()
            file.write(data.data)
            bar.advance(tensor.spec.size / 1e6)
        file.flush()
        yield WeightStore(plan, digests, errors, digest.hexdigest(), file, offsets)


def _encode(
    values: NDArray[np.float32], tensor: TensorPlan, importance: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """A tensor's values, folded, as the flat bytes of its encoding."""
    rows = tensor.stored_shape if len(tensor.stored_shape) == 2 else (1, tensor.spec.size)
    try:
        matrix = np.ascontiguousarray(values).reshape(rows)
        return quantize(tensor.encoding.name, matrix, importance).reshape(-1)
    except ValueError as error:
        raise CheckpointError(
            f"tensor '{tensor.spec.name}' cannot be stored as {tensor.encoding.name}: {error}"
        ) from error


def _relative_error(values: NDArray[np.float32], encoding: str, data: NDArray[np.uint8]) -> float:
    """The norm of what storing changed over the norm of the weights; 0 for weights that are all zero."""
    block = BLOCKS[encoding]
    blocks, weights = data.reshape(-1, block.size), values.reshape(-1, block.weights)

    def sums(part: slice) -> tuple[float, float]:
        exact = weights[part].reshape(-1)
        rest = decode(encoding, blocks[part]) - exact
        return float(np.dot(rest, rest)), float(np.dot(exact, exact))

    if encoding == "f32":
        return 0.0
    with ThreadPoolExecutor(default_threads()) as pool:
        wrong, whole = np.sum(list(pool.map(sums, runs(len(blocks), block.weights))), axis=0)
    return float(np.sqrt(wrong / whole)) if whole > 0 else 0.0
