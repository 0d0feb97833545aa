"""Pictures to pixel values as an ONNX graph, for hosts that have no Pillow.

The graph resizes the columns of a picture first and its rows after, rounding to 8 bits in between, as Pillow does:
all of its versions before 13, and 13 with pictures that are not tall. It wants a picture turned upright, in RGB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from sigrun.errors import CheckpointError
from sigrun.pictures import open_picture
from sigrun.pixels import Preprocessing, to_pixels
from sigrun_exporters.graph.builder import IR_VERSION, OPSET, Value

_FILTERS: dict[str, dict[str, Any]] = {
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5},
    "bilinear": {"mode": "linear"},
}
"""Attributes of Resize that make Pillow's filter of that name."""


def preprocess_model(preprocessing: Preprocessing) -> onnx.ModelProto:
    """``picture`` uint8 [rows, columns, 3] of any size to ``pixel_values`` float32 [1, 3, height, width].

    Raises:
        CheckpointError: ONNX has no such filter as the model asks for.
    """
    if preprocessing.resample not in _FILTERS:
        raise CheckpointError(
            f"the model's pictures are resized with Pillow's '{preprocessing.resample}' filter, which ONNX's Resize "
            f"does not have; it has: {', '.join(_FILTERS)}",
            hint="export to gguf only",
        )
    height, width = preprocessing.height, preprocessing.width
    graph = _Nodes()
    planes = graph.add("Transpose", "picture", perm=[2, 0, 1])
    batch = graph.add("Unsqueeze", planes, graph.constant("first", np.array([0], np.int64)))
    sharper = {"antialias": 1, "exclude_outside": 1, **_FILTERS[preprocessing.resample]}
    if preprocessing.short_side is None:
        size = graph.constant("size", np.array([1, 3, height, width], np.int64))
        shaped = graph.add("Resize", batch, "", "", size, **sharper)
    else:
        size, start, end = _crop(graph, height, width, preprocessing.short_side)
        resized = graph.add("Resize", batch, "", "", size, **sharper)
        axes = graph.constant("axes", np.array([2, 3], np.int64))
        shaped = graph.add("Slice", resized, start, end, axes)
    # What a byte becomes is looked up: 256 values a channel, each rounded exactly as the runtime has it.
    channel = graph.constant("channel", (256 * np.arange(3, dtype=np.int32)).reshape(3, 1, 1))
    places = graph.add("Add", graph.add("Cast", shaped, to=TensorProto.INT32), channel)
    values = graph.constant("values", _values(preprocessing).reshape(-1))
    graph.add("Gather", values, places, result="pixel_values", axis=0)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "siglip_preprocess",
            [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["height", "width", 3])],
            [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, height, width])],
            initializer=graph.constants,
        ),
        producer_name="sigrun",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )


def _crop(graph: _Nodes, height: int, width: int, short_side: int) -> tuple[Value, Value, Value]:
    """The size before the crop as Resize takes it, and where the crop starts and ends: [2] each, rows first."""
    shape = graph.add(
        "Slice",
        graph.add("Shape", "picture"),
        graph.constant("zero", np.array([0], np.int64)),
        graph.constant("two", np.array([2], np.int64)),
    )
    shorter = graph.add("ReduceMin", shape, keepdims=1)
    stretched = graph.add("Mul", shape, graph.constant("short_side", np.array([short_side], np.int64)))
    whole = graph.add("Div", stretched, shorter)  # rounded down
    wanted = graph.constant("wanted", np.array([height, width], np.int64))
    spare = graph.add("Cast", graph.add("Sub", whole, wanted), to=TensorProto.FLOAT)
    half = graph.add("Round", graph.add("Mul", spare, graph.constant("half", np.array(0.5, np.float32))))
    start = graph.add("Cast", half, to=TensorProto.INT64)
    size = graph.add("Concat", graph.constant("planes", np.array([1, 3], np.int64)), whole, axis=0)
    return size, start, graph.add("Add", start, wanted)


class _Nodes:
    """Nodes and constants of a graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, op: str, *inputs: Value, result: Value | None = None, **attributes: Any) -> Value:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [result or name], name=name, **attributes))
        return result or name

    def constant(self, name: str, array: NDArray[Any]) -> Value:
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def _values(preprocessing: Preprocessing) -> NDArray[np.float32]:
    """What each byte becomes in each channel, float32 [3, 256]: the runtime's own answer for a grey ramp."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)  # [1, 256, 3]
    alike = Preprocessing(1, 256, preprocessing.mean, preprocessing.std, preprocessing.resample)
    return to_pixels(open_picture(ramp), alike)[:, 0]
