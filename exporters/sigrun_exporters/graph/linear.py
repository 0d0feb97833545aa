"""Linear layers in each compute form.

====== ================================================ ============================
form   the matrices that it rounds                      what is multiplied by them
====== ================================================ ============================
exact  the stored numbers                               float32
int8   rounded to int8                                  rounded to uint8
f16    the stored numbers, dense float16                float16
w4f16  the stored numbers packed, with float16 scales   float16
====== ================================================ ============================

Those are the matrices of the layers (:meth:`sigrun_recipes.Plan.rounded`). Patches, pooling head and text head cost
little and stay float32, but for the head's keys and values in ``int8``; so does a matrix that is asked to.

Dense weights go to ``Gemm``. Quantized ones stay packed in ``exact`` and ``w4f16``: each block's scale, and for Q4_K
its minimum as a float zero point, map onto ``MatMulNBits`` without loss (see :mod:`sigrun.nbits`). Q5_K's minima meet
the sums of the activations over each block in a small ``Gemm`` of their own.
"""

from __future__ import annotations

from typing import Literal, get_args

from sigrun.nbits import NBITS_FORMS
from sigrun_exporters.graph.builder import MICROSOFT, GraphBuilder, Real, Value
from sigrun_recipes import TensorPlan

Form = Literal["exact", "int8", "f16", "w4f16"]
FORMS: tuple[Form, ...] = get_args(Form)
HALF_FORMS: tuple[Form, ...] = ("f16", "w4f16")


def linear(
    graph: GraphBuilder, x: Value, weight: TensorPlan, bias: TensorPlan, form: Form, *, reduced: bool
) -> Value:
    """x [n, K] times weight [N, K] transposed, plus bias [N] → [n, N].

    The result is float16 where the product is, else float32. Unless ``reduced`` the matrix is multiplied in float32
    whatever the form.
    """
    if form == "int8" and reduced:
        return _int8(graph, x, weight, bias)
    real: Real = "float16" if form in HALF_FORMS and reduced else "float32"
    if form == "f16" or weight.encoding.name not in NBITS_FORMS:
        return _dense(graph, x, weight, bias, real)
    return _nbits(graph, x, weight, bias, real)


def _int8(graph: GraphBuilder, x: Value, weight: TensorPlan, bias: TensorPlan) -> Value:
    """Activations are quantized when they come, one scale and zero point for all of them.

    Matrices that multiply the same activations share that. Where there is but one, ONNX Runtime fuses both steps.
    """
    name = weight.spec.name
    rows, columns = weight.spec.shape
    graph.weights[name] = "int8"
    quantized, scale, zero = graph.quantized(graph.cast(x, "float32"))
    return graph.node(
        "MatMulIntegerToFloat",
        quantized,
        graph.external(f"{name}.int8", (columns, rows), "int8"),
        scale,
        graph.external(f"{name}.int8_scales", (rows,), "float32"),
        zero,
        "",  # zero points of the weights: symmetric
        graph.dense(bias.spec.name, bias.spec.shape),
        domain=MICROSOFT,
        name=_label(weight),
    )


def _dense(graph: GraphBuilder, x: Value, weight: TensorPlan, bias: TensorPlan, real: Real) -> Value:
    declare = graph.dense if real == "float32" else graph.dense16
    return graph.node(
        "Gemm",
        graph.cast(x, real),
        declare(weight.spec.name, weight.spec.shape),
        declare(bias.spec.name, bias.spec.shape),
        name=_label(weight),
        transB=1,
    )


def _nbits(graph: GraphBuilder, x: Value, weight: TensorPlan, bias: TensorPlan, real: Real) -> Value:
    name = weight.spec.name
    rows, columns = weight.spec.shape
    form = NBITS_FORMS[weight.encoding.name]
    label = _label(weight)
    x = graph.cast(x, real)
    declare = graph.dense if real == "float32" else graph.dense16
    graph.weights[name] = "nbits" if real == "float32" else "nbits16"
    blocks = columns // form.block_size
    inputs = [
        x,
        graph.external(f"{name}.q", (rows, blocks, form.block_size * form.bits // 8), "uint8"),
        graph.external(f"{name}.scales", (rows, blocks), real),
        graph.external(f"{name}.zeros", (rows, blocks), real) if form.offset == "zeros" else "",
        "",  # g_idx, deprecated
        declare(bias.spec.name, bias.spec.shape),
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
    minima = graph.external(f"{name}.minima", (rows, blocks), real)
    sums = _block_sums(graph, x, blocks, form.block_size)
    return graph.node("Gemm", sums, minima, y, name=f"{label}.minima", alpha=-1.0, transB=1)


def _block_sums(graph: GraphBuilder, x: Value, blocks: int, block_size: int) -> Value:
    """Sums of x [n, K] over each block: [n, blocks]."""
    by_block = graph.node("Reshape", x, graph.shape(-1, blocks, block_size))
    return graph.node("ReduceSum", by_block, graph.shape(-1), keepdims=0)


def _label(weight: TensorPlan) -> str:
    return weight.spec.name.removesuffix(".weight")
