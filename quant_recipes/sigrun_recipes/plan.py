"""A recipe applied to an architecture: how each tensor will lie in the file, and what that weighs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sigrun_recipes.architecture import Architecture, TensorSpec, TowerName
from sigrun_recipes.encodings import ENCODINGS, Encoding
from sigrun_recipes.recipe import Recipe, RecipeFileError

MLP_MULTIPLE = 256


HEAD_IN_INT8 = frozenset({"v.head.attn_k.weight", "v.head.attn_v.weight"})


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor is stored.

    Attributes:
        spec: the tensor, with the shape it has after the recipe's rewrites.
        shape: the checkpoint's shape, before rewrites.
        encoding: what it is stored as.
        target: what the recipe asked for; differs where that did not fit the shape.
        fold: rows laid end to end: a [N, K] matrix is stored as [N / fold, fold * K].
    """

    spec: TensorSpec
    shape: tuple[int, ...]
    encoding: Encoding
    target: str
    fold: int

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape in the GGUF file, outermost extent first."""
        if self.fold == 1:
            return self.spec.shape
        rows, columns = self.spec.shape
        return rows // self.fold, columns * self.fold

    @property
    def nbytes(self) -> int:
        """Bytes of the stored tensor, without the file's alignment."""
        return self.encoding.nbytes(self.spec.size)


@dataclass(frozen=True)
class Plan:
    """Every tensor of a variant, and its weight in bytes."""

    recipe: Recipe
    source: Architecture
    architecture: Architecture
    tensors: tuple[TensorPlan, ...]

    def of(self, tower: TowerName) -> Iterator[TensorPlan]:
        """The tensors of one tower."""
        return (t for t in self.tensors if t.spec.tower == tower)

    def nbytes(self, tower: TowerName) -> int:
        """Bytes of one tower's tensors."""
        return sum(t.nbytes for t in self.of(tower))

    def bits_per_weight(self, tower: TowerName) -> float:
        """True bits per weight of one tower: its bytes over the weights of the checkpoint, padding not counted."""
        return 8 * self.nbytes(tower) / self.source.parameters(tower)

    def rounded(self, tower: TowerName, form: str) -> frozenset[str]:
        """Names of the matrices that a compute form multiplies in fewer bits than float32.

        Those of a tower's layers; in form ``int8`` also the pooling head's keys and values, which all tokens meet.
        """
        head = HEAD_IN_INT8 if form == "int8" else frozenset()
        return frozenset(
            t.spec.name
            for t in self.of(tower)
            if t.spec.kind == "linear" and (t.spec.layer is not None or t.spec.name in head)
        )

    def substitutions(self) -> tuple[TensorPlan, ...]:
        """Tensors that did not get the encoding the recipe asked for."""
        return tuple(t for t in self.tensors if t.encoding.name != t.target)


def plan(recipe: Recipe, architecture: Architecture) -> Plan:
    """Decide for every tensor of ``architecture`` how ``recipe`` stores it.

    Raises:
        RecipeFileError: a tensor named in ``[tensors]`` does not exist, no encoding fits a shape, or a tower
            exceeds the recipe's bits per weight.
    """
    padded = rewrite(recipe, architecture)
    before = {t.name: t.shape for t in architecture.tensors()}
    specs = tuple(padded.tensors())
    unknown = sorted(set(recipe.tensors) - {s.name for s in specs}) if _complete(architecture) else []
    if unknown:
        raise RecipeFileError(
            f"recipe {recipe.name}: tensors names '{unknown[0]}', which this model does not have"
        )
    if _complete(architecture):
        for number, rule in enumerate(recipe.rules):
            if not any(fnmatchcase(spec.name, rule.match) for spec in specs):
                raise RecipeFileError(
                    f"recipe {recipe.name}: rules[{number}] matches '{rule.match}', which no tensor is called"
                )
            if not any(rule.applies(spec, _layers(padded, spec)) for spec in specs):
                raise RecipeFileError(
                    f"recipe {recipe.name}: rules[{number}] is for layers {list(rule.layers or ())}, and no tensor "
                    f"that '{rule.match}' matches is in one of them"
                )
    planned = tuple(_plan_tensor(recipe, spec, before[spec.name], padded) for spec in specs)
    result = Plan(recipe, architecture, padded, planned)
    for tower in sorted({s.tower for s in specs}):
        bits = result.bits_per_weight(tower)
        if bits > recipe.max_bits_per_weight:
            substituted = len(result.substitutions())
            raise RecipeFileError(
                f"recipe {recipe.name}: the {tower} tower would take {bits:.2f} bits per weight, more than the "
                f"{recipe.max_bits_per_weight:g} of its limit.bits_per_weight"
                + (f"; {substituted} tensors got another encoding than asked for" if substituted else "")
            )
    return result


def rewrite(recipe: Recipe, architecture: Architecture) -> Architecture:
    """The architecture after the recipe's rewrites."""
    return architecture.with_mlp_multiple(MLP_MULTIPLE) if "pad_mlp" in recipe.rewrites else architecture


def _layers(architecture: Architecture, spec: TensorSpec) -> int:
    tower = architecture.tower(spec.tower)
    return tower.layers if tower is not None else 0


def _complete(architecture: Architecture) -> bool:
    return architecture.image is not None and architecture.text is not None


def _plan_tensor(
    recipe: Recipe, spec: TensorSpec, shape: tuple[int, ...], architecture: Architecture
) -> TensorPlan:
    tower = architecture.tower(spec.tower)
    assert tower is not None  # the spec came from this architecture
    target = recipe.target(spec, tower.layers)
    rows, columns = spec.shape if len(spec.shape) == 2 else (1, spec.size)
    for name in (target, *recipe.fallback):
        encoding = ENCODINGS[name]
        fold = encoding.fold(rows, columns)
        if fold is not None:
            return TensorPlan(spec, shape, encoding, target, fold)
    raise RecipeFileError(
        f"recipe {recipe.name}: {spec.name} of shape {list(spec.shape)} fits neither {target} nor a fallback "
        f"({', '.join(recipe.fallback) or 'none given'})"
    )
