"""Every layout of checkpoint: opened, exported, run."""

from __future__ import annotations

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
from PIL import Image

from sigrun import ArtifactError, Siglip
from sigrun.artifact import Artifact
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_recipes import Architecture
from tests import checkpoints
from tests.checkpoints import SMALL_IMAGE, SMALL_TEXT, change_json
from tests.sources import refused, small_timm, to_f32, written_in


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
