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
the sums of the activations over each block in a small ``Gemm`` of their own. Large ones are multiplied in pieces (see
:mod:`sigrun_recipes.pieces`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal, get_args

from sigrun.nbits import NBITS_FORMS, Pieces
from sigrun_exporters.graph.builder import MICROSOFT, GraphBuilder, Real, Value
from sigrun_recipes import TensorPlan

Form = Literal["exact", "int8", "f16", "w4f16"]
FORMS: tuple[Form, ...] = get_args(Form)
HALF_FORMS: tuple[Form, ...] = ("f16", "w4f16")


def linear(
    graph: GraphBuilder,
    x: Value,
    weight: TensorPlan,
    bias: TensorPlan,
    form: Form,
    *,
    reduced: bool,
    count: int = 1,
) -> Value:
    """x [n, K] times weight [N, K] transposed, plus bias [N] → [n, N].

    The result is float16 where the product is, else float32. Unless ``reduced`` the matrix is multiplied in float32
    whatever the form. A packed one may be multiplied in ``count`` pieces of its outputs.
    """
    if form == "int8" and reduced:
        return _int8(graph, x, weight, bias)
    real: Real = "float16" if form in HALF_FORMS and reduced else "float32"
    if _is_packed(weight, form, reduced=reduced) and count > 1:
        return _in_pieces(graph, x, weight, bias, count)
    if form == "f16" or weight.encoding.name not in NBITS_FORMS:
        return _dense(graph, x, weight, bias, real)
    return _nbits(graph, x, weight, bias, real)


def _is_packed(weight: TensorPlan, form: Form, *, reduced: bool) -> bool:
    """Whether a matrix is taken packed and multiplied in float32."""
    return weight.encoding.name in NBITS_FORMS and form != "f16" and (form == "exact" or not reduced)


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
    graph.weights[name] = "nbits" if real == "float32" else "nbits16"
    declare = graph.dense if real == "float32" else graph.dense16
    given = declare(bias.spec.name, bias.spec.shape)
    rows, columns = weight.spec.shape
    return _product(graph, graph.cast(x, real), weight, name, given, (rows, columns), real)


def _in_pieces(graph: GraphBuilder, x: Value, weight: TensorPlan, bias: TensorPlan, count: int) -> Value:
    parts = [piece(graph, x, weight, bias, Pieces("outputs", count), number) for number in range(count)]
    return graph.node("Concat", *parts, axis=-1)


def packed(weights: Iterable[TensorPlan], form: Form, reduced: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Those of some matrices that :func:`linear` takes packed and multiplies in float32, with their shapes.

    Args:
        weights: the matrices.
        form: the compute form.
        reduced: names of those that it rounds.
    """
    return {t.spec.name: t.spec.shape for t in weights if _is_packed(t, form, reduced=t.spec.name in reduced)}


def piece(
    graph: GraphBuilder, x: Value, weight: TensorPlan, bias: TensorPlan, pieces: Pieces, number: int
) -> Value:
    """A piece of a packed matrix's product, float32.

    Of a matrix that is cut by its outputs, those of the piece, their bias added: x [n, K] → [n, N / count]. Of one that
    is cut by its inputs, what these inputs add to all outputs: x [n, K / count] → [n, N]; the bias is added by the
    first piece.
    """
    name = weight.spec.name
    rows, columns = weight.spec.shape
    graph.weights[name] = "nbits"
    graph.pieces[name] = pieces
    given = graph.dense(bias.spec.name, bias.spec.shape)
    if pieces.axis == "outputs":
        rows //= pieces.count
        first, last = (graph.shape(at * rows) for at in (number, number + 1))
        given = graph.node("Slice", given, first, last)
    else:
        columns //= pieces.count
        given = given if number == 0 else ""
    x = graph.cast(x, "float32")
    return _product(graph, x, weight, f"{name}.{number}", given, (rows, columns), "float32")


def _product(
    graph: GraphBuilder,
    x: Value,
    weight: TensorPlan,
    name: str,
    bias: Value,
    shape: tuple[int, int],
    real: Real,
) -> Value:
    """x [n, K] times a packed matrix [N, K], or a piece of one, whose initializers are called ``name``."""
    rows, columns = shape
    form = NBITS_FORMS[weight.encoding.name]
    label = name.replace(".weight", "")
    blocks = columns // form.block_size
    inputs = [
        x,
        graph.external(f"{name}.q", (rows, blocks, form.block_size * form.bits // 8), "uint8"),
        graph.external(f"{name}.scales", (rows, blocks), real),
        graph.external(f"{name}.zeros", (rows, blocks), real) if form.offset == "zeros" else "",
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
    minima = graph.external(f"{name}.minima", (rows, blocks), real)
    sums = _block_sums(graph, x, blocks, form.block_size)
    return graph.node("Gemm", sums, minima, y, name=f"{label}.minima", alpha=-1.0, transB=1)


def _block_sums(graph: GraphBuilder, x: Value, blocks: int, block_size: int) -> Value:
    """Sums of x [n, K] over each block: [n, blocks]."""
    by_block = graph.node("Reshape", x, graph.shape(-1, blocks, block_size))
    return graph.node("ReduceSum", by_block, graph.shape(-1), keepdims=0)


def _label(weight: TensorPlan) -> str:
    return weight.spec.name.removesuffix(".weight")
