"""Packed matrices in pieces: which are cut, that nothing is lost between the pieces, and that the towers stay what they
are."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import sigrun_recipes.pieces
from sigrun import Siglip
from sigrun.artifact import Artifact
from sigrun.nbits import AXES, NBITS_FORMS, Axis, NBits, Pieces, to_nbits, to_pieces
from sigrun.sessions import TowerSession
from sigrun_exporters.graph import Form, build
from sigrun_exporters.quantize import quantize
from sigrun_hwcheck.quantities import quantities
from sigrun_hwcheck.stored import from_file, from_plan
from sigrun_recipes import ENCODINGS, TOWERS, cuts, default_model, load, plan
from tests import bundles, checkpoints
from tests.conftest import roomy
from tests.test_artifact import rewritten

RECIPES = ("q8_0", "q6_k", "q5_k_m", "q4_k_m")
SMALL = 1 << 14
"""Bytes of a piece in the small models of the tests, most of whose matrices are larger."""
PICTURES = list(np.random.default_rng(7).integers(0, 256, (3, 70, 50, 3), np.uint8))


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the matrices of small models too."""
    monkeypatch.setattr(sigrun_recipes.pieces, "PIECE_BYTES", SMALL)


def test_published_matrices_are_cut_as_said() -> None:
    """4352 hidden units in 8 groups of 544, 16 heads in 2 groups of 8 (576 = 8 * 72); counted by hand."""
    architecture = default_model().architecture
    planned = plan(load("q4_k_m"), architecture)
    image = build(planned, "image", "exact").pieces
    layer = {
        "attn_q": Pieces("outputs", 2),
        "attn_k": Pieces("outputs", 2),
        "attn_v": Pieces("outputs", 2),
        "attn_out": Pieces("inputs", 2),
        "ffn_up": Pieces("outputs", 8),
        "ffn_down": Pieces("inputs", 8),
    }
    for number in range(27):
        assert {part: image[f"v.blk.{number}.{part}.weight"] for part in layer} == layer
    head = {**layer, "attn_out": Pieces("outputs", 2)}  # its probe is one row: put together again
    assert {part: image[f"v.head.{part}.weight"] for part in head} == head
    assert len(image) == 28 * 6
    text = build(planned, "text", "exact").pieces
    assert text["t.head.weight"] == Pieces("outputs", 2)
    assert len(text) == 27 * 6 + 1


@pytest.mark.parametrize("tower", TOWERS)
def test_no_more_than_a_piece_is_unpacked_at_once(tower: str) -> None:
    for recipe in RECIPES:
        planned = plan(load(recipe), default_model().architecture)
        for form in ("exact", "int8"):
            graph = build(planned, "image" if tower == "image" else "text", form)
            products = [
                n for n in onnx.load_from_string(graph.model).graph.node if n.op_type == "MatMulNBits"
            ]
            assert products
            for node in products:
                sizes = {a.name: a.i for a in node.attribute}
                assert 4 * sizes["N"] * sizes["K"] <= sigrun_recipes.pieces.PIECE_BYTES


def test_what_is_not_packed_throughout_is_not_dealt_to_groups() -> None:
    tower = default_model().architecture.image
    assert tower is not None
    whole = {f"v.blk.0.{part}.weight": (1152, 1152) for part in ("attn_q", "attn_k", "attn_v", "attn_out")}
    whole["v.blk.0.ffn_up.weight"], whole["v.blk.0.ffn_down.weight"] = (4352, 1152), (1152, 4352)
    assert cuts(tower, whole)["v.blk.0.ffn_down.weight"] == ("inputs", 8)
    del whole["v.blk.0.ffn_up.weight"], whole["v.blk.0.attn_k.weight"]
    alone = cuts(tower, whole)
    assert alone["v.blk.0.ffn_down.weight"] == ("outputs", 8)
    assert {alone[f"v.blk.0.attn_{part}.weight"] for part in ("q", "v", "out")} == {("outputs", 2)}
    # 4304 hidden units are 134.5 blocks: no group of them ends where a block does.
    unpadded = {"v.blk.0.ffn_up.weight": (4304, 1152), "v.blk.0.ffn_down.weight": (1152, 4304)}
    assert cuts(tower, unpadded) == {
        "v.blk.0.ffn_up.weight": ("outputs", 8),
        "v.blk.0.ffn_down.weight": ("outputs", 8),
    }
    assert cuts(tower, {"v.blk.0.attn_q.weight": (64, 64)}) == {}


