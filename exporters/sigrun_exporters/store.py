"""The stored weights of one export: quantized once, kept on disk, read by every writer.

Hashes over the stored bytes go into the head of the files that hold them, so the bytes must be known before
the first file is begun. They wait in one unnamed file beside the output, which the system removes on any exit.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

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
        sha256: hash over name, encoding, stored shape and digest of every tensor, in file order.
    """

    plan: Plan
    digests: Mapping[str, str]
    sha256: str
    _file: IO[bytes]
    _offsets: Mapping[str, int]

    def read(self, tensor: TensorPlan) -> NDArray[np.uint8]:
        """The stored bytes of a tensor."""
        self._file.seek(self._offsets[tensor.spec.name])
        return np.fromfile(self._file, np.uint8, tensor.nbytes)


@contextmanager
def stored(checkpoint: Checkpoint, plan: Plan, folder: Path) -> Iterator[WeightStore]:
    """Read, rewrite and quantize every tensor; one at a time is in memory.

    Args:
        checkpoint: where the weights come from.
        plan: how each is stored.
        folder: where the waiting file may lie; it needs room for the whole artifact.

    Raises:
        CheckpointError: a tensor cannot be read or does not fit its encoding.
    """
    digest = hashlib.sha256()
    offsets: dict[str, int] = {}
    digests: dict[str, str] = {}
    with (
        tempfile.TemporaryFile(dir=folder, prefix=".sigrun-") as file,
        Progress(
            f"quantizing to {plan.recipe.name}", sum(t.spec.size for t in plan.tensors) / 1e6, "M weights"
        ) as bar,
    ):
        for tensor in plan.tensors:
            data = _encode(rewritten(checkpoint.read(tensor.spec.name), tensor), tensor)
            name = tensor.spec.name
            digests[name] = hashlib.sha256(data.data).hexdigest()
            line = f"{name}\0{tensor.encoding.name}\0{tensor.stored_shape}\0{digests[name]}\n"
            digest.update(line.encode("utf-8"))
            offsets[name] = file.tell()
            file.write(data.data)
            bar.advance(tensor.spec.size / 1e6)
        file.flush()
        yield WeightStore(plan, digests, digest.hexdigest(), file, offsets)


def _encode(values: NDArray[np.float32], tensor: TensorPlan) -> NDArray[np.uint8]:
    """A tensor's values, folded, as the flat bytes of its encoding."""
    rows = tensor.stored_shape if len(tensor.stored_shape) == 2 else (1, tensor.spec.size)
    try:
        return quantize(tensor.encoding.name, np.ascontiguousarray(values).reshape(rows)).reshape(-1)
    except ValueError as error:
        raise CheckpointError(
            f"tensor '{tensor.spec.name}' cannot be stored as {tensor.encoding.name}: {error}"
        ) from error
