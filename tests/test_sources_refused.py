"""Checkpoints that cannot be honoured are refused by name; damaged ones never give a traceback."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from sigrun import CheckpointError
from sigrun_exporters.checkpoint import open_checkpoint
from tests.checkpoints import change_json
from tests.sources import refused, small_timm, written_in


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    small_timm(monkeypatch)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return written_in(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def folder(written: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies of them to spoil."""
    return lambda layout: Path(shutil.copytree(written[layout], tmp_path / "spoiled"))


# ---- refusals ----


HUGGINGFACE: list[tuple[str, dict[str, Any], list[str]]] = [
    ("config.json", {"model_type": "siglip2"}, ["'siglip2'", "NaFlex", "siglip2-so400m-patch14-384"]),
    ("config.json", {"model_type": "siglip_vision_model"}, ["image tower alone", "timm/"]),
    ("config.json", {"model_type": "siglip_text_model"}, ["text tower alone"]),
    ("config.json", {"model_type": "paligemma"}, ["'paligemma'", "vision-language"]),
    ("config.json", {"model_type": "llava"}, ["'llava'", "vision-language"]),
    ("config.json", {"model_type": "idefics3"}, ["'idefics3'", "vision-language"]),
    ("config.json", {"model_type": "clip"}, ["'clip'", "another architecture"]),
    ("config.json", {"model_type": None}, ["model_type is None"]),
    ("config.json", {"vision_config__hidden_act": "quick_gelu"}, ["hidden_act", "quick_gelu"]),
    ("config.json", {"vision_config__hidden_act": ["gelu"]}, ["hidden_act"]),
    ("config.json", {"vision_config__vision_use_head": False}, ["MAP head"]),
    ("config.json", {"vision_config__num_channels": 1}, ["num_channels"]),
    ("config.json", {"text_config__projection_size": 64}, ["projection_size", "could not be compared"]),
    ("config.json", {"text_config__num_hidden_layers": 5000}, ["5000 layers"]),
    (
        "preprocessor_config.json",
        {"image_processor_type": "Siglip2ImageProcessor"},
        ["Siglip2ImageProcessor"],
    ),
    ("preprocessor_config.json", {"do_center_crop": True}, ["do_center_crop"]),
    ("preprocessor_config.json", {"do_rescale": False}, ["do_rescale"]),
    ("preprocessor_config.json", {"resample": 5}, ["resample", "2 (bilinear)"]),
    ("preprocessor_config.json", {"size": {"shortest_edge": 33}}, ["size"]),
    ("tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer"}, ["CLIPTokenizer", "GemmaTokenizer"]),
    ("tokenizer_config.json", {"padding_side": "left"}, ["padding_side", "left"]),
    ("tokenizer_config.json", {"add_bos_token": True}, ["add_bos_token"]),
    ("tokenizer_config.json", {"add_eos_token": False}, ["add_eos_token"]),
    ("tokenizer_config.json", {"eos_token": "<end>"}, ["tokenizer.model", "'<end>'"]),
    ("tokenizer_config.json", {"pad_token": 7}, ["pad_token"]),
    (
        "tokenizer_config.json",
        {"tokenizer_class": "SiglipTokenizer", "do_lower_case": False},
        ["do_lower_case"],
    ),
]
OPENCLIP: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"model_cfg__vision_cfg__timm_model_name": "vit_so400m_patch14_siglip_gap_384"},
        ["gap_384", "MAP head"],
    ),
    ({"model_cfg__vision_cfg__timm_model_name": "vit_base_patch16_clip_224"}, ["clip_224", "siglip"]),
    ({"model_cfg__vision_cfg__timm_model_name": "naflexvit_base_patch16_siglip"}, ["naflexvit"]),
    ({"model_cfg__vision_cfg__timm_model_name": None}, ["timm_model_name", "CLIP"]),
    ({"model_cfg__vision_cfg__timm_pool": "avg"}, ["timm_pool", "avg"]),
    ({"model_cfg__vision_cfg__timm_proj": "linear"}, ["timm_proj", "linear"]),
    ({"model_cfg__vision_cfg__image_size": 224}, ["image_size", "224", "33"]),
    ({"model_cfg__vision_cfg__patch_dropout": 0.5}, ["patch_dropout", "does not know"]),
    ({"model_cfg__text_cfg__hf_model_name": "xlm-roberta"}, ["xlm-roberta"]),
    ({"model_cfg__text_cfg__hf_tokenizer_name": None}, ["CLIP's tokenizer"]),
    ({"model_cfg__text_cfg__pool_type": "argmax"}, ["pool_type", "argmax"]),
    ({"model_cfg__text_cfg__no_causal_mask": None}, ["no_causal_mask"]),
    ({"model_cfg__text_cfg__proj_bias": None}, ["proj_bias"]),
    ({"model_cfg__text_cfg__proj_type": "none"}, ["proj_type", "width of 64"]),
    ({"model_cfg__text_cfg__proj_type": "mlp"}, ["proj_type", "mlp"]),
    ({"model_cfg__text_cfg__tokenizer_kwargs": {"clean": "whitespace"}}, ["clean", "whitespace"]),
    ({"model_cfg__text_cfg__tokenizer_kwargs": None}, ["clean"]),
    ({"model_cfg__text_cfg__tokenizer_kwargs__strip_sep_token": True}, ["strip_sep_token"]),
    ({"model_cfg__text_cfg__act_kwargs": {"approximate": "fast"}}, ["approximate"]),
    ({"model_cfg__text_cfg__ls_init_value": 0.1}, ["ls_init_value"]),
    ({"model_cfg__text_cfg__use_pad_mask": True}, ["use_pad_mask"]),
    ({"model_cfg__text_cfg__heads": 7}, ["7 heads"]),
    ({"model_cfg__embed_dim": 64}, ["embed_dim"]),
    ({"model_cfg__custom_text": False}, ["custom_text"]),
    ({"model_cfg__multimodal_cfg": {}}, ["multimodal_cfg"]),
    ({"model_cfg": None}, ["model_cfg is missing"]),
    ({"preprocess_cfg__resize_mode": "longest"}, ["resize_mode", "longest", "squash"]),
    ({"preprocess_cfg__interpolation": "area"}, ["area"]),
    ({"preprocess_cfg__size": 224}, ["size"]),
    ({"preprocess_cfg__std": [0.5, 0.5, 0]}, ["std"]),
]
TIMM: list[tuple[dict[str, Any], list[str]]] = [
    ({"architecture": "vit_so400m_patch14_siglip_gap_384"}, ["averages its tokens", "MAP head"]),
    ({"architecture": "resnet50"}, ["resnet50"]),
    ({"architecture": 5}, ["architecture"]),
    ({"num_classes": 1000}, ["num_classes", ".webli"]),
    ({"model_args__global_pool": "avg"}, ["global_pool", "avg"]),
    ({"model_args__class_token": True}, ["class_token"]),
    ({"model_args__reg_tokens": 4}, ["reg_tokens", "does not know"]),
    ({"model_args__act_layer": "relu"}, ["act_layer", "relu"]),
    ({"model_args__img_size": [33, 40]}, ["img_size"]),
    ({"model_args__patch_size": 50}, ["patch_size"]),
    ({"model_args__mlp_ratio": "wide"}, ["mlp_ratio"]),
    ({"pretrained_cfg": None}, ["pretrained_cfg"]),
    ({"pretrained_cfg__crop_mode": "border"}, ["crop_mode", "border", "squash"]),
    ({"pretrained_cfg__crop_mode": "squash"}, ["crop_mode", "crop_pct 0.9"]),
    ({"pretrained_cfg__crop_pct": 0}, ["crop_pct"]),
    ({"pretrained_cfg__interpolation": "random"}, ["random"]),
    ({"pretrained_cfg__input_size": [3, 64, 64]}, ["input_size", "33"]),
]


