"""Which matrices form ``int8`` leaves exact: the measure against ONNX Runtime's own kernels, and the search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from sigrun.artifact import Artifact
from sigrun.int8 import largest, to_int8
from sigrun.sessions import TowerSession
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_exporters.graph import build
from sigrun_exporters.int8_choice import (
    SAMPLED_ROWS,
    Sensitivity,
    SquaredErrors,
    choose,
    rounded_activations,
    rounding,
    squared_errors,
)
from sigrun_exporters.reference import Reference
from sigrun_recipes import plan
from tests import checkpoints
from tests.conftest import UNVERIFIED, roomy

Floats = NDArray[np.float32]


def run(op: str, x: Floats, *weights: NDArray[np.generic], outputs: int = 1) -> list[NDArray[np.generic]]:
    """One operator on the CPU."""
    names = [f"y{i}" for i in range(outputs)]
    types = [TensorProto.FLOAT] if outputs == 1 else [TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8]
    constants = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    graph = helper.make_graph(
        [
            helper.make_node(
                op, ["x", *(c.name for c in constants)], names, domain="com.microsoft" if weights else ""
            )
        ],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(n, t, None) for n, t in zip(names, types, strict=True)],
        constants,
    )
    model = helper.make_model(
        graph,
        ir_version=10,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[NDArray[np.generic]] = session.run(None, {"x": x})
    return found


@pytest.mark.parametrize("shift", [-30.0, -1.0, 0.0, 0.3, 30.0])
def test_activations_are_rounded_as_the_operator_rounds_them(shift: float) -> None:
    """A shift of 30 puts every value on one side of 0, which has a step of its own all the same."""
    x = (np.random.default_rng(0).standard_normal((50, 96)) + shift).astype(np.float32)
    q, scale, zero = run("DynamicQuantizeLinear", x, outputs=3)
    expected = (q.astype(np.int32) - zero.astype(np.int32)).astype(np.float32) * scale
    np.testing.assert_array_equal(rounded_activations(x), expected)
    np.testing.assert_array_equal(rounded_activations(x, slice(3, None, 7)), expected[3::7])


def test_activations_of_nothing_stay_nothing() -> None:
    assert not rounded_activations(np.zeros((3, 8), np.float32)).any()


def test_errors_are_those_of_the_operator() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 96)).astype(np.float32)
    x[:, 5] *= 40  # an outlier channel
    weights = rng.standard_normal((64, 96)).astype(np.float32)
    matrix = to_int8("f32", weights.reshape(-1).view(np.uint8), 64, 96, largest())
    found = squared_errors(x, weights, rounding(weights, matrix)).relative()

    result = x.astype(np.float64) @ weights.T
    form = run("DynamicQuantizeMatMul", x, matrix.q, matrix.scales)[0].astype(np.float64)
    assert found.both == pytest.approx(np.square(form - result).sum() / np.square(result).sum(), rel=1e-4)
    alone = x.astype(np.float64) @ (matrix.q.astype(np.float64) * matrix.scales) - result
    assert found.weights == pytest.approx(np.square(alone).sum() / np.square(result).sum(), rel=1e-4)
    assert found.activations > 10 * found.weights, "the outlier must show as an error of the activations"
    # Two roundings that know nothing of each other: their squares add up, but for chance.
    assert found.both == pytest.approx(found.activations + found.weights, rel=0.1)


def test_sums_over_observations(tiny_q4: Path) -> None:
    name = "v.blk.1.ffn_down.weight"
    rng = np.random.default_rng(2)
    batches = [rng.standard_normal((n, 240)).astype(np.float32) * s for n, s in ((5, 1), (3, 4), (60, 0.5))]
    with Artifact.open(tiny_q4) as artifact:
        assert artifact.tensors[name].shape[1] == 256, "the stored matrix must be wider than the checkpoint's"
        sensitivity = Sensitivity(artifact, [name, "v.blk.0.attn_q.weight"])
        for x in batches:
            sensitivity.observe(name, x)
            sensitivity.observe("v.head.attn_q.weight", x)  # not asked for
        sensitivity.observe(name, np.empty((0, 240), np.float32))
        weights = artifact.dense(name)
        change = rounding(weights, artifact.int8(name, 127))
    padded = [np.pad(x, ((0, 0), (0, 16))) for x in batches]
    expected = sum((squared_errors(x, weights, change) for x in padded), SquaredErrors()).relative()
    assert sensitivity.ranking() == [(name, pytest.approx(expected.both, rel=1e-5))]
    assert sensitivity.errors()[name].weights == pytest.approx(expected.weights, rel=1e-5)


def test_of_many_rows_a_sample_is_multiplied_and_all_count_for_the_scale(tiny_q4: Path) -> None:
    name = "v.blk.0.attn_q.weight"
    x = np.random.default_rng(3).standard_normal((10 * SAMPLED_ROWS, 96)).astype(np.float32)
    x[1] *= 100  # not in the sample
    with Artifact.open(tiny_q4) as artifact:
        sensitivity = Sensitivity(artifact, [name])
        sensitivity.observe(name, x)
        weights = artifact.dense(name)
        change = rounding(weights, artifact.int8(name, 127))
    expected = squared_errors(x, weights, change, slice(None, None, 10)).relative()
    assert sensitivity.errors()[name].both == pytest.approx(expected.both, rel=1e-5)
    without = squared_errors(x[::10], weights, change).relative()
    assert expected.activations > 100 * without.activations


def test_the_search_tries_the_worst_first_and_stops_when_it_may() -> None:
    ranking = [(f"m{i}", 1.0 / (i + 1)) for i in range(11)]
    tried = []

    def measure(exact: frozenset[str]) -> float:
        tried.append(exact)
        return 0.5 - 0.1 * len(exact & {"m0", "m3", "m4"})

    found = choose(ranking, measure, 0.25)
    assert [sorted(t) for t in tried] == [
        [],
        ["m0", "m1"],
        ["m0", "m1", "m2", "m3"],
        [f"m{i}" for i in range(8)],
    ]
    assert found.exact == tuple(f"m{i}" for i in range(8))
    assert [count for count, _ in found.trail] == [0, 2, 4, 8]
    assert found.trail[-1][1] == pytest.approx(0.2)

    assert choose(ranking, measure, 0.5).exact == ()
    given_up = choose(ranking, measure, 0.1)
    assert given_up.exact == tuple(sorted(name for name, _ in ranking))
    assert [count for count, _ in given_up.trail] == [0, 2, 4, 8, 11]
    assert choose([], measure, 0.1).trail == ((0, 0.5),)


OUTLIER = 1000.0
LAYERS = (1, 3)  # of the bundled model's image tower


@pytest.fixture(scope="module")
def outlier_ridden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with one channel of two layer norms made huge, and the matrices behind smaller to match.

    Its function in float32 is the same.
    """
    folder = checkpoints.EMOJI
    changed = tmp_path_factory.mktemp("outliers") / "outliers"
    changed.mkdir()
    for file in folder.iterdir():
        if file.name != "model.safetensors" and file.is_file():
            (changed / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    for layer in (f"vision_model.encoder.layers.{i}" for i in LAYERS):
        for part in ("weight", "bias"):
            weights[f"{layer}.layer_norm2.{part}"] = weights[f"{layer}.layer_norm2.{part}"].copy()
            weights[f"{layer}.layer_norm2.{part}"][7] *= OUTLIER
        weights[f"{layer}.mlp.fc1.weight"] = weights[f"{layer}.mlp.fc1.weight"].copy()
        weights[f"{layer}.mlp.fc1.weight"][:, 7] /= OUTLIER
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    return changed


def test_matrices_behind_outliers_are_found_and_leaving_them_exact_mends_the_form(
    outlier_ridden: Path, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(str(outlier_ridden))
    recipe = roomy("q8_0")
    planned = plan(recipe, checkpoint.architecture)
    guilty = {f"v.blk.{layer}.ffn_up.weight" for layer in LAYERS}
    image = checkpoint.architecture.image
    assert image is not None
    rng = np.random.default_rng(4)
    pixels = rng.uniform(-1, 1, (6, 3, image.image_size, image.image_size)).astype(np.float32)
    with Artifact.open(export(checkpoint, recipe, tmp_path, UNVERIFIED).path) as artifact:
        expected = TowerSession(artifact, "image", "exact", 2).embed(pixels)

        def measure(exact: frozenset[str]) -> float:
            graph = build(planned, "image", "int8", exact=exact)
            session = TowerSession(artifact, "image", "int8", 2, (graph.model, graph.stored))
            return float(1 - (session.embed(pixels) * expected).sum(axis=1).mean())

        sensitivity = Sensitivity(artifact, planned.rounded("image", "int8"))
        Reference(checkpoint).images(pixels, observe=sensitivity.observe)
        ranking = sensitivity.ranking()
        assert {name for name, _ in ranking} == planned.rounded("image", "int8")
        assert {name for name, _ in ranking[:2]} == guilty
        assert ranking[1][1] > 100 * ranking[2][1]
        found = choose(ranking, measure, 1e-3)
        everything = measure(planned.rounded("image", "int8"))
    assert set(found.exact) == guilty
    (_, broken), (_, mended) = found.trail
    assert broken > 0.02, "plain int8 must break on this model"
    assert mended < broken / 20
    assert everything < 1e-6
