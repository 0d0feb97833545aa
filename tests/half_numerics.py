"""Graphs computed in numpy, each value in the type that the graph gives it.

ONNX Runtime's CPU provider has no float16 kernels: it computes in float32 what a graph computes in float16, and leaves
out the casts between. What rounding and overflow do on hardware with float16 shows here. Products are summed in
float32, as such hardware does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from sigrun.artifact import Artifact
from sigrun.sessions import _unpack
from sigrun_exporters.graph import Graph

MICROSOFT = "com.microsoft"
Floats = NDArray[np.float32]


def _wide(x: NDArray[Any]) -> Floats:
    return x.astype(np.float32)


class Gemm(OpRun):
    op_domain = ""

    def _run(
        self, a: Any, b: Any, c: Any, alpha: float = 1, beta: float = 1, transA: int = 0, transB: int = 0
    ) -> Any:
        assert a.dtype == b.dtype == c.dtype
        assert (transA, transB, beta) == (0, 1, 1)
        return ((np.float32(alpha) * (_wide(a) @ _wide(b).T) + _wide(c)).astype(a.dtype),)


class FastGelu(OpRun):
    """Every step rounded, as a kernel that works in float16 throughout does."""

    op_domain = MICROSOFT

    def _run(self, x: Any) -> Any:
        a, b, c = (x.dtype.type(v) for v in (0.5, np.sqrt(2 / np.pi), 0.044715 * np.sqrt(2 / np.pi)))
        return (x * (a + a * np.tanh(x * (c * x * x + b))),)


class MatMulNBits(OpRun):
    op_domain = MICROSOFT

    def _run(
        self,
        a: Any,
        q: Any,
        scales: Any,
        zeros: Any,
        g_idx: Any,
        bias: Any,
        K: int,
        N: int,
        bits: int,
        block_size: int,
    ) -> Any:
        assert g_idx is None
        assert a.dtype == scales.dtype == bias.dtype
        assert zeros is None or zeros.dtype == a.dtype
        weights = operator_weights(bits, q, scales, zeros).reshape(N, K)
        return ((_wide(a) @ _wide(weights.astype(a.dtype)).T + _wide(bias)).astype(a.dtype),)


class MultiHeadAttention(OpRun):
    op_domain = MICROSOFT

    def _run(self, q: Any, k: Any, v: Any, num_heads: int) -> Any:
        assert q.dtype == k.dtype == v.dtype
        real = q.dtype
        batch, tokens, width = q.shape
        q, k, v = (
            _wide(x).reshape(batch, -1, num_heads, width // num_heads).swapaxes(1, 2) for x in (q, k, v)
        )
        scores = q @ k.swapaxes(2, 3) / np.float32(np.sqrt(width // num_heads))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = (shares / shares.sum(axis=-1, keepdims=True)).astype(real)
        return ((_wide(shares) @ v).swapaxes(1, 2).reshape(batch, tokens, width).astype(real),)


def operator_weights(
    bits: int, q: NDArray[np.uint8], scales: NDArray[Any], zeros: NDArray[Any] | None
) -> Floats:
    """scale * (q - zero) by blocks, computed in float32: [N, blocks, block size]."""
    if bits == 4:
        q = np.stack([q & 15, q >> 4], axis=-1).reshape(*q.shape[:-1], -1)
    zero = np.float32(1 << (bits - 1)) if zeros is None else _wide(zeros)[..., None]
    return _wide(scales)[..., None] * (q.astype(np.float32) - zero)


def computed(graph: Graph, artifact: Artifact, x: Floats) -> dict[str, Floats]:
    """The outputs of a tower's graph for a batch, the artifact's weights unpacked as the graph asks for."""
    weights = _unpack(artifact, list(graph.weights.items()), graph.pieces, 1)
    return evaluate(graph.model, {**weights, _source(graph.model): x})


def evaluate(model: bytes, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
    """The outputs of a graph; external initializers come with ``feeds``, in the type that the graph declares."""
    proto = onnx.load_from_string(model)
    inline = []
    for tensor in proto.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            inline.append(tensor)
            continue
        array = feeds[tensor.name]
        assert array.dtype == helper.tensor_dtype_to_np_dtype(tensor.data_type), tensor.name
        assert list(array.shape) == list(tensor.dims), tensor.name
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(inline)
    evaluator = ReferenceEvaluator(proto, new_ops=[Gemm, FastGelu, MatMulNBits, MultiHeadAttention])
    with np.errstate(over="ignore", invalid="ignore"):
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(feeds)), strict=True))


def _source(model: bytes) -> str:
    name: str = onnx.load_from_string(model).graph.input[0].name
    return name
