"""Graphs with barriers: what ONNX Runtime computes of float16 on a CPU, against numpy's float16.

Two computations that sum in different orders round a few values to different neighbours, and each such value moves
many of the next layer. So operators are compared one by one on the same values, one layer by its embeddings, and whole
towers by how far float16 takes them from float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from sigrun import ArtifactError
from sigrun.artifact import Artifact
from sigrun.manifest import TowerName
from sigrun.sessions import TowerSession, _unpack
from sigrun_exporters.checkpoint import Checkpoint, open_checkpoint
from sigrun_exporters.export import Settings, export
from sigrun_exporters.graph import FORMS, Graph, build, with_barriers
from sigrun_exporters.graph.linear import HALF_FORMS, Form
from sigrun_exporters.verify.inputs import inputs
from sigrun_exporters.verify.verify import agreements
from sigrun_recipes import Gate, Plan, plan
from tests import checkpoints
from tests.conftest import roomy
from tests.half_numerics import computed, evaluate

UNVERIFIED = Settings(verify=False)
CASES = ("tiny-f32", "tiny-q5_k_m", "emoji-q4_k_m", "emoji-q6_k")
TOWERS: tuple[TowerName, ...] = ("image", "text")
ITEMS = 16
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """An artifact with the plan that it was made by."""

    artifact: Artifact
    plan: Plan

    def batch(self, tower: TowerName, count: int = ITEMS) -> Floats:
        """Made-up input of a tower."""
        rng = np.random.default_rng(count)
        image, text = self.plan.architecture.image, self.plan.architecture.text
        assert image is not None
        assert text is not None
        if tower == "image":
            return rng.uniform(-1, 1, (count, 3, image.image_size, image.image_size)).astype(np.float32)
        return self.artifact.token_rows(rng.integers(0, text.vocabulary, (count, text.context)))

    def first_layer(self) -> Case:
        """The same with towers of one layer."""
        image, text = self.plan.architecture.image, self.plan.architecture.text
        assert image is not None
        assert text is not None
        short = replace(self.plan.architecture, image=replace(image, layers=1), text=replace(text, layers=1))
        return Case(self.artifact, replace(self.plan, architecture=short))

    def embed(self, tower: TowerName, form: Form, x: Floats, *, barriers: bool = False) -> Floats:
        """Embeddings as ONNX Runtime computes them."""
        graph = build(self.plan, tower, form)
        model = with_barriers(graph.model) if barriers else graph.model
        given = (model, graph.stored)
        return TowerSession(self.artifact, tower, form, 2, given, optimised=not barriers).embed(x)

    def true(self, tower: TowerName, form: Form, x: Floats) -> Floats:
        """Embeddings as numpy computes them, in the types that the graph gives."""
        return computed(build(self.plan, tower, form), self.artifact, x)[f"{tower}_embeds"]


def opened(folder: Path, variant: str, out: Path, stack: ExitStack) -> Case:
    checkpoint = open_checkpoint(str(folder))
    artifact = stack.enter_context(Artifact.open(export(checkpoint, roomy(variant), out, UNVERIFIED).path))
    return Case(artifact, plan(roomy(variant), checkpoint.architecture))


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Case]]:
    with ExitStack() as stack:

        @cache
        def make(name: str) -> Case:
            model, _, variant = name.partition("-")
            folder = {"tiny": tiny, "emoji": checkpoints.EMOJI}[model]
            return opened(folder, variant, tmp_path_factory.mktemp("barriers"), stack)

        yield make


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, made: Callable[[str], Case]) -> Case:
    return made(request.param)


def distance(a: Floats, b: Floats) -> float:
    """Mean of 1 - cosine of unit rows, taken from their distances, which float32 does not blur."""
    return float(np.square(a.astype(np.float64) - b).sum(axis=1).mean() / 2)


def halves(graph: Graph, artifact: Artifact, x: Floats) -> dict[str, NDArray[Any]]:
    """Every value of a graph, as numpy computes it, and the weights."""
    proto = onnx.load_from_string(graph.model)
    for node in proto.graph.node:
        if node.output[0] not in {o.name for o in proto.graph.output}:
            proto.graph.output.append(helper.make_empty_tensor_value_info(node.output[0]))
    feeds = {**_unpack(artifact, list(graph.weights.items()), graph.pieces, 1), proto.graph.input[0].name: x}
    return {**feeds, **evaluate(proto.SerializeToString(), feeds)}


def alone(node: onnx.NodeProto, graph: onnx.GraphProto, values: dict[str, NDArray[Any]]) -> Floats:
    """One node's result, as ONNX Runtime computes it with barriers."""
    constants = [t for t in graph.initializer if t.name in node.input and t.name not in values]
    taken = {name: values[name] for name in dict.fromkeys(node.input) if name in values}
    # Weights stay the float16 initializers they are, values come as float32 and are cast.
    weights = {t.name for t in graph.initializer} & set(taken)
    casts = [
        helper.make_node("Cast", [f"{name}.given"], [name], to=TensorProto.FLOAT16)
        for name in taken
        if name not in weights
    ]
    last = helper.make_node("Cast", [node.output[0]], ["result"], to=TensorProto.FLOAT)
    small = helper.make_graph(
        [*casts, node, last],
        "alone",
        [
            helper.make_tensor_value_info(cast.input[0], TensorProto.FLOAT, values[cast.output[0]].shape)
            for cast in casts
        ],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, None)],
        initializer=[*constants, *(onnx.numpy_helper.from_array(values[name], name) for name in weights)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(small, ir_version=10, opset_imports=opsets).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(with_barriers(model), options, providers=["CPUExecutionProvider"])
    feeds = {cast.input[0]: values[cast.output[0]].astype(np.float32) for cast in casts}
    found: Floats = session.run(None, feeds)[0]
    return found


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("form", HALF_FORMS)
def test_operators_round_as_float16_does(case: Case, tower: TowerName, form: Form) -> None:
    """Each on its own, given the values that numpy computed: all but a few results are the very same."""
    graph = build(case.plan, tower, form)
    values = halves(graph, case.artifact, case.batch(tower, 1))
    proto = onnx.load_from_string(graph.model).graph
    seen = set()
    for node in proto.node:
        expected = values[node.output[0]]
        if expected.dtype != np.float16 or node.op_type == "Cast":
            continue
        seen.add(node.op_type)
        found = alone(node, proto, values)
        np.testing.assert_array_equal(found, found.astype(np.float16))
        assert (found == expected).mean() > 0.99, node.name
        unit = 2.0**-10 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=unit, err_msg=node.name)
    assert {"FastGelu", "MultiHeadAttention", "Reshape"} < seen
    assert seen & {"Gemm", "MatMulNBits"}


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("form", HALF_FORMS)
def test_a_layer_follows_float16_and_not_float32(case: Case, tower: TowerName, form: Form) -> None:
    layer = case.first_layer()
    x = layer.batch(tower)
    expected = layer.true(tower, form, x)
    found = layer.embed(tower, form, x, barriers=True)
    assert distance(found, expected) < 0.6 * distance(layer.embed(tower, form, x), expected)


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("form", HALF_FORMS)
def test_a_tower_is_as_far_from_float32_as_float16_takes_it(case: Case, tower: TowerName, form: Form) -> None:
    x = case.batch(tower)
    exact = case.embed(tower, "exact", x)
    true = distance(case.true(tower, form, x), exact)
    assert 0.85 < distance(case.embed(tower, form, x, barriers=True), exact) / true < 1.18
    if form == "f16":  # in w4f16 most of the distance may come from the scales
        assert distance(case.embed(tower, form, x), exact) / true < 0.85


