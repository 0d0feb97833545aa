"""The folder in the hub's layout: names, settings and graphs as transformers.js and optimum expect them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from sigrun import Siglip
from sigrun.pixels import Preprocessing
from sigrun_exporters.graph import build
from sigrun_exporters.onnx_bundle import hub, hub_files, write_hub
from sigrun_exporters.onnx_bundle.hub import dtype_of
from sigrun_recipes import default_model, load, plan
from tests.bundles import Export, exported
from tests.checkpoints import EMOJI

JSON = {
    "config.json",
    "manifest.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
TEXTS = ["red apple", "a fire engine", "owl", "x " * 90, "snowman", "42", "a red, red apple"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def emoji(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Export]:
    with exported(EMOJI, load("q4_k_m"), tmp_path_factory.mktemp("emoji")) as export:
        yield export


@pytest.fixture(scope="module")
def folder(emoji: Export, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emoji.hub(tmp_path_factory.mktemp("hub") / "emoji")


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def contents(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def outputs(path: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    wanted = {i.name: inputs[i.name] for i in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


def batch(export: Export, pictures: int, texts: int) -> dict[str, Any]:
    with Siglip.load(export.gguf, compute="exact") as model:
        ids = model._towers.tokenizer().encode(TEXTS[:texts]).ids
    pixels = np.random.default_rng(0).standard_normal((pictures, 3, 60, 60), np.float32)
    return {"input_ids": ids, "pixel_values": pixels}


def test_the_files(folder: Path) -> None:
    graphs = {f"onnx/{name}_q4.onnx" for name in ("model", "vision_model", "text_model")}
    assert contents(folder) == JSON | graphs | {"spiece.model"}
    listed = read(folder / "manifest.json")["bundle"]["files"]
    assert set(listed) == contents(folder) - {"manifest.json"}
    for name, facts in listed.items():
        data = (folder / name).read_bytes()
        assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}, name


@pytest.mark.parametrize(
    "name", ["preprocessor_config.json", "special_tokens_map.json", "tokenizer_config.json"]
)
def test_settings_are_those_that_transformers_wrote_for_the_checkpoint(folder: Path, name: str) -> None:
    assert read(folder / name) == read(EMOJI / name)


def test_the_config_describes_the_checkpoint(folder: Path) -> None:
    ours, theirs = read(folder / "config.json"), read(EMOJI / "config.json")
    assert ours["transformers.js_config"] == {"dtype": "q4"}
    assert ours["model_type"] == theirs["model_type"]
    assert ours["architectures"] == theirs["architectures"]
    for part in ("vision_config", "text_config"):
        shared = ours[part].keys() & theirs[part].keys()
        assert {k: ours[part][k] for k in shared} == {k: theirs[part][k] for k in shared}
        assert theirs[part].keys() - shared == {"attention_dropout"}
    assert ours["text_config"].keys() - theirs["text_config"].keys() == {"eos_token_id"}


@pytest.mark.parametrize(("ours", "theirs"), [("gelu_tanh", "gelu_pytorch_tanh"), ("gelu", "gelu")])
def test_the_config_names_the_activation(emoji: Export, ours: str, theirs: str) -> None:
    image = {**emoji.manifest.architecture["image"], "activation": ours}
    manifest = dataclasses.replace(emoji.manifest, architecture={"image": image})
    assert json.loads(hub_files.config(manifest, None, "q4", {}))["hidden_act"] == theirs


@pytest.mark.parametrize("name", ["model", "vision_model", "text_model"])
def test_the_checker_passes(folder: Path, name: str) -> None:
    onnx.checker.check_model(str(folder / "onnx" / f"{name}_q4.onnx"), full_check=True)


@pytest.mark.parametrize(("pictures", "texts"), [(1, 1), (2, 7), (7, 1), (1, 3)])
def test_the_joint_graph_scores_every_picture_with_every_text(
    emoji: Export, folder: Path, pictures: int, texts: int
) -> None:
    inputs = batch(emoji, pictures, texts)
    found = outputs(folder / "onnx" / "model_q4.onnx", inputs)
    assert list(found) == ["logits_per_image", "logits_per_text", "text_embeds", "image_embeds"]
    with Siglip.load(emoji.gguf, compute="exact") as model:
        image = model._session("image").embed(inputs["pixel_values"])
        text = model.embed_texts(TEXTS[:texts]).vectors
    assert np.abs(found["image_embeds"] - image).max() < TOLERANCE
    assert np.abs(found["text_embeds"] - text).max() < TOLERANCE
    scoring = emoji.manifest.scoring
    assert scoring is not None
    expected = np.exp(scoring.logit_scale) * (image.astype(np.float64) @ text.T) + scoring.logit_bias
    assert found["logits_per_image"].shape == (pictures, texts)
    assert np.abs(found["logits_per_image"] - expected).max() < 1e-4
    assert np.array_equal(found["logits_per_text"], found["logits_per_image"].T)


@pytest.mark.parametrize("form", ["exact", "int8", "f16", "w4f16"])
def test_each_tower_pools_before_it_normalizes(emoji: Export, tmp_path: Path, form: Any) -> None:
    folder = emoji.hub(tmp_path / "x", form)
    inputs = batch(emoji, 2, 3)
    names = {p.name.rsplit("_", 1)[0]: p for p in (folder / "onnx").iterdir()}
    joint = outputs(names["model"], inputs)
    for name, embeds, tokens in (("vision_model", "image_embeds", 36), ("text_model", "text_embeds", 64)):
        found = outputs(names[name], inputs)
        assert set(found) == {"pooler_output", "last_hidden_state", embeds}
        assert found["last_hidden_state"].shape == (len(found[embeds]), tokens, 160)
        assert all(values.dtype == np.float32 for values in found.values())
        lengths = np.linalg.norm(found["pooler_output"], axis=1, keepdims=True)
        assert np.abs(lengths - 1).min() > 0.1
        assert np.abs(found["pooler_output"] / lengths - found[embeds]).max() < 1e-6
        assert np.array_equal(found[embeds], joint[embeds])


def test_weights_beyond_the_limit_lie_beside_in_parts(
    emoji: Export, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MOST_BYTES", 1_100_000)
    split = emoji.hub(tmp_path / "x")
    files = {p.name: p.stat().st_size for p in (split / "onnx").iterdir()}
    assert set(files) == {
        *(f"model_q4.onnx{part}" for part in ("", "_data", "_data_1", "_data_2", "_data_3")),
        *(f"vision_model_q4.onnx{part}" for part in ("", "_data", "_data_1", "_data_2")),
        "text_model_q4.onnx",
    }
    assert max(files.values()) <= 1_100_000
    chunks = read(split / "config.json")["transformers.js_config"]["use_external_data_format"]
    assert chunks == {"model_q4.onnx": 4, "vision_model_q4.onnx": 3}
    inputs = batch(emoji, 2, 3)
    for name in ("model_q4.onnx", "vision_model_q4.onnx"):
        onnx.checker.check_model(str(split / "onnx" / name), full_check=True)
        beside, inside = outputs(split / "onnx" / name, inputs), outputs(folder / "onnx" / name, inputs)
        for output, values in inside.items():
            assert np.array_equal(values, beside[output]), output


def test_equal_input_gives_equal_bytes(emoji: Export, folder: Path, tmp_path: Path) -> None:
    again = emoji.hub(tmp_path / "again")
    for name in contents(folder):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize(
    ("variant", "form", "dtype"),
    [
        ("f32", "exact", "fp32"),
        ("f16", "exact", "fp32"),
        ("q8_0", "exact", "q8"),
        ("q6_k", "exact", "q8"),
        ("q5_k_m", "exact", "q8"),
        ("q4_k_m", "exact", "q4"),
        ("q4_k_s", "exact", "q4"),
        ("q4_k_m", "int8", "q8"),
        ("q4_k_m", "f16", "fp16"),
        ("f16", "f16", "fp16"),
        ("q4_k_m", "w4f16", "q4f16"),
        ("q4_k_s", "w4f16", "q4f16"),
        ("q8_0", "w4f16", "fp16"),
        ("q5_k_m", "w4f16", "fp16"),
    ],
)
def test_files_of_the_published_model_are_called_by_how_their_weights_lie(
    variant: str, form: Any, dtype: str
) -> None:
    planned = plan(load(variant), default_model().architecture)
    weights = {
        name: packing
        for tower in ("image", "text")
        for name, packing in build(planned, tower, form).weights.items()
    }
    assert dtype_of(planned, form, weights) == dtype


def test_a_model_without_a_text_tower(emoji: Export, tmp_path: Path) -> None:
    image = {"image": emoji.graphs["image"]}
    architecture = {"image": emoji.manifest.architecture["image"]}
    manifest = dataclasses.replace(
        emoji.manifest, canonicalisation=None, scoring=None, architecture=architecture
    )
    write_hub(tmp_path, manifest, emoji.plan, emoji.store, None, graphs=image)
    assert contents(tmp_path) == {
        "config.json",
        "manifest.json",
        "preprocessor_config.json",
        "onnx/vision_model_q4.onnx",
    }
    config = read(tmp_path / "config.json")
    assert config["model_type"] == "siglip_vision_model"
    assert config["image_size"] == 60
    assert "processor_class" not in read(tmp_path / "preprocessor_config.json")


def test_pictures_that_are_cropped(emoji: Export, tmp_path: Path) -> None:
    cropped = Preprocessing(60, 60, (0.5,) * 3, (0.5,) * 3, geometry="crop", short_side=66)  # type: ignore[arg-type]
    manifest = dataclasses.replace(emoji.manifest, preprocessing=cropped)
    write_hub(tmp_path, manifest, emoji.plan, emoji.store, emoji.tokenizer, graphs=emoji.graphs)
    settings = read(tmp_path / "preprocessor_config.json")
    assert settings["size"] == {"shortest_edge": 66}
    assert settings["crop_size"] == {"height": 60, "width": 60}
    assert settings["do_center_crop"] is True
    assert settings["image_processor_type"] == "CLIPImageProcessor"
