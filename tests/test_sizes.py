"""What an export will weigh, said before: against the files themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sigrun import CheckpointError
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import Exported, Settings, export
from sigrun_exporters.sizes import predict, unseen
from sigrun_recipes import default_model, known, load, names, plan
from tests import checkpoints
from tests.conftest import roomy

NEAR = 0.001
SMALL = ("manifest.json", "preprocess.onnx", "tokenizer.json", "tokenizer.model")


def bundle_files(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in folder.iterdir() if p.name not in SMALL}


@pytest.mark.parametrize("name", names())
def test_every_variant_weighs_what_was_predicted(emoji_variant: Callable[[str], Exported], name: str) -> None:
    done = emoji_variant(name)
    said = predict(open_checkpoint(str(checkpoints.EMOJI)), plan(load(name), done.plan.source))
    assert said.gguf == pytest.approx(done.path.stat().st_size, rel=NEAR)
    assert said.onnx == pytest.approx(bundle_files(done.paths[1]), rel=NEAR)
    assert said.towers == {tower: done.plan.nbytes(tower) for tower in ("image", "text")}


@pytest.mark.parametrize("layout", ["siglip", "siglip2", "timm"])
def test_small_models_of_each_kind_weigh_what_was_predicted(layout: str, tmp_path: Path) -> None:
    """All but the head is exact; the head of a file this small is too large a part of it for a share to say much."""
    writers = {
        "siglip": checkpoints.write,
        "siglip2": checkpoints.write_siglip2,
        "timm": checkpoints.write_timm,
    }
    opened = open_checkpoint(str(writers[layout](tmp_path / "small")))
    settings = Settings(formats=("gguf", "onnx"), allow_failing=True)
    done = export(opened, roomy("q4_k_m"), tmp_path / "models", settings)
    said = predict(opened, done.plan)
    assert said.gguf == pytest.approx(done.path.stat().st_size, abs=2048)
    files = bundle_files(done.paths[1])
    assert said.onnx == pytest.approx(files, abs=1024)
    weights = {name: size for name, size in files.items() if name.endswith(".data")}
    assert {name: said.onnx[name] for name in weights} == weights
    assert set(said.towers) == ({"image"} if layout == "timm" else {"image", "text"})


def test_another_form_of_the_bundle_weighs_what_was_predicted(tiny: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(str(tiny))
    settings = Settings(formats=("onnx",), compute="int8", verify=False)
    done = export(opened, roomy("q4_k_m"), tmp_path, settings)
    said = predict(opened, done.plan, "int8").onnx
    assert said == pytest.approx(bundle_files(done.path), rel=NEAR)
    assert said["image.onnx.data"] != predict(opened, done.plan).onnx["image.onnx.data"]


def test_a_model_that_is_not_here_is_its_head_its_tokenizer_and_its_weights() -> None:
    """At SO400M's size the file is its weights but for 0.4 %, of which most is the tokenizer."""
    model = default_model()
    planned = plan(load("q4_k_m"), model.architecture)
    weights = sum(planned.nbytes(tower) for tower in ("image", "text"))
    absent = unseen(model)
    bare = predict(absent, planned).gguf
    assert model.tokenizer_bytes is not None
    whole = predict(absent, planned, tokenizer_bytes=model.tokenizer_bytes).gguf
    assert 0 <= whole - bare - model.tokenizer_bytes < 32 or 0 <= bare + model.tokenizer_bytes - whole < 32
    assert weights < whole < 1.004 * weights + model.tokenizer_bytes
    with pytest.raises(CheckpointError, match="is not here"):
        absent.read("v.patch_embd.weight")


def test_the_tokenizers_share_is_what_a_head_without_it_lacks() -> None:
    """``tokenizer_bytes`` of a known model is the difference that a tokenizer makes, by this very reckoning."""
    opened = open_checkpoint(str(checkpoints.EMOJI))
    planned = plan(load("q8_0"), opened.architecture)
    whole, bare = predict(opened, planned).gguf, predict(replace(opened, tokenizer=None), planned).gguf
    assert whole > bare
    again = predict(replace(opened, tokenizer=None), planned, tokenizer_bytes=whole - bare).gguf
    assert again == pytest.approx(whole, abs=64)


def test_every_known_model_can_be_predicted() -> None:
    for model in known():
        planned = plan(load("q8_0"), model.architecture)
        assert predict(unseen(model), planned).gguf > sum(planned.nbytes(t) for t in ("image", "text"))
