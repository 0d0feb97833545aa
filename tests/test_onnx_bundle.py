"""The folder of ONNX files: the stored numbers, in files that ONNX Runtime runs with nothing of ours."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import sigrun.sessions
from sigrun import CheckpointError, Siglip
from sigrun.artifact import TOKEN_TABLE, Artifact
from sigrun.blocks import rows_of
from sigrun.manifest import Manifest
from sigrun.pixels import Preprocessing
from sigrun_exporters.graph import FORMS, Form
from sigrun_exporters.onnx_bundle import is_ours, model_file, write_bundle
from sigrun_exporters.onnx_bundle.bundle import write_manifest
from sigrun_exporters.onnx_bundle.model_file import external_names, write_beside, write_inside
from sigrun_exporters.onnx_bundle.towers import image_model
from sigrun_exporters.onnx_bundle.weights import PORTABLE, arrays
from sigrun_recipes import load, names
from tests.bundles import Export, exported
from tests.checkpoints import EMOJI, ROOT
from tests.conftest import roomy

FILES = {
    *("image.onnx", "image.onnx.data", "text.onnx", "text.onnx.data", "preprocess.onnx"),
    *("manifest.json", "tokenizer.model", "tokenizer.json"),
}
TOLERANCE = 1e-5  # of a unit vector's coordinates
TEXTS = ["red apple", "a fire engine", "owl", "x " * 90, "snowman without snow", "42", "a red, red apple"]


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    with exported(EMOJI, load("q4_k_m"), tmp_path_factory.mktemp("emoji")) as export:
        yield export


@pytest.fixture(scope="module", params=names())
def small(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The random checkpoint in every variant."""
    with exported(tiny, roomy(request.param), tmp_path_factory.mktemp("small")) as export:
        yield export


