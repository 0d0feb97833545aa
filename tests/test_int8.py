"""The int8 form: rounding, the CPU's limits, and what it costs on a trained model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from benchmarks.emoji_accuracy import drawings
from sigrun import ArtifactError, Siglip, int8
from sigrun.artifact import Artifact
from sigrun.blocks import decode
from sigrun.int8 import to_int8
from sigrun_exporters.quantize import ENCODERS, quantize


def test_the_probe_graph_is_what_it_says() -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "saturation",
        [
            helper.make_tensor_value_info("a", TensorProto.UINT8, [1, 64]),
            helper.make_tensor_value_info("b", TensorProto.INT8, [64, 16]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name=""
    )
    assert model.SerializeToString() == int8._PRODUCT


def test_the_largest_weight_multiplies_exactly_here() -> None:
    """Whatever this CPU is: with the largest weight that was found for it, sums of pairs do not saturate."""
    most = int8.largest()
    assert most in (63, 127)
    session = ort.InferenceSession(int8._PRODUCT, providers=["CPUExecutionProvider"])
    b = np.full((64, 16), most, np.int8)
    b[::2] = -most
    b[:, 3] = most
    a = np.full((1, 64), 255, np.uint8)
    product = session.run(None, {"a": a, "b": b})[0]
    np.testing.assert_array_equal(product, a.astype(np.int32) @ b.astype(np.int32))


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
@pytest.mark.parametrize(("rows", "columns"), [(16, 160), (4, 1152), (3, 256)])
@pytest.mark.parametrize("most", [63, 127])
def test_rounding_is_to_the_nearest_of_each_channel(
    encoding: str, rows: int, columns: int, most: int
) -> None:
    fold = 8 if columns == 160 else 2 if columns == 1152 else 1
    weights = np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)
    weights[1] = 0
    data = quantize(encoding, weights.reshape(rows // fold, fold * columns)).reshape(-1)
    stored = decode(encoding, data).reshape(rows, columns)
    found = to_int8(encoding, data, rows, columns, most)
    assert (found.q.shape, found.scales.shape) == ((columns, rows), (rows,))
    assert np.abs(found.q.astype(int)).max() == most
    np.testing.assert_allclose(found.scales, np.abs(stored).max(axis=1) / most, rtol=1e-6)
    error = np.abs(found.q.T * found.scales[:, None] - stored)
    assert (error <= 0.5001 * found.scales[:, None] + 1e-9).all()
    assert not found.q[:, 1].any()
    assert found.scales[1] == 0


def test_int8_keeps_the_answers_of_the_exact_form(emoji_q4: Path) -> None:
    pictures, captions = drawings()
    every = slice(None, None, 5)
    with Siglip.load(emoji_q4, compute="exact") as exact, Siglip.load(emoji_q4, compute="int8") as fast:
        assert fast.info.compute == "int8"
        for ours, theirs in (
            (fast.embed_images(pictures[every]), exact.embed_images(pictures[every])),
            (fast.embed_texts(captions[every]), exact.embed_texts(captions[every])),
        ):
            cosines = (ours.vectors * theirs.vectors).sum(axis=1)
            assert cosines.min() > 0.999
            assert cosines.mean() > 0.9995
            assert cosines.min() < 1 - 1e-6, "int8 must not be the exact form under another name"


def test_seven_bits_are_enough_for_the_bundled_model(emoji_q4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CPU without VNNI would compute with."""
    from sigrun import sessions

    monkeypatch.setattr(sessions, "largest", lambda: int8.SEVEN_BITS)
    pictures = drawings()[0][::10]
    with Siglip.load(emoji_q4, compute="exact") as exact, Siglip.load(emoji_q4, compute="int8") as fast:
        cosines = (fast.embed_images(pictures).vectors * exact.embed_images(pictures).vectors).sum(axis=1)
    assert cosines.min() > 0.998


def test_a_form_that_the_file_lacks_is_named(emoji_q4: Path) -> None:
    with (
        Artifact.open(emoji_q4) as artifact,
        pytest.raises(ArtifactError, match="form 'bf16'; it has: exact, f16, int8, w4f16"),
    ):
        artifact.graph("image", "bf16")
