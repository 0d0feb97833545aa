"""Writes ONNX graphs node by node, their weights declared but not held.

Weights are initializers marked *external*: the runtime hands over the arrays when it creates the session, and writes
int8 matrices to a file of its own (:mod:`sigrun.prepared`); or a bundle writer fills in where they lie on disk. Small
constants (shapes, scales) are inline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sigrun.manifest import Packing
from sigrun.nbits import Pieces
from sigrun.prepared import MATRICES, places

OPSET = 20
MICROSOFT = "com.microsoft"
MICROSOFT_VERSION = 1
IR_VERSION = 10
ELSEWHERE = "weights"  # the location that external initializers name; never a file of that name
INT8 = ".int8"
Real = Literal["float32", "float16"]
_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}

Value = str
"""The name of a value in the graph."""


class GraphBuilder:
    """One graph in the making.

    Attributes:
        weights: collects tensor name → packing, in graph order.
        pieces: collects the matrices that are taken in pieces.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.weights: dict[str, Packing] = {}
        self.pieces: dict[str, Pieces] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._scope: list[str] = []
        self._counts: dict[str, int] = {}
        self._half: set[Value] = set()  # values of type float16; all others are float32
        self._cast: dict[tuple[Value, Real], Value] = {}
        self._quantized: set[Value] = set()

    def input(self, name: str, shape: Sequence[int | str]) -> Value:
        """A float32 input; extents given as words are free."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def output(self, value: Value, name: str, shape: Sequence[int | str]) -> None:
        """Give ``value`` out under ``name``, float32."""
        value = self.cast(value, "float32")
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def node(self, op: str, *inputs: Value, domain: str = "", name: str = "", **attributes: Any) -> Value:
        """Add a node with one output, of its first input's type, and give its name."""
        label = name or op
        count = self._counts.get(label, 0)
        self._counts[label] = count + 1
        unique = label if count == 0 and name else f"{label}_{count}"
        self._nodes.append(
            helper.make_node(op, list(inputs), [unique], name=unique, domain=domain, **attributes)
        )
        if inputs[0] in self._half:
            self._half.add(unique)
        return unique

    def quantized(self, x: Value) -> tuple[Value, Value, Value]:
        """x rounded to uint8 when it comes, with its scale and zero point; once, however often it is asked for."""
        names = (f"{x}/uint8", f"{x}/scale", f"{x}/zero")
        if x not in self._quantized:
            self._quantized.add(x)
            self._nodes.append(
                helper.make_node("DynamicQuantizeLinear", [x], list(names), name=f"{x}/quantize")
            )
        return names

    def is_half(self, value: Value) -> bool:
        """Whether ``value`` is float16."""
        return value in self._half

    def cast(self, value: Value, to: Real) -> Value:
        """``value`` as float32 or float16; itself if that is its type, and cast once however often it is asked for."""
        if (value in self._half) == (to == "float16"):
            return value
        if (value, to) not in self._cast:
            cast = self._cast[value, to] = self.node("Cast", value, to=_TYPES[to])
            self._cast[cast, "float16" if to == "float32" else "float32"] = value
            if to == "float16":
                self._half.add(cast)
            else:
                self._half.discard(cast)  # a node takes its first input's type, but not this one
        return self._cast[value, to]

    def constant(self, array: NDArray[Any]) -> Value:
        """A small inline constant; equal ones are shared."""
        tensor = numpy_helper.from_array(array)
        name = f"constant_{array.dtype.name}_{'x'.join(map(str, array.shape)) or 'scalar'}_{_digest(array)}"
        tensor.name = name
        self._initializers.setdefault(name, tensor)
        return name

    def shape(self, *extents: int) -> Value:
        """A shape constant."""
        return self.constant(np.array(extents, np.int64))

    def external(self, name: str, shape: Sequence[int], dtype: str) -> Value:
        """Declare an initializer whose values come with the session."""
        if name not in self._initializers:
            tensor = TensorProto(name=name, data_type=_TYPES[dtype], dims=list(shape))
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=ELSEWHERE)
            self._initializers[name] = tensor
            if dtype == "float16":
                self._half.add(name)
        return name

    def _place_matrices(self) -> None:
        """Say where the runtime writes the int8 matrices, for ONNX Runtime to read them one at a time."""
        matrices = {n.removesuffix(INT8): t for n, t in self._initializers.items() if n.endswith(INT8)}
        for name, place in places({n: tuple(t.dims) for n, t in matrices.items()}).items():
            entries = (("location", MATRICES), ("offset", place.offset), ("length", place.nbytes))
            del matrices[name].external_data[:]
            for key, value in entries:
                matrices[name].external_data.add(key=key, value=str(value))

    def dense(self, name: str, shape: Sequence[int]) -> Value:
        """Declare a weight that the graph takes as float32."""
        self.weights[name] = "dense"
        return self.external(name, shape, "float32")

    def dense16(self, name: str, shape: Sequence[int]) -> Value:
        """Declare a weight that the graph takes as float16."""
        self.weights[name] = "dense16"
        return self.external(name, shape, "float16")

    def build(self) -> bytes:
        """The serialized model. Equal graphs give equal bytes."""
        self._place_matrices()
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        model = helper.make_model(
            graph,
            producer_name="sigrun",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, MICROSOFT_VERSION)],
        )
        serialized: bytes = model.SerializeToString(deterministic=True)
        return serialized


def _digest(array: NDArray[Any]) -> str:
    return array.tobytes().hex()