@pytest.mark.parametrize(("file", "changes", "words"), HUGGINGFACE)
def test_what_transformers_folders_may_not_say(
    folder: Callable[[str], Path], file: str, changes: dict[str, Any], words: list[str]
) -> None:
    path = folder("siglip2")
    change_json(path / file, **changes)
    refused(path, *words)


@pytest.mark.parametrize(("changes", "words"), OPENCLIP)
def test_what_openclip_folders_may_not_say(
    folder: Callable[[str], Path], changes: dict[str, Any], words: list[str]
) -> None:
    path = folder("openclip")
    change_json(path / "open_clip_config.json", **changes)
    refused(path, "open_clip_config.json", *words)


@pytest.mark.parametrize(("changes", "words"), TIMM)
def test_what_timm_folders_may_not_say(
    folder: Callable[[str], Path], changes: dict[str, Any], words: list[str]
) -> None:
    path = folder("timm")
    change_json(path / "config.json", **changes)
    refused(path, "config.json", *words)


@pytest.mark.parametrize("layout", ["siglip2", "openclip", "timm"])
def test_pickled_and_foreign_weights_are_refused(folder: Callable[[str], Path], layout: str) -> None:
    path = folder(layout)
    weights = next(path.glob("*.safetensors"))
    weights.rename(path / "open_clip_pytorch_model.bin")
    refused(path, "pickled", "runs the code", weights.name)
    (path / "open_clip_pytorch_model.bin").rename(path / "siglip2_b16.npz")
    refused(path, "big_vision")
    (path / "siglip2_b16.npz").unlink()
    refused(path, f"has no {weights.name}")


