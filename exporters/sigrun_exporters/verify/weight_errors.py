"""The relative error of each stored matrix, laid out as layer x part of its tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sigrun_recipes import Plan, TowerName

PARTS = ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down")
"""The matrices of a layer, and of the pooling head, in file order."""
HEAD = "v.head."


@dataclass(frozen=True)
class Cell:
    """One tensor: its name, what it is stored as, and the norm of what that changed over the norm of its weights."""

    tensor: str
    encoding: str
    error: float


@dataclass(frozen=True)
class TowerErrors:
    """One tower's tensors.

    Attributes:
        layers: for each layer, part → cell.
        head: the same for the image tower's pooling head; empty in the text tower.
        other: everything else that is not a norm or a bias.
        plain: how many norms and biases there are.
        plain_error: the largest error of any of them; they are stored as f32, so it is 0.
    """

    layers: tuple[Mapping[str, Cell], ...]
    head: Mapping[str, Cell]
    other: tuple[Cell, ...]
    plain: int
    plain_error: float

    def cells(self) -> list[Cell]:
        """Every cell, in file order but for the head, which comes before what else there is."""
        rows = [cell for row in (*self.layers, self.head) for cell in row.values()]
        return [*rows, *self.other]


def tower_errors(plan: Plan, errors: Mapping[str, float], tower: TowerName) -> TowerErrors:
    """Lay out the errors of one tower.

    Args:
        plan: how each tensor is stored.
        errors: tensor → relative error, of every tensor of the plan.
        tower: which one.
    """
    shape = plan.architecture.tower(tower)
    layers: list[dict[str, Cell]] = [{} for _ in range(shape.layers if shape is not None else 0)]
    head: dict[str, Cell] = {}
    other: list[Cell] = []
    plain: list[float] = []
    for tensor in plan.of(tower):
        spec = tensor.spec
        cell = Cell(spec.name, tensor.encoding.name, round(errors[spec.name], 8))
        part = spec.name.removesuffix(".weight").rsplit(".", 1)[-1]
        if spec.kind in ("norm", "bias"):
            plain.append(cell.error)
        elif spec.layer is not None and part in PARTS:
            layers[spec.layer][part] = cell
        elif spec.name.startswith(HEAD) and part in PARTS:
            head[part] = cell
        else:
            other.append(cell)
    return TowerErrors(tuple(layers), head, tuple(other), len(plain), max(plain, default=0.0))
