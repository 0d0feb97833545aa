"""A checkpoint's weights, in one safetensors file or split over several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import ArtifactError, CheckpointError
from sigrun.scores import Scoring
from sigrun_exporters.checkpoint.files import read_json
from sigrun_exporters.checkpoint.safetensors_file import Entry, SafetensorsFile
from sigrun_recipes import Architecture, TensorSpec

READABLE = ("F32", "F16", "BF16")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Weights:
    """Tensors by name, wherever they lie.

    Attributes:
        path: what errors name: the file, or the folder of several.
        names: the files, relative to the folder.
        entries: where each tensor lies in its file.
        nbytes: bytes of all files.
    """

    def __init__(self, path: Path, files: Mapping[str, SafetensorsFile], home: Mapping[str, str]) -> None:
        self.path = path
        self.names: tuple[str, ...] = tuple(files)
        self.entries: Mapping[str, Entry] = {name: files[file].entries[name] for name, file in home.items()}
        self.nbytes = sum(file.nbytes for file in files.values())
        self._files = files
        self._home = home

    def read(self, name: str, rows: slice | None = None) -> NDArray[np.float32]:
        """A tensor as float32, or only some of its rows (first axis)."""
        return self._files[self._home[name]].read(name, rows)

    def scoring(self) -> Scoring:
        """The constants ``logit_scale`` and ``logit_bias``."""
        try:
            return Scoring(self._scalar("logit_scale"), self._scalar("logit_bias"))
        except ArtifactError as error:
            raise CheckpointError(f"{self.path}: {error.message}") from error

    def _scalar(self, name: str) -> float:
        value = float(self.read(name).reshape(-1)[0])
        if not np.isfinite(value):
            raise CheckpointError(f"{self.path}: {name} is not a finite number")
        return value


def open_weights(folder: Path, name: str) -> Weights:
    """Open the file ``name``, or the several that ``name.index.json`` lists.

    Raises:
        CheckpointError: there is neither, one is damaged, or there are only pickled weights.
    """
    path = folder / name
    if path.exists():
        file = SafetensorsFile(path)
        return Weights(path, {name: file}, dict.fromkeys(file.entries, name))
    index = f"{name}.index.json"
    if (folder / index).exists():
        return _open_split(folder, index)
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
    if pickled:
        raise CheckpointError(
            f"{folder / pickled[0]}: pickled checkpoints are refused, because opening one runs the code in it",
            hint=f"use the model's {name}, or save it again as safetensors "
            "(save_pretrained(safe_serialization=True))",
        )
    if any(p.suffix == ".npz" for p in folder.iterdir()):
        raise CheckpointError(
            f"{folder}: holds weights of big_vision (.npz), which Sigrun does not read",
            hint="the same weights are published as safetensors under google/ and timm/ on the hub",
        )
    raise CheckpointError(f"{folder}: has no {name}")


def _open_split(folder: Path, index: str) -> Weights:
    listed = read_json(folder, index, "weights beside their index").get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise CheckpointError(f"{folder / index}: has no weight_map")
    for tensor, name in listed.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{folder / index}: puts '{tensor}' into {name!r}, which is no safetensors file of this folder"
            )
    files = {name: SafetensorsFile(folder / name) for name in sorted(set(listed.values()))}
    for tensor, name in listed.items():
        if tensor not in files[name].entries:
            raise CheckpointError(
                f"{folder / name}: has no tensor '{tensor}', which {index} puts there",
                hint="download the weights again; they may be of two versions",
            )
    return Weights(folder, files, listed)


@dataclass(frozen=True)
class Place:
    """Where a tensor of ours lies in a checkpoint.

    Attributes:
        name: the checkpoint's tensor.
        shape: its shape there.
        part: which of several equal parts, laid one below the other, is ours; none if all of it is.
    """

    name: str
    shape: tuple[int, ...]
    part: int | None = None


def reader(
    weights: Weights,
    architecture: Architecture,
    place: Callable[[TensorSpec], Place],
    *,
    config: str = "config.json",
    scalars: Sequence[str] = (),
    buffers: Sequence[str] = (),
    made: Mapping[str, NDArray[np.float32]] | None = None,
) -> Callable[[str], NDArray[np.float32]]:
    """What reads a tensor by its GGUF name, once every tensor was checked against the architecture.

    Args:
        weights: the checkpoint's.
        architecture: what its config describes.
        place: where each tensor lies.
        config: the config's name, for errors.
        scalars: tensors of one number beside the architecture's.
        buffers: ends of names that are no weights and are passed over.
        made: tensors that the checkpoint leaves out, by GGUF name.

    Raises:
        CheckpointError: a tensor is missing, superfluous or of a wrong shape or dtype.
    """
    made = made or {}
    specs = {t.name: t for t in architecture.tensors()}
    places = {name: place(spec) for name, spec in specs.items() if name not in made}
    expected = {p.name: p.shape for p in places.values()} | dict.fromkeys(scalars, (1,))
    missing = sorted(set(expected) - set(weights.entries))
    if missing:
        raise CheckpointError(
            f"{weights.path}: {len(missing)} of {len(expected)} tensors are missing, the first is '{missing[0]}'",
            hint=f"{config} may describe another checkpoint than these weights",
        )
    superfluous = sorted(
        n for n in set(weights.entries) - set(expected) if not n.endswith(("position_ids", *buffers))
    )
    if superfluous:
        raise CheckpointError(
            f"{weights.path}: {len(superfluous)} tensors are not part of a SigLIP that {config} describes, "
            f"the first is '{superfluous[0]}'"
        )
    for name, shape in expected.items():
        entry = weights.entries[name]
        if entry.shape != shape and not (name in scalars and entry.shape == ()):
            raise CheckpointError(
                f"{weights.path}: tensor '{name}' has shape {list(entry.shape)}, {config} asks for {list(shape)}"
            )
        if entry.dtype not in READABLE:
            raise CheckpointError(
                f"{weights.path}: tensor '{name}' is {entry.dtype}; Sigrun reads F32, F16 and BF16"
            )

    def read(name: str) -> NDArray[np.float32]:
        if name in made:
            return made[name]
        spec, source = specs[name], places[name]
        rows = None
        if source.part is not None:
            rows = slice(source.part * spec.shape[0], (source.part + 1) * spec.shape[0])
        values = weights.read(source.name, rows).reshape(spec.shape)
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"{weights.path}: tensor '{source.name}' holds values that are not finite numbers"
            )
        return values

    return read
