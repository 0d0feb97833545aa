"""The compute forms beside each other: float16 against exact, graphs with exclusions, what float16 cannot hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from sigrun import ArtifactError
from sigrun.artifact import Artifact
from sigrun.blocks import decode
from sigrun.choice import FORMS as RUNTIME_FORMS
from sigrun.manifest import TowerName
from sigrun.nbits import to_nbits
from sigrun.sessions import TowerSession
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_exporters.graph import FORMS, build
from sigrun_exporters.graph.linear import HALF_FORMS, Form
from sigrun_exporters.quantize import ENCODERS, quantize
from sigrun_recipes import Plan, plan
from tests import checkpoints
from tests.conftest import UNVERIFIED, roomy
from tests.half_numerics import computed, operator_weights

RECIPES = ("f32", "f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s")
TOWERS: tuple[TowerName, ...] = ("image", "text")
UNIT = 2.0**-11  # the most that rounding to float16 changes a number, relative to it

# A layer rounds its values to float16 some ten times, each by at most UNIT, and adds the result to what flows on. In
# five layers that makes, as roundings know nothing of each other, 7 units at most; ten are allowed. Vectors that differ
# by 10 units have a cosine of 1 - (10 units)^2 / 2.
CLOSE = (10 * UNIT) ** 2 / 2


@dataclass(frozen=True)
class Case:
    """An artifact with the plan that it was made by."""

    artifact: Artifact
    plan: Plan

    def batch(self, tower: TowerName, count: int) -> NDArray[np.float32]:
        """Made-up input of a tower."""
        rng = np.random.default_rng(count)
        image, text = self.plan.architecture.image, self.plan.architecture.text
        assert image is not None
        assert text is not None
        if tower == "image":
            return rng.uniform(-1, 1, (count, 3, image.image_size, image.image_size)).astype(np.float32)
        ids = rng.integers(0, text.vocabulary, count * text.context)
        return self.artifact.token_rows(ids).reshape(count, text.context, text.width)

    def session(self, tower: TowerName, form: Form, exact: frozenset[str] = frozenset()) -> TowerSession:
        """A graph made anew, with the file's weights."""
        graph = build(self.plan, tower, form, exact=exact)
        return TowerSession(self.artifact, tower, form, 2, (graph.model, graph.stored))

    def run(
        self, tower: TowerName, form: Form, x: NDArray[np.float32], exact: frozenset[str] = frozenset()
    ) -> NDArray[np.float32]:
        """Embeddings from a graph made anew."""
        return self.session(tower, form, exact).embed(x)


@pytest.fixture(scope="module")
def made(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Case]]:
    """Gives the case of a model and a recipe, ``tiny-q4_k_m``, exported when first asked for."""
    with ExitStack() as opened:

        @cache
        def make(name: str) -> Case:
            model, _, variant = name.partition("-")
            checkpoint = open_checkpoint(str({"tiny": tiny, "emoji": checkpoints.EMOJI}[model]))
            path = export(checkpoint, roomy(variant), tmp_path_factory.mktemp("forms"), UNVERIFIED).path
            artifact = opened.enter_context(Artifact.open(path))
            return Case(artifact, plan(roomy(variant), checkpoint.architecture))

        yield make


@pytest.fixture(params=[f"{model}-{recipe}" for model in ("tiny", "emoji") for recipe in RECIPES])
def case(request: pytest.FixtureRequest, made: Callable[[str], Case]) -> Case:
    return made(request.param)


@pytest.fixture(params=["tiny-f32", "tiny-q5_k_m", "emoji-q4_k_m"])
def some_case(request: pytest.FixtureRequest, made: Callable[[str], Case]) -> Case:
    return made(request.param)


def apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """1 - the smallest cosine of unit rows, taken from their distances, which float32 does not blur."""
    return float(np.square(a.astype(np.float64) - b).sum(axis=1).max() / 2)


def test_both_sides_know_the_same_forms() -> None:
    assert RUNTIME_FORMS == FORMS == ("exact", "int8", "f16", "w4f16")


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("form", HALF_FORMS)
def test_half_forms_follow_the_exact_one(case: Case, tower: TowerName, form: Form) -> None:
    """With the CPU's arithmetic: weights rounded to float16, the rest float32."""
    session, exact = case.session(tower, form), case.session(tower, "exact")
    for count in (1, 2, 7):
        x = case.batch(tower, count)
        found = session.embed(x)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        assert apart(found, exact.embed(x)) < CLOSE


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("form", HALF_FORMS)
def test_half_forms_follow_the_exact_one_in_true_float16(case: Case, tower: TowerName, form: Form) -> None:
    x = case.batch(tower, 1)
    graph = build(case.plan, tower, form)
    found = computed(graph, case.artifact, x)[f"{tower}_embeds"]
    expected = case.run(tower, "exact", x)
    assert found.dtype == np.float32
    assert 1e-10 < apart(found, expected) < CLOSE


