"""The three graphs that transformers.js and optimum look for: vision, text, and both joined up to the logits."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sigrun.scores import Scoring
from sigrun_exporters.graph.builder import IR_VERSION, MICROSOFT, MICROSOFT_VERSION, OPSET
from sigrun_exporters.onnx_bundle.model_file import external_names
from sigrun_exporters.onnx_bundle.towers import Model
from sigrun_recipes import TowerName

EMBEDDING: dict[TowerName, str] = {"image": "image_embeds", "text": "text_embeds"}
POOLED = "pooler_output"
HIDDEN = "last_hidden_state"
_PASSES_ON = ("Identity", "Cast")


def add_pooler_output(model: Model, tower: TowerName) -> None:
    """Give the embedding before it is brought to unit length, as transformers' towers do."""
    graph = model.proto.graph
    embedding = EMBEDDING[tower]
    unit = _producer(graph, embedding)
    while unit.op_type in _PASSES_ON:
        unit = _producer(graph, unit.input[0])
    if unit.op_type != "LpNormalization":
        raise ValueError(f"{embedding} comes from {unit.op_type}, not from LpNormalization")
    _give(graph, unit.input[0], POOLED, next(o for o in graph.output if o.name == embedding))


def add_last_hidden_state(model: Model) -> None:
    """Give the text tower's final norm of every token, of which the graph itself needs the last only."""
    graph = model.proto.graph
    norm = next(n for n in graph.node if n.name == "t.post_ln")
    last = _producer(graph, norm.input[0])
    while last.op_type in _PASSES_ON:
        last = _producer(graph, last.input[0])
    if last.op_type != "Gather":
        raise ValueError(f"the final norm is given tokens by {last.op_type}, not by Gather")
    every = onnx.NodeProto()
    every.CopyFrom(norm)
    every.name, every.input[0], every.output[0] = "hub/norm", "hub/tokens", "hub/normed"
    graph.node.append(_cast(last.input[0], "hub/tokens"))
    graph.node.append(every)
    embedding = next(o for o in graph.output if o.name == EMBEDDING["text"])
    _give(graph, "hub/normed", HIDDEN, embedding)
    ids = graph.input[0].type.tensor_type.shape
    width = next(t for t in graph.initializer if t.name == norm.input[1]).dims[0]
    shape = graph.output[-1].type.tensor_type.shape
    del shape.dim[:]
    shape.dim.extend([*ids.dim, onnx.TensorShapeProto.Dimension(dim_value=width)])


def _give(graph: onnx.GraphProto, value: str, name: str, like: onnx.ValueInfoProto) -> None:
    output = onnx.ValueInfoProto()
    output.CopyFrom(like)
    output.name = name
    graph.node.append(_cast(value, name))
    graph.output.append(output)


def _cast(value: str, name: str) -> onnx.NodeProto:
    """To float32, where the form computes in float16; otherwise it costs nothing."""
    return helper.make_node("Cast", [value], [name], name=f"cast/{name}", to=TensorProto.FLOAT)


def _producer(graph: onnx.GraphProto, value: str) -> onnx.NodeProto:
    found: onnx.NodeProto = next(n for n in graph.node if value in n.output)
    return found


def joint_model(image: Model, text: Model, scoring: Scoring) -> Model:
    """``input_ids`` and ``pixel_values`` to logits of every picture with every text, and both embeddings."""
    graph = onnx.GraphProto(name="siglip")
    for tower, model in (("text", text), ("image", image)):
        _take_in(graph, model, tower)
    scale = np.array(math.exp(scoring.logit_scale), np.float32)
    constants = {"scale": scale, "bias": np.array(scoring.logit_bias, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(a, f"scores/{name}") for name, a in constants.items())
    graph.node.extend(
        [
            helper.make_node("Transpose", ["image_embeds"], ["scores/pictures"], perm=[1, 0]),
            helper.make_node("MatMul", ["text_embeds", "scores/pictures"], ["scores/cosine"]),
            helper.make_node("Mul", ["scores/cosine", "scores/scale"], ["scores/scaled"]),
            helper.make_node("Add", ["scores/scaled", "scores/bias"], ["logits_per_text"]),
            helper.make_node("Transpose", ["logits_per_text"], ["logits_per_image"], perm=[1, 0]),
        ]
    )
    outputs = {o.name: o for o in graph.output if o.name in EMBEDDING.values()}
    del graph.output[:]
    pictures, texts = "image_batch_size", "text_batch_size"
    graph.output.extend(
        [
            helper.make_tensor_value_info("logits_per_image", TensorProto.FLOAT, [pictures, texts]),
            helper.make_tensor_value_info("logits_per_text", TensorProto.FLOAT, [texts, pictures]),
            outputs["text_embeds"],
            outputs["image_embeds"],
        ]
    )
    proto = helper.make_model(
        graph,
        producer_name="sigrun",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, MICROSOFT_VERSION)],
    )
    return Model(proto, {**text.weights, **image.weights}, {**text.pieces, **image.pieces})


def _take_in(graph: onnx.GraphProto, model: Model, tower: str) -> None:
    """Add a tower, its inner names made its own and its batch too."""
    part = onnx.GraphProto()
    part.CopyFrom(model.proto.graph)
    kept = {v.name for v in (*part.input, *part.output)} | external_names(model.proto) | {""}
    for tensor in part.initializer:
        if tensor.name not in kept:
            tensor.name = f"{tower}/{tensor.name}"
    for node in part.node:
        node.name = f"{tower}/{node.name}"
        for names in (node.input, node.output):
            names[:] = [name if name in kept else f"{tower}/{name}" for name in names]
    for value in (*part.input, *part.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = f"{tower}_batch_size"
    graph.node.extend(part.node)
    graph.initializer.extend(part.initializer)
    graph.input.extend(part.input)
    graph.output.extend(part.output)
