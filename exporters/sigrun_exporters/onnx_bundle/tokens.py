"""The token table inside a text graph: token ids to rows, of which only those at hand are turned into floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sigrun.manifest import Packing
from sigrun.nbits import NBITS_FORMS
from sigrun_exporters.graph.builder import ELSEWHERE, Value
from sigrun_recipes import TensorPlan

INPUT = "input_ids"


def table_packing(table: TensorPlan) -> Packing:
    """How a graph takes the token table: packed where it is stored so, else as the floats that are stored."""
    if table.encoding.name in NBITS_FORMS:
        return "nbits"
    return "dense16" if table.encoding.name == "f16" else "dense"


def take_ids(model: onnx.ModelProto, table: TensorPlan, context: int) -> None:
    """Make ``input_ids`` int64 [batch, context] the input of a text graph that takes ``inputs_embeds``.

    The rows are those of :func:`sigrun.blocks.rows_of`. Only operators of ONNX's own are used, and arithmetic on
    float32 only, so that any host can run it.
    """
    graph = model.graph
    embeds = graph.input[0]
    rows = _Rows(table, context)
    rows.add(embeds.name)
    nodes = [*rows.nodes, *graph.node]
    batch = embeds.type.tensor_type.shape.dim[0].dim_param
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.INT64, [batch, context]))
    graph.initializer.extend(rows.initializers.values())


class _Rows:
    """Nodes from ``input_ids`` to the rows of a table."""

    def __init__(self, table: TensorPlan, context: int) -> None:
        self.table = table
        self.context = context
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def add(self, result: Value) -> None:
        """Give the rows, float32 [batch, context, columns], as ``result``."""
        rows, columns = self.table.spec.shape
        packing = NBITS_FORMS.get(self.table.encoding.name)
        if packing is None:
            half = self.table.encoding.name == "f16"
            found = self._gather("", (rows, columns), TensorProto.FLOAT16 if half else TensorProto.FLOAT)
            self._node("Cast", found, to=TensorProto.FLOAT, result=result)
            return
        blocks = columns // packing.block_size
        stored = self._gather(".q", (rows, blocks, packing.block_size * packing.bits // 8), TensorProto.UINT8)
        q = self._node("Cast", stored, to=TensorProto.FLOAT)  # [batch, context, blocks, bytes]
        if packing.bits == 4:
            q = self._nibbles(q, blocks, packing.block_size)
        if packing.offset == "zeros":
            middle = self._by_block(".zeros", (rows, blocks))
        else:
            middle = self._constant("middle", np.array(128, np.float32))
        weights = self._node("Mul", self._node("Sub", q, middle), self._by_block(".scales", (rows, blocks)))
        if packing.offset == "minima":
            weights = self._node("Sub", weights, self._by_block(".minima", (rows, blocks)))
        shape = self._constant("shape", np.array([0, self.context, columns], np.int64))
        self._node("Reshape", weights, shape, result=result)

    def _nibbles(self, q: Value, blocks: int, block_size: int) -> Value:
        """Each byte as two numbers, the low nibble first: [batch, context, blocks, bytes] → [..., block_size]."""
        sixteenth = self._constant("sixteenth", np.array(1 / 16, np.float32))
        sixteen = self._constant("sixteen", np.array(16, np.float32))
        last = self._constant("last", np.array([-1], np.int64))
        high = self._node("Floor", self._node("Mul", q, sixteenth))
        low = self._node("Sub", q, self._node("Mul", high, sixteen))
        pairs = self._node(
            "Concat", self._node("Unsqueeze", low, last), self._node("Unsqueeze", high, last), axis=-1
        )
        shape = self._constant("blocks", np.array([0, self.context, blocks, block_size], np.int64))
        return self._node("Reshape", pairs, shape)

    def _gather(self, part: str, shape: tuple[int, ...], kind: int) -> Value:
        tensor = TensorProto(name=self.table.spec.name + part, data_type=kind, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=ELSEWHERE)
        self.initializers[tensor.name] = tensor
        return self._node("Gather", tensor.name, INPUT, axis=0)

    def _by_block(self, part: str, shape: tuple[int, int]) -> Value:
        """A number for each block of the rows: [batch, context, blocks, 1]."""
        found = self._gather(part, shape, TensorProto.FLOAT)
        return self._node("Unsqueeze", found, self._constant("last", np.array([-1], np.int64)))

    def _constant(self, name: str, array: NDArray[Any]) -> Value:
        tensor = numpy_helper.from_array(array, f"tokens/{name}")
        self.initializers[tensor.name] = tensor
        return tensor.name

    def _node(self, op: str, *inputs: Value, result: Value | None = None, **attributes: Any) -> Value:
        name = f"tokens/{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [result or name], name=name, **attributes))
        return result or name