def test_stored_graphs_are_those_that_build_makes(some_case: Case) -> None:
    for tower in TOWERS:
        for form in FORMS:
            taken = some_case.artifact.manifest.graphs[tower][form].weights
            left = {n for n in some_case.plan.rounded(tower, form) if taken[n] in ("dense", "nbits")}
            graph = build(
                some_case.plan, tower, form, exact=frozenset(left) if form != "exact" else frozenset()
            )
            assert some_case.artifact.graph(tower, form) == graph.model
            assert taken == graph.weights


def test_inputs_and_outputs_are_float32_and_casts_are_few(some_case: Case) -> None:
    for tower in TOWERS:
        shape = some_case.plan.architecture.tower(tower)
        assert shape is not None
        for form in FORMS:
            graph = onnx.load_from_string(build(some_case.plan, tower, form).model).graph
            for value in (*graph.input, *graph.output):
                assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            casts = [n for n in graph.node if n.op_type == "Cast"]
            assert len(casts) == (4 * shape.layers if form in HALF_FORMS else 0)


def half_error(
    encoding: str, weights: NDArray[np.float32]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Stored numbers, what the operator makes of their float16 form, and the block's scale times its largest step."""
    rows, columns = weights.shape
    data = quantize(encoding, weights).reshape(-1)
    stored = decode(encoding, data).reshape(rows, columns).astype(np.float64)
    whole = to_nbits(encoding, data, rows, columns)
    q = whole.q.copy()
    half = whole.half()
    np.testing.assert_array_equal(whole.q, q)
    assert all(a.dtype == np.float16 for name, a in half.parts().items() if name != "q")
    found = operator_weights(half.bits, half.q, half.scales, half.zeros).astype(np.float64)
    if half.minima is not None:
        found -= half.minima.astype(np.float64)[..., None]
    return stored, found.reshape(rows, columns), np.repeat(np.abs(whole.scales), whole.block_size, axis=1)


@pytest.mark.parametrize("encoding", sorted(set(ENCODERS) - {"f32", "f16"}))
@pytest.mark.parametrize("size", [1e-4, 0.03, 3.0])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_half_weights_are_the_stored_numbers_rounded(encoding: str, size: float, shift: float) -> None:
    """Off by a rounding of the scale over the steps of a block, and by one of its offset; small scales in absolute
    terms, as float16 has no numbers between multiples of 2^-24."""
    weights = ((np.random.default_rng(7).standard_normal((16, 512)) + shift) * size).astype(np.float32)
    stored, found, scales = half_error(encoding, weights)
    steps = {"q4_k": 15, "q5_k": 16, "q6_k": 32, "q8_0": 128}[encoding]
    middle = {"q5_k": 16}.get(encoding, 0)
    lowest = np.abs(stored).reshape(16, -1, 16).max(axis=2).repeat(16, axis=1) + middle * scales
    rounding = np.maximum(UNIT * scales, 2.0**-25)
    allowed = steps * rounding * 1.01
    if encoding in ("q4_k", "q5_k"):
        allowed = allowed + UNIT * 1.01 * (lowest + 15 * scales)
    assert (np.abs(found - stored) <= allowed + 1e-12).all()
    if encoding == "q8_0":
        np.testing.assert_array_equal(found, stored)  # its scales are float16 in the file
    elif size > 1e-4:
        assert np.abs(found - stored).max() > 0


def test_blocks_that_are_all_but_flat_keep_their_minimum() -> None:
    """Their zero points would not fit float16."""
    rng = np.random.default_rng(8)
    weights = (-1 + 1e-6 * rng.standard_normal((8, 256))).astype(np.float32)
    weights[:, 64:128] = rng.standard_normal((8, 64))
    weights[3] = -2.0
    weights[4] = 0.0
    stored, found, scales = half_error("q4_k", weights)
    assert np.isfinite(found).all()
    assert (np.abs(found - stored) <= UNIT * (np.abs(stored) + 15 * scales) * 2.02).all()


def test_minima_leave_products_small_enough_for_float16() -> None:
    """Q5_K: activations of a mean other than 0 must not make the operator's part far larger than the whole."""
    rng = np.random.default_rng(9)
    weights = rng.standard_normal((32, 1024)).astype(np.float32)
    whole = to_nbits("q5_k", quantize("q5_k", weights).reshape(-1), 32, 1024)
    half = whole.half()
    x = (rng.random((16, 1024)) + 1).astype(np.float32)
    parts = [operator_weights(8, n.q, n.scales, None).reshape(32, 1024) for n in (whole, half)]
    before, after = (np.sqrt(np.square(x @ part.T).mean()) for part in parts)
    assert after < before / 10


def test_exclusions_change_the_graph(some_case: Case) -> None:
    names = some_case.plan.rounded("image", "int8")
    assert len(names) == 2 + 6 * some_case.artifact.manifest.architecture["image"]["layers"]
    some = frozenset({"v.blk.0.attn_q.weight", "v.blk.1.ffn_down.weight"})
    x = some_case.batch("image", 1)
    exact = some_case.run("image", "exact", x)
    for form in ("int8", *HALF_FORMS):
        plain, less = build(some_case.plan, "image", form), build(some_case.plan, "image", form, exact=some)
        assert plain.model != less.model
        changed = {n for n in plain.weights if plain.weights[n] != less.weights[n]}
        assert some <= changed <= some | {n.replace("weight", "bias") for n in some}
        assert {less.weights[n] for n in some} <= {"dense", "nbits"}
        assert build(some_case.plan, "image", form, exact=frozenset()).model == plain.model
        assert not np.array_equal(some_case.run("image", form, x), some_case.run("image", form, x, some))
    np.testing.assert_allclose(some_case.run("image", "int8", x, names), exact, atol=1e-6)


def cast_before_attention(model: bytes) -> list[list[str]]:
    """Of each layer's attention, which of its three inputs are made float32 first."""
    nodes = onnx.load_from_string(model).graph.node
    maker = {node.output[0]: node for node in nodes}
    shaped = [[maker[maker[x].input[0]] for x in n.input] for n in nodes if n.op_type == "MultiHeadAttention"]
    return [[cast.input[0] for cast in layer if cast.op_type == "Cast"] for layer in shaped]


def test_attention_with_a_matrix_left_exact_is_float32(some_case: Case) -> None:
    """So that keys too large for float16 have a way out."""
    some = frozenset({"v.blk.0.attn_k.weight"})
    plain, less = build(some_case.plan, "image", "f16"), build(some_case.plan, "image", "f16", exact=some)
    layers = some_case.plan.architecture.to_json()["image"]["layers"]
    assert cast_before_attention(plain.model) == [[]] * layers
    assert cast_before_attention(less.model) == [["v.blk.0.attn_q", "v.blk.0.attn_v"]] + [[]] * (layers - 1)
    x = some_case.batch("image", 1)
    found = computed(less, some_case.artifact, x)["image_embeds"]
    assert 1e-10 < apart(found, some_case.run("image", "exact", x)) < CLOSE


def test_exclusions_must_be_matrices_of_the_layers(some_case: Case) -> None:
    for name in (
        "t.blk.0.attn_q.weight",
        "v.head.attn_q.weight",
        "v.blk.0.ln1.weight",
        "v.patch_embd.weight",
    ):
        with pytest.raises(ValueError, match=name):
            build(some_case.plan, "image", "int8", exact=frozenset({name}))


def test_what_float16_cannot_hold_is_an_error_not_an_answer(tmp_path: Path) -> None:
    """A weight beyond 65504 is infinite as float16, on every provider."""
    folder = checkpoints.write(tmp_path / "huge")
    weights = load_file(folder / "model.safetensors")
    weights["vision_model.encoder.layers.1.mlp.fc1.weight"][3, 5] = 1e5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(str(folder))
    path = export(checkpoint, roomy("f32"), tmp_path, UNVERIFIED).path
    with Artifact.open(path) as artifact:
        case = Case(artifact, plan(roomy("f32"), checkpoint.architecture))
        x = case.batch("image", 2)
        assert np.isfinite(case.run("image", "exact", x)).all()
        for form in HALF_FORMS:
            with pytest.raises(ArtifactError, match="no numbers"):
                case.run("image", form, x)
        mended = frozenset({f"v.blk.1.ffn_{part}.weight" for part in ("up", "down")})
        assert np.isfinite(case.run("image", "f16", x, mended)).all()
