"""A model variant as it lies on disk, from a recipe before it is exported or from a file that was.

Everything that predicts memory works on :class:`Stored` and does not know where it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

from sigrun_recipes import MULTIPLIED, TOWERS, Architecture, Cut, Plan, TensorPlan, TowerName, cuts

if TYPE_CHECKING:
    from sigrun.artifact import Artifact
    from sigrun.manifest import Packing

Origin = Literal["recipe", "file"]
"""``recipe``: sizes follow from recipe and architecture. ``file``: they were read."""

Form = Literal["exact", "int8", "f16", "w4f16"]
"""How a tower's layers are multiplied (see ``sigrun.sessions.FORMS``)."""
FORMS: tuple[Form, ...] = get_args(Form)

NBITS: dict[str, tuple[int, int, int]] = {
    "q4_k": (4, 32, 8),
    "q5_k": (8, 32, 8),
    "q6_k": (8, 16, 4),
    "q8_0": (8, 32, 4),
}
"""Encodings that graphs keep quantized (see ``sigrun.nbits``); others become floats. Bits a weight, weights that share
a scale, and bytes of float32 scale and zero point or minimum."""


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
        packings: compute form → how its graph takes it; a form that is not there does not take it at all: it stays in
            the file.
        pieces: compute form → what its graph cuts, into how many pieces, where it takes several.
    """

    name: str
    tower: TowerName
    kind: str
    encoding: str
    shape: tuple[int, ...]
    nbytes: int
    packings: Mapping[Form, Packing]
    pieces: Mapping[Form, Cut] = field(default_factory=dict)

    @cached_property
    def size(self) -> int:
        """Number of weights."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True, eq=False)
class Stored:
    """A variant of a model. Each is equal to itself alone, so that what follows from it can be kept by it.

    Attributes:
        model: name of the model.
        variant: name of the recipe.
        origin: where the sizes come from.
        path: the file, as the user named it; ``None`` for a recipe.
        architecture: the towers; the MLP widths may lack the recipe's padding.
        tensors: every weight.
        file_bytes: size of the file with tokenizer, graphs and manifest; ``None`` for a recipe.
        forms: tower → compute forms that there are graphs of.
        passed: compute form → whether it met the recipe's gate when the file was verified; forms that were not
            verified are not there.
        int8_known: whether it is known which matrices form ``int8`` leaves exact; an export finds that out.
        weights_sha256: hash of all weights and graphs; ``None`` for a recipe. The same in every copy of a file.
    """

    model: str
    variant: str
    origin: Origin
    path: str | None
    architecture: Architecture
    tensors: tuple[Tensor, ...]
    file_bytes: int | None
    forms: Mapping[TowerName, tuple[Form, ...]]
    passed: Mapping[str, bool]
    int8_known: bool
    weights_sha256: str | None

    @cached_property
    def towers(self) -> tuple[TowerName, ...]:
        """The towers that are there."""
        present = {t.tower for t in self.tensors}
        return tuple(name for name in TOWERS if name in present)

    @cached_property
    def _by_tower(self) -> dict[TowerName, tuple[Tensor, ...]]:
        return {name: tuple(t for t in self.tensors if t.tower == name) for name in TOWERS}

    def of(self, tower: TowerName) -> tuple[Tensor, ...]:
        """The weights of one tower."""
        return self._by_tower[tower]

    def nbytes(self, tower: TowerName) -> int:
        """Bytes of one tower's weights on disk."""
        return sum(t.nbytes for t in self.of(tower))


def from_plan(model: str, plan: Plan) -> Stored:
    """A variant that has not been exported. Form ``int8`` is taken to leave no matrix exact."""
    rounded = {form: frozenset().union(*(plan.rounded(tower, form) for tower in TOWERS)) for form in FORMS}
    packings = {
        t.spec.name: {form: p for form in FORMS if (p := _expected_packing(t, form, rounded[form]))}
        for t in plan.tensors
    }
    cut = {form: _expected_pieces(plan, form, packings) for form in FORMS}
    tensors = tuple(
        Tensor(
            name=t.spec.name,
            tower=t.spec.tower,
            kind=t.spec.kind,
            encoding=t.encoding.name,
            shape=t.spec.shape,
            nbytes=t.nbytes,
            packings=packings[t.spec.name],
            pieces={form: cut[form][t.spec.name] for form in FORMS if t.spec.name in cut[form]},
        )
        for t in plan.tensors
    )
    return Stored(
        model=model,
        variant=plan.recipe.name,
        origin="recipe",
        path=None,
        architecture=plan.source,
        tensors=tensors,
        file_bytes=None,
        forms={tower: FORMS for tower in TOWERS if plan.source.tower(tower) is not None},
        passed={},
        int8_known=False,
        weights_sha256=None,
    )