@pytest.fixture(scope="module")
def bundle(emoji: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emoji.bundle(tmp_path_factory.mktemp("bundle") / "emoji.onnx")


def run(path: Path, inputs: dict[str, Any], output: str) -> NDArray[np.float32]:
    """One output of a model file, loaded as anyone would load it."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    values: NDArray[np.float32] = session.run([output], inputs)[0]
    return values


def pixels(export: Export, batch: int) -> NDArray[np.float32]:
    side = export.manifest.preprocessing.height
    return np.random.default_rng(batch).standard_normal((batch, 3, side, side), np.float32)


def ids(export: Export, batch: int) -> NDArray[np.int64]:
    with Siglip.load(export.gguf, compute="exact") as model:
        return model._towers.tokenizer().encode(TEXTS[:batch]).ids


def test_the_files_are_those_that_the_manifest_lists(emoji: Export, bundle: Path) -> None:
    assert {p.name for p in bundle.iterdir()} == FILES
    content = json.loads((bundle / "manifest.json").read_text("utf-8"))
    assert content["bundle"]["form"] == "exact"
    listed = content["bundle"]["files"]
    assert set(listed) == FILES - {"manifest.json"}
    for name, facts in listed.items():
        data = (bundle / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, name


def test_the_manifest_is_the_artifacts_less_what_is_of_the_gguf_file(emoji: Export, bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text("utf-8")
    with Artifact.open(emoji.gguf) as artifact:
        expected = dataclasses.replace(artifact.manifest, graphs={})
    assert Manifest.from_json(text, "manifest.json") == expected


@pytest.mark.parametrize(("form", "kept"), [("exact", ["exact"]), ("w4f16", ["w4f16"]), ("int8", [])])
def test_a_bundle_keeps_the_figures_that_were_measured_on_its_numbers(
    emoji: Export, emoji_q4: Path, tmp_path: Path, form: Form, kept: list[str]
) -> None:
    """Form int8 keeps to 7 bits in a file, and was measured with as many as the exporting machine multiplies."""
    with Artifact.open(emoji_q4) as artifact:
        manifest = artifact.manifest
    assert manifest.verification is not None
    write_manifest(tmp_path, manifest, form, {})
    text = (tmp_path / "manifest.json").read_text("utf-8")
    found = Manifest.from_json(text, "manifest.json").verification
    assert found is not None
    assert list(found.forms) == kept
    assert is_ours(tmp_path)
    (tmp_path / "manifest.json").write_text("{}", "utf-8")
    assert not is_ours(tmp_path)


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "preprocess.onnx"])
def test_the_checker_passes_and_metadata_says_what_a_host_needs(
    emoji: Export, bundle: Path, name: str
) -> None:
    onnx.checker.check_model(str(bundle / name), full_check=True)
    session = ort.InferenceSession(bundle / name, providers=["CPUExecutionProvider"])
    scoring = emoji.manifest.scoring
    assert scoring is not None
    facts = session.get_modelmeta().custom_metadata_map
    assert float(facts.pop("sigrun.logit_scale")) == scoring.logit_scale
    assert float(facts.pop("sigrun.logit_bias")) == scoring.logit_bias
    assert facts == {
        "sigrun.model": "emoji-siglip-patch10-60",
        "sigrun.variant": "q4_k_m",
        "sigrun.form": "exact",
        "sigrun.space": emoji.manifest.space,
        "sigrun.weights_sha256": emoji.store.sha256,
        "sigrun.canonicalisation": "hf",
        "sigrun.context": "64",
        "sigrun.image_size": "60x60",
        "sigrun.image_mean": "0.5 0.5 0.5",
        "sigrun.image_std": "0.5 0.5 0.5",
        "sigrun.resample": "bicubic",
        "sigrun.geometry": "squash",
    }


def test_inputs_and_outputs(bundle: Path) -> None:
    def ends(name: str) -> list[tuple[str, str, list[Any]]]:
        session = ort.InferenceSession(bundle / name, providers=["CPUExecutionProvider"])
        return [(v.name, v.type, v.shape) for v in (*session.get_inputs(), *session.get_outputs())]

    assert ends("image.onnx") == [
        ("pixel_values", "tensor(float)", ["batch", 3, 60, 60]),
        ("last_hidden_state", "tensor(float)", ["batch", 36, 160]),
        ("image_embeds", "tensor(float)", ["batch", 160]),
    ]
    assert ends("text.onnx") == [
        ("input_ids", "tensor(int64)", ["batch", 64]),
        ("text_embeds", "tensor(float)", ["batch", 160]),
    ]
    assert ends("preprocess.onnx") == [
        ("picture", "tensor(uint8)", ["height", "width", 3]),
        ("pixel_values", "tensor(float)", [1, 3, 60, 60]),
    ]


def test_embeddings_are_the_artifacts_in_every_variant(small: Export, tmp_path: Path) -> None:
    folder = small.bundle(tmp_path / "x")
    with Siglip.load(small.gguf, compute="exact") as model:
        for batch in (1, 2, 7):
            image = run(folder / "image.onnx", {"pixel_values": pixels(small, batch)}, "image_embeds")
            assert image.shape == (batch, 96)
            assert np.abs(image - model._session("image").embed(pixels(small, batch))).max() < TOLERANCE
            text = run(folder / "text.onnx", {"input_ids": ids(small, batch)}, "text_embeds")
            assert np.abs(text - model.embed_texts(TEXTS[:batch]).vectors).max() < TOLERANCE


@pytest.mark.parametrize("form", FORMS)
def test_embeddings_are_the_artifacts_in_every_form(
    emoji: Export, tmp_path: Path, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 with weights of 7 bits on both sides: this machine's own choice may be 8."""
    monkeypatch.setattr(sigrun.sessions, "largest", lambda: PORTABLE)
    folder = emoji.bundle(tmp_path / "x", form)
    onnx.checker.check_model(str(folder / "image.onnx"), full_check=True)
    with Siglip.load(emoji.gguf, compute=form) as model:
        image = run(folder / "image.onnx", {"pixel_values": pixels(emoji, 2)}, "image_embeds")
        assert np.abs(image - model._session("image").embed(pixels(emoji, 2))).max() < TOLERANCE
        for row, text in enumerate(TEXTS):  # one by one, as the runtime runs what shares a scale
            found = run(folder / "text.onnx", {"input_ids": ids(emoji, 7)[row : row + 1]}, "text_embeds")
            assert np.abs(found - model.embed_texts([text]).vectors).max() < TOLERANCE


def test_int8_weights_keep_to_seven_bits(emoji: Export, tmp_path: Path) -> None:
    model = onnx.load(emoji.bundle(tmp_path / "x", "int8") / "image.onnx")
    found = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith(".int8")]
    assert found
    assert max(np.abs(a.astype(int)).max() for a in found) == 63


