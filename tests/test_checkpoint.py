"""Opening source checkpoints: every fault is named, every dtype is read, little is held in memory."""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from sigrun import CheckpointError
from sigrun_exporters.checkpoint import open_checkpoint, timm_towers
from sigrun_exporters.checkpoint.safetensors_file import SafetensorsFile
from tests import checkpoints

PROBE = "vision_model.head.probe"


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "spoiled"))


def change_json(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text("utf-8"))
    data.update(values)
    path.write_text(json.dumps(data), "utf-8")


def change_tensors(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_every_tensor_is_read_as_the_library_reads_it(tiny: Path) -> None:
    theirs = load_file(tiny / "model.safetensors")
    file = SafetensorsFile(tiny / "model.safetensors")
    assert set(file.entries) == set(theirs)
    for name, values in theirs.items():
        assert np.array_equal(file.read(name), values)
    stacked = "vision_model.head.attention.in_proj_weight"
    assert np.array_equal(file.read(stacked, slice(96, 192)), theirs[stacked][96:192])


def test_the_probe_and_the_stacked_projection_come_apart(tiny: Path) -> None:
    checkpoint = open_checkpoint(str(tiny))
    theirs = load_file(tiny / "model.safetensors")
    assert np.array_equal(checkpoint.read("v.head.probe"), theirs[PROBE].reshape(-1))
    thirds = [checkpoint.read(f"v.head.attn_{part}.weight") for part in "qkv"]
    assert np.array_equal(np.concatenate(thirds), theirs["vision_model.head.attention.in_proj_weight"])
    thirds = [checkpoint.read(f"v.head.attn_{part}.bias") for part in "qkv"]
    assert np.array_equal(np.concatenate(thirds), theirs["vision_model.head.attention.in_proj_bias"])
    assert checkpoint.scoring.logit_scale == 2.5


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_sources(folder: Path, dtype: str) -> None:
    exact = load_file(folder / "model.safetensors")
    if dtype == "F16":
        change_tensors(folder, lambda t: t.update({k: v.astype(np.float16) for k, v in t.items()}))
        expected = {k: v.astype(np.float16).astype(np.float32) for k, v in exact.items()}
    else:
        expected = {k: (v.view(np.uint32) & 0xFFFF0000).view(np.float32) for k, v in exact.items()}
        write_raw(
            folder / "model.safetensors",
            {k: (v.view(np.uint32) >> 16).astype("<u2") for k, v in exact.items()},
        )
    read = open_checkpoint(str(folder)).read
    assert np.array_equal(
        read("t.blk.1.ffn_up.weight"), expected["text_model.encoder.layers.1.mlp.fc1.weight"]
    )
    assert read("t.blk.1.ffn_up.weight").dtype == np.float32


def write_raw(path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """Write bfloat16 tensors, which NumPy does not know, by hand."""
    header: dict[str, object] = {}
    at = 0
    for name, raw in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(raw.shape), "data_offsets": [at, at + raw.nbytes]}
        at += raw.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(
        struct.pack("<Q", len(text)) + text + b"".join(raw.tobytes() for raw in tensors.values())
    )


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint = open_checkpoint(str(folder))
        for spec in checkpoint.architecture.tensors():
            checkpoint.read(spec.name)
    for word in words:
        assert word in str(caught.value)


def test_tensors_that_do_not_match_are_named(folder: Path) -> None:
    change_tensors(folder, lambda t: t.pop(PROBE))
    refused(folder, "1 of ", "missing", PROBE)


def test_superfluous_tensors_are_named(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update(surplus=np.zeros(1, np.float32)))
    refused(folder, "'surplus'")


def test_wrong_shapes_are_named_with_both_shapes(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({PROBE: np.zeros((1, 1, 97), np.float32)}))
    refused(folder, PROBE, "[1, 1, 97]", "[1, 1, 96]")


def test_wrong_dtypes_are_named(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({PROBE: np.zeros((1, 1, 96), np.int32)}))
    refused(folder, PROBE, "I32", "BF16")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_named(folder: Path, value: float) -> None:
    change_tensors(folder, lambda t: t[PROBE].__setitem__((0, 0, 5), value))
    refused(folder, PROBE, "not finite")


def test_other_architectures_are_refused_by_name(folder: Path) -> None:
    change_json(folder / "config.json", model_type="clip")
    refused(folder, "'clip'", "siglip")


def test_a_config_of_other_sizes_names_the_first_mismatch(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["text_config"]["hidden_size"] = 192
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    refused(folder, "config.json asks for")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("config.json", "vision_config", {"hidden_act": "quick_gelu"}),
        ("config.json", "vision_config", {"hidden_size": "big"}),
        ("config.json", "vision_config", {"num_attention_heads": 7}),
        ("config.json", "text_config", []),
        ("preprocessor_config.json", "resample", 7),
        ("preprocessor_config.json", "do_normalize", False),
        ("preprocessor_config.json", "size", {"height": 224, "width": 224}),
        ("preprocessor_config.json", "image_mean", [0.5]),
        ("tokenizer_config.json", "tokenizer_class", "CLIPTokenizer"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(
    folder: Path, file: str, key: str, value: object
) -> None:
    change_json(folder / file, **{key: value})
    refused(folder, file.split("/")[-1])


@pytest.mark.parametrize(
    "name",
    ["config.json", "preprocessor_config.json", "tokenizer_config.json", "spiece.model", "model.safetensors"],
)
def test_missing_and_empty_files_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    refused(folder, name)
    (folder / name).unlink()
    refused(folder, name)


def test_truncated_weights_say_cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(folder, "model.safetensors", "cut off")


def test_pickled_checkpoints_are_refused_with_the_reason(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pickled", "runs the code")


def test_no_such_folder_gives_two_ways_out(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no folder", "make demo")
    file = tmp_path / "file"
    file.write_text("x")
    refused(file, "is a file")


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot reach the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="local folder") as caught:
        open_checkpoint("google/siglip-so400m-patch14-384")
    assert "make demo" in str(caught.value)


def test_a_hub_snapshot_gives_its_revision(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    asked = serve_from(monkeypatch, tiny, tmp_path)
    checkpoint = open_checkpoint("google/siglip-so400m-patch14-384", "main")
    assert checkpoint.name == "siglip-so400m-patch14-384"
    assert checkpoint.source().revision == "a" * 40
    assert [a["revision"] for a in asked] == ["main", "a" * 40]


def serve_from(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """A hub that holds one folder, and the calls it gets."""
    import huggingface_hub

    asked: list[dict[str, Any]] = []
    snapshot = tmp_path / ("a" * 40)

    def fetched(model: str, **options: Any) -> str:
        asked.append(options)
        snapshot.mkdir(exist_ok=True)
        for path in folder.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in options["allow_patterns"]):
                shutil.copy(path, snapshot)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize("layout", ["one file", "split", "openclip", "timm"])
def test_only_the_weights_of_the_layout_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path, layout: str
) -> None:
    for name, arguments in checkpoints.SMALL_TOWERS.items():
        monkeypatch.setitem(timm_towers.TOWERS, name, arguments)
    there = tmp_path / "there"
    wanted = {
        "one file": {"model.safetensors"},
        "split": {f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)},
        "openclip": {"open_clip_model.safetensors"},
        "timm": {"model.safetensors"},
    }[layout]
    if layout == "openclip":
        checkpoints.write_openclip(there)
    elif layout == "timm":
        checkpoints.write_timm(there)
    elif layout == "split":
        checkpoints.write_split(there, tiny)
    else:
        shutil.copytree(tiny, there)
    others = [
        "pytorch_model.bin",
        "open_clip_pytorch_model.bin",
        "tf_model.h5",
        "onnx.tar",
        "fp16.safetensors",
    ]
    others += [name for name in ("open_clip_model.safetensors", "model.safetensors") if layout == "openclip"]
    for name in others:
        if name not in wanted:
            (there / name).write_bytes(b"gigabytes")
    serve_from(monkeypatch, there, tmp_path)
    open_checkpoint("somebody/something")
    fetched = {path.name for path in (tmp_path / ("a" * 40)).iterdir()}
    assert {name for name in fetched if not name.endswith((".json", ".model", ".md"))} == wanted


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_headers_never_crash(tiny: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray((tiny / "model.safetensors").read_bytes())
    head = struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, data.draw(st.sampled_from([8, 300, head]))))
        patch = data.draw(st.binary(min_size=1, max_size=6))
        content[at : at + len(patch)] = patch
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
        for name in file.entries:
            file.read(name)
    except CheckpointError as error:
        assert "mutated.safetensors" in str(error)


def test_our_reading_of_the_bundled_checkpoint_agrees_with_the_library() -> None:
    theirs = load_file(checkpoints.EMOJI / "model.safetensors")
    checkpoint = open_checkpoint(str(checkpoints.EMOJI))
    assert sum(v.size for v in theirs.values()) == sum(t.size for t in checkpoint.architecture.tensors()) + 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere such a name cannot be made")
def test_a_folder_whose_name_no_file_could_bear_is_refused(tiny: Path, tmp_path: Path) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/b\xff")
    shutil.copytree(tiny, strange)
    with pytest.raises(CheckpointError, match="cannot be part of a file's name"):
        open_checkpoint(strange)