@given(
    encoding=st.sampled_from(sorted(NBITS_FORMS)),
    rows=st.sampled_from([8, 16, 128, 200]),
    columns=st.sampled_from([128, 256, 288, 768, 1088]),
    axis=st.sampled_from(AXES),
    count=st.sampled_from([2, 3, 4]),
)
def test_pieces_are_the_matrix(encoding: str, rows: int, columns: int, axis: Axis, count: int) -> None:
    """Rows may lie end to end in the file, so that a block of it holds the end of one and the start of another."""
    assume((rows if axis == "outputs" else columns // NBITS_FORMS[encoding].block_size) % count == 0)
    fold = ENCODINGS[encoding].fold(rows, columns)
    assume(fold is not None)
    assert fold is not None
    weights = np.random.default_rng(rows + columns + count).standard_normal((rows // fold, columns * fold))
    stored = quantize(encoding, weights.astype(np.float32)).reshape(-1)
    whole = to_nbits(encoding, stored, rows, columns)
    asked = Pieces(axis, count)
    for matrix, cut_ in (
        (whole, whole.cut(asked)),
        (whole, to_pieces(encoding, stored, rows, columns, asked)),
    ):
        assert len(cut_) == count
        for name, array in matrix.parts().items():
            parts = [piece.parts()[name] for piece in cut_]
            assert all(part.flags.c_contiguous for part in parts)
            joined = np.concatenate(parts, axis=0 if axis == "outputs" else 1)
            np.testing.assert_array_equal(joined, array)
            assert joined.dtype == array.dtype


def test_a_small_matrix_in_pieces_by_eye() -> None:
    q = np.arange(16, dtype=np.uint8).reshape(2, 4, 2)  # two outputs, four blocks of two bytes
    scales = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.float32)
    matrix = NBits(4, 4, q, scales)
    left, right = matrix.cut(Pieces("inputs", 2))
    assert left.scales.tolist() == [[0, 1], [4, 5]]
    assert right.scales.tolist() == [[2, 3], [6, 7]]
    assert right.q.tolist() == [[[4, 5], [6, 7]], [[12, 13], [14, 15]]]
    upper, lower = matrix.cut(Pieces("outputs", 2))
    assert (upper.scales.tolist(), lower.scales.tolist()) == ([[0, 1, 2, 3]], [[4, 5, 6, 7]])
    with pytest.raises(ValueError, match="2 x 4 blocks cannot be cut into 3 inputs"):
        matrix.cut(Pieces("inputs", 3))


def vectors(path: Path, form: str) -> dict[str, np.ndarray]:
    with Siglip.load(path, compute=form, provider="cpu", threads=2, cache=None) as model:  # type: ignore[arg-type]
        return {
            "image": model.embed_images(PICTURES).vectors,
            "text": model.embed_texts(["a red apple", "owl", "x"]).vectors,
        }


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("name", "side"), [("tiny", 33), ("emoji", 60)])
def test_towers_in_pieces_are_the_same_towers(
    recipe: str, name: str, side: int, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut and whole: equal but for the order in which numbers are added up. The trained model's heads cannot be dealt
    to groups, the made-up one's can."""
    source = tiny if name == "tiny" else checkpoints.EMOJI
    with bundles.exported(source, roomy(recipe), tmp_path / "whole") as whole:
        assert not whole.graphs["image"]["exact"].pieces
        whole.bundle(tmp_path / "whole-onnx")
    monkeypatch.setattr(sigrun_recipes.pieces, "PIECE_BYTES", SMALL if name == "tiny" else 4 * SMALL)
    with bundles.exported(source, roomy(recipe), tmp_path / "cut") as cut_:
        taken = cut_.graphs["image"]["exact"].pieces
        assert taken["v.blk.0.ffn_down.weight"] == Pieces("inputs", 8)
        assert taken["v.blk.0.attn_out.weight"] == (
            Pieces("inputs", 3) if name == "tiny" else Pieces("outputs", 2)
        )
        cut_.bundle(tmp_path / "cut-onnx")
        assert cut_.manifest.weights_sha256 == whole.manifest.weights_sha256
    for form in ("exact", "int8", "w4f16"):
        one, other = vectors(whole.gguf, form), vectors(cut_.gguf, form)
        for tower in TOWERS:
            np.testing.assert_allclose(other[tower], one[tower], rtol=0, atol=2e-6)
    pixels = np.random.default_rng(3).uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
    one, other = (
        onnxruntime.InferenceSession(tmp_path / name / "image.onnx", providers=["CPUExecutionProvider"]).run(
            ["image_embeds"], {"pixel_values": pixels}
        )[0]
        for name in ("whole-onnx", "cut-onnx")
    )
    np.testing.assert_allclose(other, one, rtol=0, atol=2e-6)


def test_what_is_predicted_of_a_recipe_is_what_a_file_says(tiny: Path, tmp_path: Path, cut: None) -> None:
    recipe = roomy("q5_k_m")
    with bundles.exported(tiny, recipe, tmp_path) as exported:
        predicted = from_plan("tiny", exported.plan)
        found = from_file(str(exported.gguf))
    by_name = {t.name: t for t in found.tensors}
    assert any(t.pieces for t in predicted.tensors)
    for tensor in predicted.tensors:
        assert tensor.pieces == by_name[tensor.name].pieces, tensor.name
        assert tensor.packings == by_name[tensor.name].packings, tensor.name


def test_the_manifest_says_so_as_its_schema_has_it(tiny: Path, tmp_path: Path, cut: None) -> None:
    with (
        bundles.exported(tiny, roomy("q5_k_m"), tmp_path) as exported,
        Artifact.open(exported.gguf) as artifact,
    ):
        manifest = json.loads(artifact.manifest.to_json())
        assert artifact.manifest.graphs["image"]["exact"].pieces
    schema = json.loads(resources.files("sigrun").joinpath("manifest.schema.json").read_text("utf-8"))
    jsonschema.validate(manifest, schema)
    entry = manifest["graphs"]["image"]["exact"]["pieces"]
    entry[next(iter(entry))]["count"] = 1
    with pytest.raises(jsonschema.ValidationError, match="less than the minimum"):
        jsonschema.validate(manifest, schema)


def test_a_cut_falls_between_blocks() -> None:
    assert max(form.block_size for form in NBITS_FORMS.values()) == sigrun_recipes.pieces.BLOCK


def test_what_no_number_of_pieces_makes_small_is_cut_into_the_most() -> None:
    tower = default_model().architecture.image
    assert tower is not None
    wide = {"v.blk.0.ffn_up.weight": (12288, 3072), "v.blk.0.ffn_down.weight": (3072, 12288)}
    assert cuts(tower, wide)["v.blk.0.ffn_down.weight"] == ("inputs", 16)


@pytest.mark.parametrize("form", ["int8", "w4f16"])
def test_matrices_left_exact_are_cut_like_others(form: Form, tiny: Path, tmp_path: Path, cut: None) -> None:
    """All of an MLP left exact is dealt to groups; of attention a part is: each of its matrices is cut alone."""
    left = frozenset(
        f"v.blk.0.{part}.weight" for part in ("ffn_up", "ffn_down", "attn_q", "attn_k", "attn_out")
    )
    with bundles.exported(tiny, roomy("q5_k_m"), tmp_path / "cut") as exported:
        plain, less = (build(exported.plan, "image", form, exact=e) for e in (frozenset[str](), left))
    assert less.pieces["v.blk.0.ffn_down.weight"].axis == "inputs"
    assert less.pieces["v.blk.0.attn_out.weight"].axis == "outputs"
    assert not left & set(plain.pieces)
    x = np.random.default_rng(5).uniform(-1, 1, (2, 3, 33, 33)).astype(np.float32)
    with Artifact.open(exported.gguf) as artifact:
        found = TowerSession(artifact, "image", form, 2, (less.model, less.stored)).embed(x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sigrun_recipes.pieces, "PIECE_BYTES", 1 << 40)
            whole = build(exported.plan, "image", form, exact=left)
        assert not whole.pieces
        expected = TowerSession(artifact, "image", form, 2, (whole.model, whole.stored)).embed(x)
    # A number that the order of additions moved may be rounded to the next float16, 2^-11 of it further.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 if form == "w4f16" else 2e-6)


def test_files_of_format_2_are_read(tiny_q4: Path, tmp_path: Path) -> None:
    """They know no pieces."""

    def older(manifest: dict[str, Any]) -> None:
        manifest["format"] = 2
        for forms in manifest["graphs"].values():
            for graph in forms.values():
                assert graph.pop("pieces") == {}

    path = rewritten(tiny_q4, tmp_path / "older.gguf", older)
    np.testing.assert_array_equal(vectors(path, "exact")["image"], vectors(tiny_q4, "exact")["image"])
    assert all(not tensor.pieces for tensor in from_file(str(path)).tensors)


def test_a_cut_that_makes_nothing_smaller_is_not_predicted_to(tiny: Path) -> None:
    """Where the last matrix of an MLP or of attention cannot be cut by its inputs, what comes before it is whole."""
    recipe = dataclasses.replace(roomy("q8_0"), rewrites=())
    stored = from_plan("so400m", plan(recipe, default_model().architecture))
    up = next(t for t in stored.tensors if t.name == "v.blk.0.ffn_up.weight")
    assert up.pieces["exact"] == ("outputs", 8)
    of = quantities(stored, "image", "exact")
    assert of.activations == 4 * (729 * (5 * 1152 + 2 * 4304) + 3 * 384**2)