@pytest.mark.parametrize("layout", ["openclip", "timm"])
def test_tensors_that_do_not_match_are_named(folder: Callable[[str], Path], layout: str) -> None:
    path = folder(layout)
    weights = next(path.glob("*.safetensors"))
    tensors = load_file(weights)
    name = next(n for n in tensors if n.endswith("attn_pool.kv.weight"))
    whole = tensors.pop(name)
    save_file(tensors, weights)
    refused(path, "1 of ", name)
    save_file(tensors | {name: whole[1:]}, weights)
    refused(path, name, str(list(whole[1:].shape)), str(list(whole.shape)))
    save_file(tensors | {name: whole, "surplus": whole}, weights)
    refused(path, "'surplus'")


def test_a_clip_without_bias_is_refused(folder: Callable[[str], Path]) -> None:
    path = folder("openclip")
    tensors = load_file(path / "open_clip_model.safetensors")
    del tensors["logit_bias"]
    save_file(tensors, path / "open_clip_model.safetensors")
    refused(path, "logit_bias", "trained as a CLIP")


@pytest.mark.parametrize("layout", ["siglip2", "siglip2-json", "openclip"])
def test_a_folder_without_tokenizer_says_what_is_missing(folder: Callable[[str], Path], layout: str) -> None:
    path = folder(layout)
    for name in ("tokenizer.model", "tokenizer.json"):
        (path / name).unlink(missing_ok=True)
    refused(path, "no tokenizer", "tokenizer.json", "spiece.model")
    (path / "tokenizer_config.json").unlink()
    refused(path, "tokenizer_config.json")


def test_a_template_that_adds_more_than_the_end_is_refused(folder: Callable[[str], Path]) -> None:
    path = folder("openclip")
    change_json(path / "tokenizer_config.json", add_bos_token=None, add_eos_token=None)
    content = json.loads((path / "tokenizer.json").read_text("utf-8"))
    open_checkpoint(str(path))
    for single in ([], [{"SpecialToken": {"id": "<bos>"}}, {"Sequence": {"id": "A"}}]):
        content["post_processor"]["single"] = single
        (path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
        refused(path, "around a text", "<eos>")


# ---- damage ----

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(data: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to values of a JSON document; of long lists and tables only the first few."""
    found = [here] if here else []
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(items)[:25]:
        found += places(value, (*here, key))
    return found


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("siglip2", "config.json"),
        ("siglip2", "preprocessor_config.json"),
        ("siglip2", "tokenizer_config.json"),
        ("siglip2-json", "tokenizer.json"),
        ("openclip", "open_clip_config.json"),
        ("openclip", "tokenizer_config.json"),
        ("openclip", "tokenizer.json"),
        ("timm", "config.json"),
    ],
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_json_never_gives_a_traceback(
    written: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    layout: str,
    name: str,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz-{layout}-{name}"
    if not path.exists():
        shutil.copytree(written[layout], path)
    content = copy.deepcopy(_json(written[layout] / name))
    for _ in range(data.draw(st.integers(1, 2))):
        way = data.draw(st.sampled_from(places(content)))
        part = content
        for step in way[:-1]:
            part = part[step]
        if data.draw(st.booleans()) or isinstance(part, list):
            part[way[-1]] = data.draw(ODD)
        else:
            del part[way[-1]]
    (path / name).write_text(json.dumps(content), "utf-8")
    try:
        open_checkpoint(str(path))
    except CheckpointError as error:
        assert str(error)


_READ: dict[Path, Any] = {}


def _json(path: Path) -> Any:
    if path not in _READ:
        _READ[path] = json.loads(path.read_text("utf-8"))
    return _READ[path]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_tokenizer_model_never_gives_a_traceback(
    written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz-model"
    if not path.exists():
        shutil.copytree(written["siglip2"], path)
    content = bytearray((written["siglip2"] / "tokenizer.model").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from([0, 300, len(content) - 700])) + data.draw(st.integers(0, 650))
        patch = data.draw(st.binary(min_size=1, max_size=4))
        content[at : at + len(patch)] = patch
    (path / "tokenizer.model").write_bytes(content)
    try:
        open_checkpoint(str(path))
    except CheckpointError as error:
        assert "tokenizer" in str(error)