@pytest.mark.parametrize("encoding", ["f32", "f16", "q8_0", "q6_k", "q5_k", "q4_k"])
def test_token_rows_are_those_of_the_stored_table(tiny: Path, tmp_path: Path, encoding: str) -> None:
    recipe = dataclasses.replace(roomy("q8_0"), tensors={TOKEN_TABLE: encoding})
    with exported(tiny, recipe, tmp_path / "out") as export:
        planned = next(t for t in export.plan.tensors if t.spec.name == TOKEN_TABLE)
        assert planned.encoding.name == encoding
        path = export.bundle(tmp_path / "x") / "text.onnx"
        stored = export.store.read(planned)
    model = onnx.load(path)
    rows, columns = planned.spec.shape
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("inputs_embeds", onnx.TensorProto.FLOAT, ["batch", 64, columns])
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    asked = np.random.default_rng(0).integers(0, rows, (5, 64))
    asked[0, :2] = 0, rows - 1
    found = session.run(["inputs_embeds"], {"input_ids": asked})[0]
    expected = rows_of(encoding, stored, columns, asked.reshape(-1)).reshape(5, 64, columns)
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_the_token_table_stays_packed(bundle: Path) -> None:
    """Its parts are gathered row by row before anything else, so no float table comes into being."""
    model = onnx.load(bundle / "text.onnx", load_external_data=False)
    parts = {t.name for t in model.graph.initializer if t.name.startswith(TOKEN_TABLE)}
    assert parts == {f"{TOKEN_TABLE}.q", f"{TOKEN_TABLE}.scales"}
    for node in model.graph.node:
        taken = parts & set(node.input)
        assert not taken or (node.op_type == "Gather" and node.input[1] == "input_ids"), node.name
    domains = {n.domain for n in model.graph.node if n.name.startswith("tokens/")}
    assert domains == {""}


def test_equal_input_gives_equal_bytes(emoji: Export, bundle: Path, tmp_path: Path) -> None:
    again = emoji.bundle(tmp_path / "again")
    for name in FILES:
        assert (again / name).read_bytes() == (bundle / name).read_bytes(), name


def test_a_model_without_a_text_tower(emoji: Export, tmp_path: Path) -> None:
    manifest = dataclasses.replace(emoji.manifest, canonicalisation=None, scoring=None)
    folder = tmp_path / "x"
    folder.mkdir()
    image = {"image": emoji.graphs["image"]}
    write_bundle(folder, manifest, emoji.plan, emoji.store, None, graphs=image)
    assert {p.name for p in folder.iterdir()} == {
        "image.onnx",
        "image.onnx.data",
        "preprocess.onnx",
        "manifest.json",
    }
    found = run(folder / "image.onnx", {"pixel_values": pixels(emoji, 1)}, "image_embeds")
    with Siglip.load(emoji.gguf, compute="exact") as model:
        assert np.abs(found - model._session("image").embed(pixels(emoji, 1))).max() < TOLERANCE


def test_pictures_that_onnx_cannot_prepare(emoji: Export, tmp_path: Path) -> None:
    before = emoji.manifest.preprocessing
    preprocessing = Preprocessing(before.height, before.width, before.mean, before.std, "lanczos")
    manifest = dataclasses.replace(emoji.manifest, preprocessing=preprocessing)
    with pytest.raises(CheckpointError, match="lanczos"):
        write_bundle(tmp_path, manifest, emoji.plan, emoji.store, emoji.tokenizer, graphs=emoji.graphs)
    assert list(tmp_path.iterdir()) == []