def _expected_packing(tensor: TensorPlan, form: Form, rounded: frozenset[str]) -> Packing | None:
    """How the exporter's graph will take a weight. The token table is never unpacked.

    Args:
        tensor: the weight.
        form: the graph's compute form.
        rounded: names of the matrices that the form multiplies in fewer bits.
    """
    spec = tensor.spec
    if spec.kind == "token":
        return None
    half = form in ("f16", "w4f16")
    if spec.kind == "bias" and spec.name.removesuffix("bias") + "weight" in rounded:
        return "dense16" if half else "dense"
    if spec.kind not in MULTIPLIED:
        return "dense"
    reduced = spec.name in rounded
    if form == "int8" and reduced:
        return "int8"
    if form == "f16" or tensor.encoding.name not in NBITS:
        return "dense16" if half and reduced else "dense"
    return "nbits16" if half and reduced else "nbits"


def _expected_pieces(
    plan: Plan, form: Form, packings: Mapping[str, Mapping[Form, Packing]]
) -> dict[str, Cut]:
    """How many pieces the exporter's graphs will take weights in."""
    found: dict[str, Cut] = {}
    for name in TOWERS:
        tower = plan.architecture.tower(name)
        if tower is not None:
            packed = (t for t in plan.of(name) if packings[t.spec.name].get(form) == "nbits")
            found.update(cuts(tower, {t.spec.name: t.spec.shape for t in packed}))
    return found


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
            hint="pip install 'sigrun[cpu,hwcheck]' (in a clone: '.[cpu,hwcheck]')",
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
    graphs = {
        tower: {form: forms[form] for form in FORMS if form in forms}
        for tower, forms in manifest.graphs.items()
    }
    if not all(graphs.values()) or not graphs:
        raise StoredFileError(
            f"{path}: has no graph of a compute form that this version knows ({', '.join(FORMS)})",
            hint="export the model again, or update Sigrun",
        )
    tensors = []
    for t in artifact.tensors.values():
        of = graphs[t.tower]
        takes = {form: graph.weights[t.name] for form, graph in of.items() if t.name in graph.weights}
        cut = {
            form: (graph.pieces[t.name].axis, graph.pieces[t.name].count)
            for form, graph in of.items()
            if t.name in graph.pieces
        }
        if t.encoding not in NBITS and {"nbits", "nbits16"} & set(takes.values()):
            raise StoredFileError(
                f"{path}: {t.name} is stored as {t.encoding}, which this version does not know"
            )
        tensors.append(Tensor(t.name, t.tower, t.kind, t.encoding, t.shape, t.nbytes, takes, cut))
    verification = manifest.verification
    return Stored(
        model=manifest.model,
        variant=manifest.variant,
        origin="file",
        path=path,
        architecture=architecture,
        tensors=tuple(tensors),
        file_bytes=artifact.nbytes,
        forms={tower: tuple(graphs[tower]) for tower in TOWERS if tower in graphs},
        passed={} if verification is None else {n: form.passed for n, form in verification.forms.items()},
        int8_known=True,
        weights_sha256=_weights_sha256(artifact),
    )


def _weights_sha256(artifact: Artifact) -> str:
    """Hash of the hashes of all that a session is made of."""
    manifest = artifact.manifest
    lines = [f"{name!r} {t.encoding} {t.shape} {t.sha256}" for name, t in sorted(manifest.tensors.items())]
    lines += [
        f"{tower} {form} {graph.sha256}"
        for tower, forms in sorted(manifest.graphs.items())
        for form, graph in sorted(forms.items())
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
