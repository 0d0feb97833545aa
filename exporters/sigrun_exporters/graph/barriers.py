"""A graph with float16 in it, rewritten so that a provider without float16 computes what it asks for.

ONNX Runtime's CPU provider has few kernels for float16. It casts to float32 around the others, and then leaves out each
pair of casts that met: nothing is ever rounded. Here all is computed in float32, and every float16 result is cast to
float16 and back by nodes of the graph, which stay. That is what hardware does that takes float16 and sums in float32.

Operators of many steps are taken apart, and rounded where CUDA's kernels hold float16: the weights of ``MatMulNBits``
once they are unpacked, the shares of ``MultiHeadAttention``, each step of ``FastGelu``. All else is rounded once, at
its result. Not told: in which order a kernel sums, and partial sums that some kernels hold in float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sigrun_exporters.graph.builder import Value

MOVES = ("Reshape",)  # operators that compute nothing, so that there is nothing to round
GELU = (0.5, np.sqrt(2 / np.pi), 0.044715 * np.sqrt(2 / np.pi))  # FastGelu's constants


def with_barriers(model: bytes) -> bytes:
    """The same graph computed in float32, every result that was float16 rounded to it.

    Inputs, outputs and initializers stay as they are. A session must run it without optimising it.

    Args:
        model: a serialized graph that :func:`sigrun_exporters.graph.build` made.
    """
    proto = onnx.load_from_string(model)
    rewriter = _Rewriter(proto.graph.initializer)
    for node in proto.graph.node:
        rewriter.add(node)
    del proto.graph.node[:]
    proto.graph.node.extend(rewriter.nodes)
    proto.graph.initializer.extend(rewriter.constants.values())
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized


class _Rewriter:
    """Copies nodes in order. A value that was float16 keeps its name, and is float32 that holds float16's numbers."""

    def __init__(self, initializers: Iterable[TensorProto]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._stored = {t.name for t in initializers if t.data_type == TensorProto.FLOAT16}
        self._half = set(self._stored)  # values that are float16 in the graph given
        self._steps: dict[str, Callable[[onnx.NodeProto], None]] = {
            "FastGelu": self._gelu,
            "MatMulNBits": self._nbits,
            "MultiHeadAttention": self._attention,
        }

    def add(self, node: onnx.NodeProto) -> None:
        """Take the next node over."""
        if node.op_type == "Cast":
            self._cast(node)
        elif node.input[0] not in self._half:
            self.nodes.append(node)
        else:
            self._half.update(node.output)
            self._steps.get(node.op_type, self._once)(node)

    def _cast(self, node: onnx.NodeProto) -> None:
        (source,), (result,) = node.input, node.output
        if next(a.i for a in node.attribute if a.name == "to") == TensorProto.FLOAT16:
            self._half.add(result)
            self._round(source, result)
        else:
            self._op("Identity", source, result=result)

    def _once(self, node: onnx.NodeProto) -> None:
        """A node as it is, its result rounded."""
        (result,) = node.output
        wide = onnx.NodeProto()
        wide.CopyFrom(node)
        wide.input[:] = [self._wide(x) for x in node.input]
        if node.op_type not in MOVES:
            wide.output[:] = [f"{result}.float32"]
            self.nodes.append(wide)
            self._round(wide.output[0], result)
        else:
            self.nodes.append(wide)

    def _gelu(self, node: onnx.NodeProto) -> None:
        (x,), (result,) = node.input, node.output
        a, b, c = (self._constant(np.float32(np.float16(v))) for v in GELU)
        step = self._rounded
        inner = step("Mul", x, step("Add", step("Mul", step("Mul", c, x), x), b))
        step("Mul", x, step("Add", a, step("Mul", a, step("Tanh", inner))), result=result)

    def _nbits(self, node: onnx.NodeProto) -> None:
        """scale * (q - zero), rounded, and the product with it."""
        x, q, scales, zeros, _, bias = node.input
        attributes = {a.name: a.i for a in node.attribute}
        columns, rows, bits, block = (attributes[k] for k in ("K", "N", "bits", "block_size"))
        if bits == 4:
            # The nibbles of a block lie one half after the other here, so that columns of x change places likewise.
            low = self._op("BitwiseAnd", q, self._constant(np.uint8(15)))
            high = self._op("BitShift", q, self._constant(np.uint8(4)), direction="RIGHT")
            q = self._op("Concat", low, high, axis=-1)
            by_pair = self._op("Reshape", x, self._constant(np.array([-1, columns // block, block // 2, 2])))
            parted = self._op("Transpose", by_pair, perm=[0, 1, 3, 2])
            x = self._op("Reshape", parted, self._constant(np.array([-1, columns])))
        steps = self._op("Cast", q, to=TensorProto.FLOAT)
        last = self._constant(np.array([-1]))
        zero = (
            self._op("Unsqueeze", self._wide(zeros), last)
            if zeros
            else self._constant(np.float32(1 << (bits - 1)))
        )
        scale = self._op("Unsqueeze", self._wide(scales), last)
        weights = self._rounded("Mul", self._op("Sub", steps, zero), scale)
        matrix = self._op("Reshape", weights, self._constant(np.array([rows, columns])))
        self._rounded("Gemm", x, matrix, self._wide(bias), result=node.output[0], transB=1)

    def _attention(self, node: onnx.NodeProto) -> None:
        (heads,) = (a.i for a in node.attribute if a.name == "num_heads")
        # [b, token, width] → [b, token, heads, head width]
        shape = self._constant(np.array([0, 0, heads, -1]))
        q, k, v = (self._op("Reshape", x, shape) for x in node.input)
        q, v = (self._op("Transpose", x, perm=[0, 2, 1, 3]) for x in (q, v))
        width = self._op("Cast", self._op("Shape", q, start=3, end=4), to=TensorProto.FLOAT)
        q = self._op("Div", q, self._op("Sqrt", width))
        scores = self._op("MatMul", q, self._op("Transpose", k, perm=[0, 2, 3, 1]))
        mixed = self._rounded("MatMul", self._rounded("Softmax", scores, axis=-1), v)
        by_token = self._op("Transpose", mixed, perm=[0, 2, 1, 3])
        self._op("Reshape", by_token, self._constant(np.array([0, 0, -1])), result=node.output[0])

    def _wide(self, value: Value) -> Value:
        """A node's input as float32; weights are cast anew for each node, so that no more than one of them is held."""
        return self._op("Cast", value, to=TensorProto.FLOAT) if value in self._stored else value

    def _rounded(self, op: str, *inputs: Value, result: Value = "", **attributes: Any) -> Value:
        return self._round(self._op(op, *inputs, **attributes), result)

    def _round(self, value: Value, result: Value = "") -> Value:
        half = self._op("Cast", value, to=TensorProto.FLOAT16)
        return self._op("Cast", half, result=result, to=TensorProto.FLOAT)

    def _op(self, op: str, *inputs: Value, result: Value = "", **attributes: Any) -> Value:
        name = result or f"step_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"barriers/{name}", **attributes))
        return name

    def _constant(self, array: np.ndarray[Any, Any] | np.generic) -> Value:
        values = np.asarray(array)
        name = f"barrier_{values.dtype.name}_{'_'.join(map(str, values.reshape(-1)))}_{values.ndim}"
        self.constants.setdefault(name, numpy_helper.from_array(values, name))
        return name