def test_large_weights_lie_where_any_system_can_map_them(
    small: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = 4096
    monkeypatch.setattr(model_file, "PAGED", large)
    model = onnx.load(small.bundle(tmp_path / "x") / "text.onnx", load_external_data=False)
    places = []
    for tensor in model.graph.initializer:
        entries = {e.key: e.value for e in tensor.external_data}
        if entries:
            assert entries["location"] == "text.onnx.data"
            places.append((int(entries["offset"]), int(entries["length"])))
    places.sort()
    assert all(offset + length <= after for (offset, length), (after, _) in pairwise(places))
    for offset, length in places:
        assert offset % ((1 << 16) if length >= large else 64) == 0
    assert any(length >= large for _, length in places)
    assert any(length < large for _, length in places)
    assert sum(places[-1]) == (tmp_path / "x" / "text.onnx.data").stat().st_size


def test_weights_inside_are_the_weights_beside(emoji: Export, tmp_path: Path) -> None:
    """The message that is put together by hand is the one that protobuf reads: same graph, same numbers."""
    loaded = []
    for name, write in (("in.onnx", write_inside), ("out.onnx", lambda *a: write_beside(*a, ".data"))):
        model = image_model(emoji.graphs["image"]["exact"])
        files = write(
            tmp_path / name, model.proto, arrays(emoji.store, model.weights, model.pieces, model.names)
        )  # type: ignore[operator]
        assert next(iter(files)) == name
        loaded.append(onnx.load(tmp_path / name))
    inside, beside = loaded
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx", "out.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "in.onnx"), full_check=True)
    numbers = [{t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in loaded]
    assert numbers[0].keys() == numbers[1].keys()
    for name, array in numbers[0].items():
        assert np.array_equal(array, numbers[1][name]), name
    for model in loaded:
        del model.graph.initializer[:]
    assert inside == beside
    assert external_names(inside) == frozenset()


def test_weights_that_do_not_fit_the_graph_are_a_fault(emoji: Export, tmp_path: Path) -> None:
    model = image_model(emoji.graphs["image"]["exact"])
    with pytest.raises(ValueError, match="no weight gives"):
        list(arrays(emoji.store, {}, {}, model.names))
    with pytest.raises(ValueError, match="which no graph declares"):
        list(arrays(emoji.store, model.weights, model.pieces, frozenset()))
    wrong = iter([("v.post_ln.weight", np.zeros(3, np.float32))])
    with pytest.raises(ValueError, match=r"the graph takes float32 \(160,\)"):
        write_beside(tmp_path / "x.onnx", model.proto, wrong, ".data")


def test_pictures_and_texts_end_to_end(emoji: Export, bundle: Path) -> None:
    """From a picture's bytes and a text's pieces to the probability that the runtime gives."""
    from PIL import Image
    from sentencepiece import SentencePieceProcessor

    picture = ROOT / "examples" / "emoji_siglip" / "heldout" / "demo" / "red-apple.png"
    labels = ["red apple", "fire engine"]
    seen = run(bundle / "preprocess.onnx", {"picture": np.asarray(Image.open(picture))}, "pixel_values")
    image = run(bundle / "image.onnx", {"pixel_values": seen}, "image_embeds")
    processor: Any = SentencePieceProcessor(model_file=str(bundle / "tokenizer.model"))
    rows = [processor.encode(label) for label in labels]
    padded = np.array([row + [1] * (64 - len(row)) for row in rows], np.int64)
    texts = run(bundle / "text.onnx", {"input_ids": padded}, "text_embeds")
    scoring = emoji.manifest.scoring
    assert scoring is not None
    logits = np.exp(scoring.logit_scale) * (image @ texts.T)[0] + scoring.logit_bias
    with Siglip.load(emoji.gguf, compute="exact") as model:
        expected = {s.label: s.logit for s in model.classify(picture, labels)}
    assert logits == pytest.approx([expected[label] for label in labels], abs=0.02)


def test_the_snippets_of_the_page_run(emoji: Export, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "onnx.md").read_text("utf-8")
    snippets = re.findall(r"<!-- test: .*? -->\n```python\n(.*?)```", page, re.DOTALL)
    assert snippets
    models = tmp_path / "models" / "emoji-siglip-patch10-60"
    models.mkdir(parents=True)
    emoji.bundle(models / "emoji-siglip-patch10-60-q4_k_m.onnx")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for code in snippets:
        blocked = "import sys\nsys.modules['sigrun'] = None\n"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", blocked + code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("red apple 0.9"), done.stdout
