"""Every layout of checkpoint: opened, exported, run; what cannot be honoured is refused by name."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from sigrun import ArtifactError, CheckpointError, Siglip, SpaceError
from sigrun.artifact import Artifact
from sigrun_exporters.checkpoint import open_checkpoint, timm_towers
from sigrun_exporters.export import export
from sigrun_recipes import Architecture, load
from tests import checkpoints
from tests.checkpoints import SMALL_IMAGE, SMALL_TEXT, change_json
from tests.conftest import UNVERIFIED

WRITERS: dict[str, Callable[[Path], Path]] = {
    "siglip2": checkpoints.write_siglip2,
    "siglip2-json": lambda folder: checkpoints.write_siglip2(folder, "tokenizer.json"),
    "openclip": checkpoints.write_openclip,
    "timm": checkpoints.write_timm,
}


@pytest.fixture(autouse=True)
def small_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, arguments in checkpoints.SMALL_TOWERS.items():
        monkeypatch.setitem(timm_towers.TOWERS, name, arguments)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each layout."""
    root = tmp_path_factory.mktemp("sources")
    return {name: write(root / name) for name, write in WRITERS.items()}


@pytest.fixture
def folder(written: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Copies of them to spoil."""
    return lambda layout: Path(shutil.copytree(written[layout], tmp_path / "spoiled"))


def to_f32(folder: Path, out: Path) -> Path:
    return export(open_checkpoint(str(folder)), load("f32"), out, UNVERIFIED).path


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(folder))
    for word in words:
        assert word in str(caught.value)


# ---- what is read ----


@pytest.mark.parametrize(
    ("layout", "architecture"),
    [("timm", Architecture(SMALL_IMAGE, None)), ("openclip", Architecture(SMALL_IMAGE, SMALL_TEXT))],
)
def test_every_tensor_comes_back_from_where_the_layout_keeps_it(
    written: dict[str, Path], layout: str, architecture: Architecture
) -> None:
    checkpoint = open_checkpoint(str(written[layout]))
    for name, values in checkpoints.values(architecture).items():
        assert np.array_equal(checkpoint.read(name), values), name


def test_what_the_configs_say(written: dict[str, Path]) -> None:
    found = {name: open_checkpoint(str(path)) for name, path in written.items()}
    timm, openclip, siglip2 = found["timm"], found["openclip"], found["siglip2"]
    assert timm.architecture.image is not None
    assert timm.architecture.text is None
    assert timm.architecture.image.activation == "gelu"
    assert (timm.preprocessing.geometry, timm.preprocessing.short_side) == ("crop", 36)
    assert (timm.tokenizer, timm.scoring) == (None, None)
    assert openclip.architecture == Architecture(SMALL_IMAGE, SMALL_TEXT)
    assert openclip.preprocessing.geometry == "squash"
    assert openclip.tokenizer is not None
    assert openclip.tokenizer.canonicalisation == "openclip"
    assert openclip.scoring is not None
    assert openclip.scoring.logit_bias == -3
    assert siglip2.preprocessing.resample == "bilinear"
    assert siglip2.tokenizer is not None
    assert (siglip2.tokenizer.kind, siglip2.tokenizer.canonicalisation) == ("bpe", "lower")
    assert (siglip2.tokenizer.pad_id, siglip2.tokenizer.eos_id, siglip2.tokenizer.unk_id) == (0, 1, 3)
    assert siglip2.source().files.keys() == {"model.safetensors", "tokenizer.model"}
    assert openclip.source().files.keys() == {"open_clip_model.safetensors", "tokenizer.json"}


def test_both_files_of_a_tokenizer_give_the_same_ids(written: dict[str, Path], tmp_path: Path) -> None:
    ids = []
    for layout in ("siglip2", "siglip2-json"):
        with Artifact.open(to_f32(written[layout], tmp_path / layout)) as artifact:
            from sigrun.tokens import Tokenizer

            spec = artifact.tokenizer()
            assert spec.kind == "bpe"
            ids.append(Tokenizer(spec).encode(["Red apple,\n\n  <start_of_turn>don't ΣΟΣ 😀"]).ids)
    assert np.array_equal(*ids)
    pieces = [checkpoints.gemma_spec().pieces[i] for i in ids[0][0]]
    assert {"\n\n", "▁▁", "<start_of_turn>", "<0xF0>"} <= set(pieces)  # symbols whole, the unknown as bytes
    assert pieces[-1] == "<pad>"


def test_do_lower_case_may_be_denied(folder: Callable[[str], Path]) -> None:
    path = folder("siglip2")
    change_json(path / "tokenizer_config.json", do_lower_case=False)
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.tokenizer is not None
    assert checkpoint.tokenizer.canonicalisation == "none"


def test_pieces_beyond_the_token_table_are_left_out_only_if_no_text_needs_them(
    folder: Callable[[str], Path],
) -> None:
    path = folder("siglip2-json")
    content = json.loads((path / "tokenizer.json").read_text("utf-8"))
    count = len(content["model"]["vocab"])
    content["model"]["vocab"] |= {"<extra_id_0>": count, "▁<extra_id_1>": count + 1}
    (path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.tokenizer is not None
    assert len(checkpoint.tokenizer.pieces) == count
    content["model"]["vocab"]["zzzz"] = count + 2
    (path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    refused(path, "1403 pieces", "1400 rows")


def test_a_folder_of_two_layouts_is_read_as_the_one_whose_weights_it_has(
    folder: Callable[[str], Path], written: dict[str, Path]
) -> None:
    path = folder("timm")
    shutil.copy(written["openclip"] / "open_clip_config.json", path)
    assert open_checkpoint(str(path)).architecture.text is None
    for name in ("open_clip_model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(written["openclip"] / name, path)
    assert open_checkpoint(str(path)).architecture.text is not None


def test_architectures_written_before_activations_were_told_apart() -> None:
    data = Architecture(SMALL_IMAGE, replace(SMALL_TEXT, activation="gelu_tanh")).to_json()
    old = {name: {k: v for k, v in tower.items() if k != "activation"} for name, tower in data.items()}
    assert Architecture.from_json(old) == Architecture.from_json(data)


def test_weights_split_over_several_files(tiny: Path, tmp_path: Path) -> None:
    split = checkpoints.write_split(tmp_path / "split", tiny)
    whole, parts = open_checkpoint(str(tiny)), open_checkpoint(str(split))
    for spec in whole.architecture.tensors():
        assert np.array_equal(whole.read(spec.name), parts.read(spec.name))
    assert whole.scoring == parts.scoring
    assert set(parts.source().files) >= {f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "model-00002-of-00003.safetensors").unlink(), ["model-00002", "cannot read"]),
        (lambda f: change_json(f / "model.safetensors.index.json", weight_map=None), ["weight_map"]),
        (lambda f: change_json(f / "model.safetensors.index.json", weight_map=[1]), ["weight_map"]),
        (
            lambda f: change_json(
                f / "model.safetensors.index.json", weight_map__logit_bias="../x.safetensors"
            ),
            ["../x.safetensors", "logit_bias"],
        ),
        (
            lambda f: change_json(f / "model.safetensors.index.json", weight_map__logit_bias="x.bin"),
            ["x.bin"],
        ),
        (
            lambda f: change_json(
                f / "model.safetensors.index.json",
                weight_map__surplus="model-00001-of-00003.safetensors",
            ),
            ["surplus"],
        ),
    ],
    ids=["missing", "nothing", "list", "outside", "pickle", "elsewhere"],
)
def test_damaged_indexes_are_refused(
    tiny: Path, tmp_path: Path, damage: Callable[[Path], object], words: list[str]
) -> None:
    split = checkpoints.write_split(tmp_path / "split", tiny)
    damage(split)
    refused(split, *words)


# ---- the artifact ----


def test_the_file_names_the_kind_of_tokenizer_and_activation(
    written: dict[str, Path], tmp_path: Path
) -> None:
    fields = gguf.GGUFReader(to_f32(written["siglip2"], tmp_path / "2")).fields
    assert fields["tokenizer.ggml.model"].contents() == "llama"
    assert fields["siglip.text.activation"].contents() == "gelu_tanh"
    fields = gguf.GGUFReader(to_f32(written["timm"], tmp_path / "t")).fields
    assert fields["siglip.vision.activation"].contents() == "gelu"
    assert not [key for key in fields if key.startswith(("siglip.text", "siglip.logit", "tokenizer"))]


def test_the_activation_reaches_the_graph(written: dict[str, Path], folder: Any, tmp_path: Path) -> None:
    """Same weights, GELU and its approximation: embeddings close, and not equal."""
    path = folder("timm")
    change_json(path / "config.json", model_args__act_layer="gelu_tanh")
    picture = Image.effect_mandelbrot((50, 40), (-2, -1.5, 1, 1.5), 100).convert("RGB")
    vectors = []
    for source in (written["timm"], path):
        with Siglip.load(to_f32(source, tmp_path / source.name)) as model:
            vectors.append(model.embed_images([picture]).vectors[0])
    assert 1e-7 < np.abs(vectors[0] - vectors[1]).max() < 1e-2


def test_one_model_in_two_layouts_gives_one_embedding(
    written: dict[str, Path], folder: Any, tmp_path: Path
) -> None:
    path = folder("timm")
    change_json(
        path / "config.json",
        model_args__act_layer="gelu_tanh",
        pretrained_cfg__crop_pct=1.0,
        pretrained_cfg__crop_mode="squash",
    )
    picture = Image.effect_mandelbrot((50, 40), (-2, -1.5, 1, 1.5), 100).convert("RGB")
    found = []
    for source in (path, written["openclip"]):
        with Siglip.load(to_f32(source, tmp_path / source.name)) as model:
            found.append(model.embed_images([picture]))
    assert np.array_equal(found[0].vectors, found[1].vectors)
    assert found[0].space != found[1].space


@pytest.mark.parametrize(
    ("pattern", "instead", "message"),
    [
        (rb'"canonicalisation":"lower"', b'"canonicalisation":null', "names no canonicalisation"),
        (rb'"scoring":\{[^}]*\}', b'"scoring":null', "no scoring constants"),
        (rb"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0bloom", "model is 'bloom'; .*'t5' .*'llama'"),
    ],
)
def test_files_that_lack_what_a_text_tower_needs_are_refused(
    written: dict[str, Path], tmp_path: Path, pattern: bytes, instead: bytes, message: str
) -> None:
    path = to_f32(written["siglip2"], tmp_path)
    content, count = re.subn(pattern, lambda m: instead.ljust(len(m[0])), path.read_bytes())
    assert count == 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message), Artifact.open(path) as artifact:
        artifact.tokenizer()


# ---- an image tower alone ----


@pytest.fixture(scope="module")
def image_only(written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_f32(written["timm"], tmp_path_factory.mktemp("image-only"))


def test_an_image_tower_alone_says_so_when_asked_about_texts(image_only: Path) -> None:
    picture = Image.new("RGB", (40, 30), (200, 10, 10))
    with Siglip.load(image_only) as model:
        assert model.info.manifest.scoring is None
        assert model.info.manifest.canonicalisation is None
        assert model.info.tower_nbytes.keys() == {"image"}
        images = model.embed_images([picture])
        assert images.vectors.shape == (1, 96)
        for ask in (
            lambda: model.embed_texts(["a"]),
            lambda: model.embed_texts([]),
            lambda: model.label_set(["a", "b"]),
            lambda: model.classify(picture, ["a", "b"]),
        ):
            with pytest.raises(
                ArtifactError, match="no text tower: the checkpoint it was exported from"
            ) as caught:
                ask()
            assert "embed pictures" in str(caught.value)
    for towers in ("text", "both"):
        with pytest.raises(ArtifactError, match="no text tower"):
            Siglip.load(image_only, towers=towers)  # type: ignore[arg-type]


def test_labels_of_another_model_do_not_help_it(
    image_only: Path, written: dict[str, Path], tmp_path: Path
) -> None:
    with (
        Siglip.load(image_only) as model,
        Siglip.load(to_f32(written["openclip"], tmp_path)) as other,
    ):
        labels = other.label_set(["a", "b"])
        with pytest.raises(SpaceError, match="two embedding spaces"):
            model.score(model.embed_images([Image.new("RGB", (9, 9))]), labels)


def test_its_tokenizer_is_refused_by_name(image_only: Path) -> None:
    with Artifact.open(image_only) as artifact, pytest.raises(ArtifactError, match="no text tower"):
        artifact.tokenizer()


def test_commands_take_an_image_tower_alone(
    image_only: Path, written: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sigrun.cli import main as run
    from sigrun_exporters.cli import main as export_main
    from sigrun_hwcheck.cli import main as check

    picture = tmp_path / "red.png"
    Image.new("RGB", (40, 30), (200, 10, 10)).save(picture)
    assert run(["info", str(image_only)]) == 0
    out = capsys.readouterr().out
    assert "no text tower" in out
    assert "shorter side made 36, then the middle 33 x 33 cropped" in out
    assert "scoring" not in out
    assert run(["info", str(image_only), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scoring"] is None
    assert run(["embed", str(image_only), str(picture)]) == 0
    assert capsys.readouterr().out
    assert run(["embed", str(image_only), "--text", "red"]) != 0
    assert "no text tower" in capsys.readouterr().err
    assert run(["classify", str(image_only), str(picture), "--label", "red"]) != 0
    assert "no text tower" in capsys.readouterr().err
    assert export_main(["recipes", str(written["timm"])]) == 0
    assert capsys.readouterr().out.count("-  ") >= 1
    assert export_main(["recipes", str(written["timm"]), "--json"]) == 0
    variants = json.loads(capsys.readouterr().out)["variants"]
    assert {tower for v in variants for tower in v.get("towers", ())} == {"image"}
    out_folder = ["--variant", "f32", "--no-verify", "-o", str(tmp_path)]
    assert export_main(["convert", str(written["timm"]), *out_folder]) == 0
    assert Path(capsys.readouterr().out.split()[0]).exists()
    assert check([str(image_only)]) == 0
    assert "text" not in capsys.readouterr().out.lower().replace("context", "")


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
