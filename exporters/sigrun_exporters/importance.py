"""How much each input column of a linear layer matters: the mean square of the activations that meet it.

Kept in the GGUF form of llama.cpp's llama-imatrix: for each matrix the float32 tensors ``<name>.in_sum2`` [1, columns],
sums of squares, and ``<name>.counts`` [1, 1], the number of rows summed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from sigrun.artifact import ARCHITECTURE
from sigrun.errors import ArtifactError
from sigrun.gguf import GgufFile
from sigrun.output import finished
from sigrun_exporters.calibration import CalibrationError
from sigrun_recipes import TOWERS, Architecture, TensorPlan, TowerName

SUMS, COUNTS = ".in_sum2", ".counts"
KIND = "imatrix"
_AGAIN = "make it again with sigrun-export, or with llama.cpp's llama-imatrix --output-format gguf"


@dataclass(frozen=True, eq=False)
class Squares:
    """What was summed of one linear layer's input.

    Attributes:
        sums: of squares, one a column, float32 [columns], finite and not negative.
        rows: number of rows summed, more than 0.
    """

    sums: NDArray[np.float32]
    rows: float


@dataclass(frozen=True, eq=False)
class Importance:
    """The importance of every linear layer's input columns.

    Attributes:
        squares: matrix by its GGUF name → sums; a tower without calibration data is not in it.
        datasets: names of what it was measured on.
        items: number of pictures and texts.
        item_tokens: rows that the larger of them has in a layer.
    """

    squares: Mapping[str, Squares]
    datasets: tuple[str, ...]
    items: int
    item_tokens: int

    @property
    def digest(self) -> str:
        """Hash over all that decides a weight's bytes."""
        digest = hashlib.sha256()
        for name, found in sorted(self.squares.items()):
            digest.update(f"{name}\0{len(found.sums)}\0{found.rows!r}\n".encode())
            digest.update(found.sums.astype("<f4").tobytes())
        return digest.hexdigest()

    def towers(self, architecture: Architecture) -> tuple[TowerName, ...]:
        """The towers it covers."""
        covered = {t.tower for t in architecture.tensors() if t.name in self.squares}
        return tuple(t for t in TOWERS if t in covered)

    def of(self, tensor: TensorPlan) -> NDArray[np.float32] | None:
        """The importance of a tensor's columns as it is stored: float32 [stored columns]; ``None`` if not known.

        Columns that a rewrite added count nothing; where rows are folded the columns come once for each.
        """
        found = self.squares.get(tensor.spec.name)
        if found is None or tensor.spec.kind != "linear":
            return None
        means = (found.sums.astype(np.float64) / found.rows).astype(np.float32)
        wide = np.zeros(tensor.spec.shape[1], np.float32)
        wide[: len(means)] = means
        return np.tile(wide, tensor.fold)

    def check(self, architecture: Architecture, where: str) -> None:
        """Refuse what was measured on another model.

        Args:
            architecture: the checkpoint's.
            where: file to name in the message.

        Raises:
            CalibrationError: it has a matrix that the model lacks, or one of another width.
        """
        specs = {t.name: t for t in architecture.tensors()}
        for name, found in self.squares.items():
            spec = specs.get(name)
            if spec is None or spec.kind != "linear":
                raise CalibrationError(
                    f"{where}: was measured on another model: this one has no linear layer '{name}'",
                    hint="give calibration data instead (--calibration)",
                )
            if spec.shape[1] != len(found.sums):
                raise CalibrationError(
                    f"{where}: was measured on another model: '{name}' has {len(found.sums)} columns in it, "
                    f"{spec.shape[1]} in this model",
                    hint="give calibration data instead (--calibration)",
                )

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write it as an importance matrix file. Equal figures give equal bytes.

        Raises:
            OutputError: the file exists and ``force`` is false, or it cannot be written.
        """
        with finished(path, force=force) as partial:
            writer = gguf.GGUFWriter(partial, ARCHITECTURE)
            try:
                writer.add_type(gguf.GGUFType.IMATRIX)
                writer.add_array(gguf.Keys.IMatrix.DATASETS, list(self.datasets))
                writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, self.items)
                writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, self.item_tokens)
                for name, found in sorted(self.squares.items()):
                    writer.add_tensor(f"{name}{SUMS}", found.sums[None].astype(np.float32))
                    writer.add_tensor(f"{name}{COUNTS}", np.array([[found.rows]], np.float32))
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_tensors_to_file()
            finally:
                writer.close()


def load_importance(path: Path) -> Importance:
    """Read an importance matrix file.

    Raises:
        CalibrationError: it is missing, damaged, of another kind, or holds figures that cannot be.
    """
    try:
        with GgufFile(path) as file:
            return _read(file, str(path))
    except ArtifactError as error:
        raise CalibrationError(
            f"{error.message}: no importance matrix can be read from it", hint=_AGAIN
        ) from error


def _read(file: GgufFile, where: str) -> Importance:
    meta = file.metadata
    if meta.get(gguf.Keys.General.TYPE) != KIND:
        raise CalibrationError(f"{where}: is a GGUF file, but not an importance matrix", hint=_AGAIN)
    datasets = meta.get(gguf.Keys.IMatrix.DATASETS, [])
    items = meta.get(gguf.Keys.IMatrix.CHUNK_COUNT)
    item_tokens = meta.get(gguf.Keys.IMatrix.CHUNK_SIZE)
    if not isinstance(datasets, list) or not isinstance(items, int) or not isinstance(item_tokens, int):
        raise CalibrationError(
            f"{where}: its datasets, chunk_count or chunk_size is missing or of a wrong type", hint=_AGAIN
        )
    names = [n.removesuffix(SUMS) for n in file.tensors if n.endswith(SUMS)]
    if not names:
        raise CalibrationError(f"{where}: is an importance matrix without any figures", hint=_AGAIN)
    squares = {}
    for name in names:
        sums = _floats(file, f"{name}{SUMS}", where)
        counts = _floats(file, f"{name}{COUNTS}", where)
        if len(counts) != 1 or not np.isfinite(counts).all() or counts[0] <= 0:
            raise CalibrationError(f"{where}: '{name}{COUNTS}' is not one number above 0", hint=_AGAIN)
        if not np.isfinite(sums).all() or (sums < 0).any():
            raise CalibrationError(f"{where}: '{name}{SUMS}' holds what is no sum of squares", hint=_AGAIN)
        squares[name] = Squares(sums, float(counts[0]))
    return Importance(squares, tuple(datasets), items, item_tokens)


def _floats(file: GgufFile, name: str, where: str) -> NDArray[np.float32]:
    """A float32 tensor as one row."""
    info = file.tensors.get(name)
    if info is None:
        raise CalibrationError(f"{where}: has no tensor '{name}'", hint=_AGAIN)
    if info.type.name != "f32":
        raise CalibrationError(f"{where}: tensor '{name}' is {info.type.name}, not f32", hint=_AGAIN)
    return file.data(name).view("<f4").astype(np.float32)