def test_graphs_without_float16_have_no_barriers(case: Case) -> None:
    for tower in TOWERS:
        for form in FORMS:
            model = build(case.plan, tower, form).model
            assert (with_barriers(model) == model) == (form not in HALF_FORMS)


def test_inputs_outputs_and_weights_stay(case: Case) -> None:
    before, after = (
        onnx.load_from_string(model).graph
        for graph in [build(case.plan, "image", "w4f16")]
        for model in (graph.model, with_barriers(graph.model))
    )
    assert list(before.input) == list(after.input)
    assert list(before.output) == list(after.output)
    assert list(before.initializer) == list(after.initializer)[: len(before.initializer)]
    results = [name for node in after.node for name in node.output]
    assert len(results) == len(set(results))
    assert {name for node in before.node for name in node.output} < set(results)


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """Hidden units beyond 65504, of weights that fit, which the next matrix makes small again."""
    folder = checkpoints.write(tmp_path_factory.mktemp("overflowing") / "tiny")
    weights = load_file(folder / "model.safetensors")
    for layer in ("vision_model.encoder.layers.1", "text_model.encoder.layers.0"):
        grown = 60000 / np.abs(weights[f"{layer}.mlp.fc1.weight"][7]).max()
        weights[f"{layer}.mlp.fc1.weight"][7] *= grown
        weights[f"{layer}.mlp.fc2.weight"][:, 7] /= grown
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(str(folder))
    return checkpoint, export(checkpoint, roomy("f32"), folder.parent, UNVERIFIED).path


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("form", HALF_FORMS)
def test_an_mlp_that_overflows_gives_no_numbers(
    overflowing: tuple[Checkpoint, Path], tower: TowerName, form: Form
) -> None:
    checkpoint, path = overflowing
    with Artifact.open(path) as artifact:
        case = Case(artifact, plan(roomy("f32"), checkpoint.architecture))
        x = case.batch(tower)
        assert not np.isfinite(case.true(tower, form, x)).all()
        assert np.isfinite(case.embed(tower, form, x)).all()  # as the CPU has it, in float32
        with pytest.raises(ArtifactError, match="no numbers"):
            case.embed(tower, form, x, barriers=True)


def test_a_verification_sees_an_mlp_that_overflows(overflowing: tuple[Checkpoint, Path]) -> None:
    checkpoint, path = overflowing
    found = agreements(
        path, checkpoint, Gate(0.999, 0.01, 0.9), inputs(checkpoint, None, print), ("exact", *HALF_FORMS)
    )
    assert found["exact"].problems == ()
    for form in HALF_FORMS:
        assert found[form].problems == ("gives values that are no numbers",)
        assert found[form].cosines == {}
