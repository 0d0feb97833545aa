"""A model variant as it lies on disk, from a recipe before it is exported or from a file that was.

Everything that predicts memory works on :class:`Stored` and does not know where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sigrun_recipes import Architecture, Plan, TowerName

if TYPE_CHECKING:
    from sigrun.artifact import Artifact
    from sigrun.manifest import Packing

Origin = Literal["recipe", "file"]
"""``recipe``: sizes follow from recipe and architecture. ``file``: they were read."""

FORM = "exact"
NBITS: dict[str, tuple[int, int, int]] = {
    "q4_k": (4, 32, 8),
    "q5_k": (8, 32, 8),
    "q6_k": (8, 16, 4),
    "q8_0": (8, 32, 4),
}
"""Encodings that the form ``exact`` keeps quantized (see ``sigrun.nbits``); others become float32. Bits a weight,
weights that share a scale, and bytes of float32 scale and zero point or minimum."""


@dataclass(frozen=True)
class Tensor:
    """One stored weight.

    Attributes:
        name: its name in a GGUF file.
        tower: the tower it belongs to.
        kind: what it does (linear, token, patch, position, probe, norm, bias).
        encoding: what it is stored as.
        shape: after the rewrites; matrices are [outputs, inputs].
        nbytes: bytes in the file, alignment not counted.
        packing: how the graph of form ``exact`` takes it; ``None``: not at all (it stays in the file).
    """

    name: str
    tower: TowerName
    kind: str
    encoding: str
    shape: tuple[int, ...]
    nbytes: int
    packing: Packing | None

    @property
    def size(self) -> int:
        """Number of weights."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True)
class Stored:
    """A variant of a model.

    Attributes:
        model: name of the model.
        variant: name of the recipe.
        origin: where the sizes come from.
        path: the file, as the user named it; ``None`` for a recipe.
        architecture: the towers; the MLP widths may lack the recipe's padding.
        tensors: every weight.
        file_bytes: size of the file with tokenizer, graphs and manifest; ``None`` for a recipe.
    """

    model: str
    variant: str
    origin: Origin
    path: str | None
    architecture: Architecture
    tensors: tuple[Tensor, ...]
    file_bytes: int | None

    @property
    def towers(self) -> tuple[TowerName, ...]:
        """The towers that are there."""
        present = {t.tower for t in self.tensors}
        names: tuple[TowerName, ...] = ("image", "text")
        return tuple(name for name in names if name in present)

    def of(self, tower: TowerName) -> Iterator[Tensor]:
        """The weights of one tower."""
        return (t for t in self.tensors if t.tower == tower)

    def nbytes(self, tower: TowerName) -> int:
        """Bytes of one tower's weights on disk."""
        return sum(t.nbytes for t in self.of(tower))

    def mlp_width(self, tower: TowerName) -> int:
        """The widest MLP as stored, padding included; 0 without any."""
        return max((t.shape[0] for t in self.of(tower) if t.name.endswith("ffn_up.weight")), default=0)


def from_plan(model: str, plan: Plan) -> Stored:
    """A variant that has not been exported."""
    return Stored(
        model=model,
        variant=plan.recipe.name,
        origin="recipe",
        path=None,
        architecture=plan.source,
        tensors=tuple(
            Tensor(
                name=t.spec.name,
                tower=t.spec.tower,
                kind=t.spec.kind,
                encoding=t.encoding.name,
                shape=t.spec.shape,
                nbytes=t.nbytes,
                packing=_expected_packing(t.spec.kind, t.encoding.name),
            )
            for t in plan.tensors
        ),
        file_bytes=None,
    )


def _expected_packing(kind: str, encoding: str) -> Packing | None:
    """How the exporter's graph will take a weight. The token table is never unpacked."""
    if kind == "token":
        return None
    return "nbits" if kind == "linear" and encoding in NBITS else "dense"


class StoredFileError(Exception):
    """A file cannot be checked. ``hint`` is the way out, if there is one."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint


def from_file(path: str) -> Stored:
    """An exported file.

    Raises:
        StoredFileError: the file is missing, unreadable, damaged, foreign, or of another version.
    """
    try:
        # The runtime brings numpy and ONNX Runtime, which questions without a file must not need.
        from sigrun.artifact import Artifact
        from sigrun.errors import SigrunError
    except ImportError as error:
        raise StoredFileError(
            f"{path}: cannot be read, because Sigrun's runtime is incomplete: {error}",
            hint="pip install 'sigrun[cpu,hwcheck]'",
        ) from error
    try:
        with Artifact.open(path) as artifact:
            return from_artifact(artifact, path)
    except SigrunError as error:
        raise StoredFileError(error.message, error.hint) from error
    except OSError as error:
        raise StoredFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def from_artifact(artifact: Artifact, path: str) -> Stored:
    """An open file.

    Raises:
        StoredFileError: its manifest has no architecture or no graph that this version knows.
    """
    manifest = artifact.manifest
    try:
        architecture = Architecture.from_json(manifest.architecture)
    except TypeError as error:
        raise StoredFileError(f"{path}: the manifest's architecture cannot be understood: {error}") from error
    graphs = {tower: forms[FORM].weights for tower, forms in manifest.graphs.items() if FORM in forms}
    if not graphs:
        raise StoredFileError(
            f"{path}: has no graph of form '{FORM}', the only one that this version knows",
            hint="export the model again, or update Sigrun",
        )
    for name, tensor in artifact.tensors.items():
        packing = graphs.get(tensor.tower, {}).get(name)
        if packing == "nbits" and tensor.encoding not in NBITS:
            raise StoredFileError(
                f"{path}: {name} is stored as {tensor.encoding}, which this version does not know"
            )
    return Stored(
        model=manifest.model,
        variant=manifest.variant,
        origin="file",
        path=path,
        architecture=architecture,
        tensors=tuple(
            Tensor(
                name=t.name,
                tower=t.tower,
                kind=t.kind,
                encoding=t.encoding,
                shape=t.shape,
                nbytes=t.nbytes,
                packing=graphs[t.tower].get(t.name),
            )
            for t in artifact.tensors.values()
            if t.tower in graphs
        ),
        file_bytes=artifact.nbytes,
    )
