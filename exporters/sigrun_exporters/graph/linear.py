"""Linear layers in form ``exact``: the stored numbers, multiplied in float32.

Dense float32 weights go to ``Gemm``. Quantized ones stay packed: each block's scale, and for Q4_K its minimum
as a float zero point, map onto ``MatMulNBits`` without loss (see :mod:`sigrun.blocks`).
"""

from __future__ import annotations

from dataclasses import dataclass

from sigrun.manifest import NBITS_PARTS
from sigrun_exporters.graph.builder import MICROSOFT, GraphBuilder, Value
from sigrun_recipes import TensorPlan


@dataclass(frozen=True)
class NBitsForm:
    """How MatMulNBits takes an encoding: ``zeros`` where its zero points are floats."""

    bits: int
    block_size: int
    zeros: bool


NBITS: dict[str, NBitsForm] = {
    "q4_k": NBitsForm(4, 32, True),
    "q6_k": NBitsForm(8, 16, False),
    "q8_0": NBitsForm(8, 32, False),
}


def linear(graph: GraphBuilder, x: Value, weight: TensorPlan, bias: Value) -> Value:
    """x [n, K] times weight [N, K] transposed, plus bias [N] → [n, N]."""
    name = weight.spec.name
    rows, columns = weight.spec.shape
    form = NBITS.get(weight.encoding.name)
    label = name.removesuffix(".weight")
    if form is None:
        return graph.node("Gemm", x, graph.dense(name, (rows, columns)), bias, name=label, transB=1)
    graph.weights[name] = "nbits"
    q, scales, zeros = (name + suffix for suffix in NBITS_PARTS)
    blocks = columns // form.block_size
    inputs = [
        x,
        graph.external(q, (rows, blocks, form.block_size * form.bits // 8), "uint8"),
        graph.external(scales, (rows, blocks), "float32"),
        graph.external(zeros, (rows, blocks), "float32") if form.zeros else "",
        "",  # g_idx, deprecated
        bias,
    ]
    return graph.node(
        "MatMulNBits",
        *inputs,
        domain=MICROSOFT,
        name=label,
        K=columns,
        N=rows,
        bits=form.bits,
        block_size=form.block_size,
    )
