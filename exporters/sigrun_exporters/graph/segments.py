"""A tower cut into three small graphs that take their weights as inputs: stem, one layer, head.

Run one after the other they are the tower's function, with the weights of one segment in memory at a time. Layer 0's
graph serves every layer: only the names of the arrays differ. Beside its result each graph gives, where asked for by
name, the rows that its linear layers multiply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import TensorProto, helper

from sigrun_exporters.graph.builder import GraphBuilder, Value
from sigrun_exporters.graph.towers import TowerParts, tower_parts
from sigrun_recipes import Plan, TowerName

STREAM = "hidden"  # what flows from segment to segment: [batch * tokens, width]
INPUTS: dict[TowerName, str] = {"image": "pixel_values", "text": "inputs_embeds"}
OUTPUTS: dict[TowerName, str] = {"image": "image_embeds", "text": "text_embeds"}
SegmentName = Literal["stem", "layer", "head"]


@dataclass(frozen=True)
class Segment:
    """A part of a tower as a graph of its own.

    Attributes:
        model: the serialized graph.
        input: the graph input that is no weight.
        output: the graph output that is no observation.
        weights: graph inputs that are weights, called by their GGUF names; in a layer's graph by those of layer 0.
        observed: matrix of a linear layer → graph output that gives its input rows, [n, columns].
    """

    model: bytes
    input: str
    output: str
    weights: tuple[str, ...]
    observed: Mapping[str, str]


def segments(plan: Plan, tower: TowerName) -> dict[SegmentName, Segment]:
    """The three segments of a tower, for a plan that stores every tensor as ``f32``.

    Raises:
        ValueError: the model has no such tower, or the plan stores a matrix otherwise.
    """
    if other := sorted({t.encoding.name for t in plan.of(tower)} - {"f32"}):
        raise ValueError(f"segments run on f32 weights, and the plan has {', '.join(other)}")
    stem = _parts(plan, tower)
    _give(stem, stem.stem())
    layer = _parts(plan, tower)
    _give(layer, layer.block(_take(layer), 0))
    head = _parts(plan, tower)
    head.head(_take(head))
    return {
        "stem": _segment(stem, INPUTS[tower], f"{STREAM}_out"),
        "layer": _segment(layer, STREAM, f"{STREAM}_out"),
        "head": _segment(head, STREAM, OUTPUTS[tower]),
    }


class _WeightsAsInputs(GraphBuilder):
    """A graph whose dense weights come with each run."""

    def dense(self, name: str, shape: Sequence[int]) -> Value:
        if name not in self.weights:
            self.weights[name] = "dense"
            self.input(name, shape)
        return name

    def observe(self, value: Value, columns: int) -> None:
        """Make a value inside the graph one of its outputs, under its own name."""
        if all(output.name != value for output in self._outputs):
            self._outputs.append(_rows(value, columns))


def _rows(name: str, columns: int) -> onnx.ValueInfoProto:
    # A word of its own for each extent: the probe is one row beside a batch of tokens.
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"rows of {name}", columns])


def _parts(plan: Plan, tower: TowerName) -> TowerParts:
    return tower_parts(plan, tower, "exact", _WeightsAsInputs(f"siglip_{tower}"))


def _take(parts: TowerParts) -> Value:
    return parts.graph.input(STREAM, ("rows", parts.tower.width))


def _give(parts: TowerParts, x: Value) -> None:
    parts.graph.output(x, f"{STREAM}_out", ("rows", parts.tower.width))


def _segment(parts: TowerParts, source: str, result: str) -> Segment:
    graph = parts.graph
    assert isinstance(graph, _WeightsAsInputs)
    for name, value in parts.observed.items():
        graph.observe(value, parts.plans[name].spec.shape[1])
    return Segment(graph.build(), source, result, tuple(graph.weights), dict(parts.observed))
