"""Our quantizers and decoder against ggml itself."""

from __future__ import annotations

import numpy as np
import pytest

from sigrun.blocks import decode
from sigrun_exporters.quantize import quantize

pytest.importorskip("ggml", reason="needs ggml-python (extra reference)")
from benchmarks import quantizers as q

pytestmark = pytest.mark.reference

WEIGHED = [False, True]


@pytest.mark.parametrize("known", WEIGHED, ids=["none", "importance"])
@pytest.mark.parametrize("columns", q.COLUMNS)
@pytest.mark.parametrize("kind", q.KINDS)
@pytest.mark.parametrize("encoding", q.COMPARED)
def test_no_worse_than_ggml(encoding: str, kind: str, columns: int, known: bool) -> None:
    weights = q.matrix(kind, 100_000 // columns, columns)
    found = q.compare(encoding, weights, q.importance_of(columns) if known else None)
    assert found.weighted <= 1
    if not known:  # with importance, the plain error is nobody's aim
        assert found.plain <= 1


@pytest.mark.parametrize("known", WEIGHED, ids=["none", "importance"])
@pytest.mark.parametrize("encoding", q.COMPARED)
def test_ggml_decodes_our_bytes_to_the_same_floats(encoding: str, known: bool) -> None:
    for kind in q.KINDS:
        weights = q.matrix(kind, 20, 2304)
        data = quantize(encoding, weights, q.importance_of(2304) if known else None).reshape(-1)
        assert np.array_equal(
            q.ggml_decode(encoding, data).view(np.uint32), decode(encoding, data).view(np.uint32)
        )


@pytest.mark.parametrize("encoding", q.COMPARED)
def test_we_decode_ggml_s_bytes_to_the_same_floats(encoding: str) -> None:
    data = q.ggml_quantize(encoding, q.matrix("model", 20, 2304)).reshape(-1)
    assert np.array_equal(
        q.ggml_decode(encoding, data).view(np.uint32), decode(encoding, data).view(np.uint32)
    )


@pytest.mark.parametrize("value", [0.0, 0.25, -0.25])
@pytest.mark.parametrize("encoding", q.COMPARED)
def test_constant_rows_are_no_worse_than_ggml_s(encoding: str, value: float) -> None:
    weights = np.full((2, 512), value, np.float32)
    errors = [
        np.abs(weights - decode(encoding, b.reshape(-1)).reshape(weights.shape)).max()
        for b in (quantize(encoding, weights), q.ggml_quantize(encoding, weights))
    ]
    assert errors[0] <= errors[1]
