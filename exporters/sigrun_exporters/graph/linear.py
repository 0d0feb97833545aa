"""Linear layers in each compute form.

``exact`` multiplies the stored numbers in float32; ``int8`` rounds matrices and activations to 8 bits.

Dense float32 weights go to ``Gemm``. Quantized ones stay packed: each block's scale, and for Q4_K its minimum
as a float zero point, map onto ``MatMulNBits`` without loss (see :mod:`sigrun.nbits`). Q5_K's minima meet the sums
of the activations over each block in a small ``Gemm`` of their own.
"""

from __future__ import annotations

from typing import Literal, get_args

from sigrun.nbits import NBITS_FORMS
from sigrun_exporters.graph.builder import MICROSOFT, GraphBuilder, Value
from sigrun_recipes import TensorPlan

Form = Literal["exact", "int8"]
FORMS: tuple[Form, ...] = get_args(Form)


def linear(graph: GraphBuilder, x: Value, weight: TensorPlan, bias: Value, form: Form) -> Value:
    """x [n, K] times weight [N, K] transposed, plus bias [N] → [n, N].

    In form ``int8`` the layers' matrices are rounded to int8; patches, pooling head and text head stay exact.
    """
    if form == "int8" and weight.spec.layer is not None:
        return _int8(graph, x, weight, bias)
    return _exact(graph, x, weight, bias)


def _int8(graph: GraphBuilder, x: Value, weight: TensorPlan, bias: Value) -> Value:
    """Activations are quantized when they come, one scale and zero point for all of them."""
    name = weight.spec.name
    rows, columns = weight.spec.shape
    graph.weights[name] = "int8"
    return graph.node(
        "DynamicQuantizeMatMul",
        x,
        graph.external(f"{name}.int8", (columns, rows), "int8"),
        graph.external(f"{name}.int8_scales", (rows,), "float32"),
        "",  # zero points: symmetric
        bias,
        domain=MICROSOFT,
        name=name.removesuffix(".weight"),
    )


def _exact(graph: GraphBuilder, x: Value, weight: TensorPlan, bias: Value) -> Value:
    name = weight.spec.name
    rows, columns = weight.spec.shape
    form = NBITS_FORMS.get(weight.encoding.name)
    label = name.removesuffix(".weight")
    if form is None:
        return graph.node("Gemm", x, graph.dense(name, (rows, columns)), bias, name=label, transB=1)
    graph.weights[name] = "nbits"
    blocks = columns // form.block_size
    inputs = [
        x,
        graph.external(f"{name}.q", (rows, blocks, form.block_size * form.bits // 8), "uint8"),
        graph.external(f"{name}.scales", (rows, blocks), "float32"),
        graph.external(f"{name}.zeros", (rows, blocks), "float32") if form.offset == "zeros" else "",
        "",  # g_idx, deprecated
        bias,
    ]
    y = graph.node(
        "MatMulNBits",
        *inputs,
        domain=MICROSOFT,
        name=label,
        K=columns,
        N=rows,
        bits=form.bits,
        block_size=form.block_size,
    )
    if form.offset != "minima":
        return y
    minima = graph.external(f"{name}.minima", (rows, blocks), "float32")
    sums = _block_sums(graph, x, blocks, form.block_size)
    return graph.node("Gemm", sums, minima, y, name=f"{label}.minima", alpha=-1.0, transB=1)


def _block_sums(graph: GraphBuilder, x: Value, blocks: int, block_size: int) -> Value:
    """Sums of x [n, K] over each block: [n, blocks]."""
    by_block = graph.node("Reshape", x, graph.shape(-1, blocks, block_size))
    return graph.node("ReduceSum", by_block, graph.shape(-1), keepdims=0)
