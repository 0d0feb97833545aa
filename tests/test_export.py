"""Exports: the right bytes, the same bytes, and nothing left behind when something goes wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import gguf
import jsonschema
import numpy as np
import pytest

import sigrun_exporters.export as export_module
from sigrun import CheckpointError, OutputError, RecipeError
from sigrun.artifact import Artifact
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import Names, Settings, export
from sigrun_recipes import load
from tests.conftest import UNVERIFIED, roomy


def contents(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_the_same_input_gives_the_same_bytes(tiny: Path, tiny_q4: Path, tmp_path: Path) -> None:
    again = export(open_checkpoint(str(tiny)), roomy("q4_k_m"), tmp_path, UNVERIFIED).path
    assert again.read_bytes() == tiny_q4.read_bytes()


def test_gguf_decodes_every_tensor_to_our_numbers(tiny_q4: Path) -> None:
    """The gguf package, undoing fold and shape by the manifest, gets exactly what the runtime computes with."""
    theirs = {t.name: t for t in gguf.GGUFReader(tiny_q4).tensors}
    with Artifact.open(tiny_q4) as artifact:
        for name, tensor in artifact.manifest.tensors.items():
            values = gguf.dequantize(theirs[name].data, theirs[name].tensor_type).reshape(tensor.shape)
            assert np.array_equal(artifact.dense(name), values), name


def test_stored_numbers_are_near_the_checkpoints(tiny: Path, tiny_q4: Path) -> None:
    """Relative error by encoding on normal weights.

    Padded rows of fc1 and its bias are exact zeros, so what meets fc2's padded columns is gelu(0) = 0.
    """
    most = {"q4_k": 0.075, "q6_k": 0.019, "q8_0": 0.006, "f16": 3e-4, "f32": 0.0}
    checkpoint = open_checkpoint(str(tiny))
    with Artifact.open(tiny_q4) as artifact:
        for name, tensor in artifact.manifest.tensors.items():
            exact, ours = checkpoint.read(name), artifact.dense(name)
            inside = ours[tuple(slice(n) for n in exact.shape)]
            error = np.linalg.norm(inside - exact) / np.linalg.norm(exact)
            assert error <= most[tensor.encoding], (name, tensor.encoding, error)
            if len(ours) != len(exact):
                assert not ours[len(exact) :].any(), f"{name}: padded rows are not zero"


def test_packed_matrices_hold_the_stored_numbers(tiny_q4: Path) -> None:
    with Artifact.open(tiny_q4) as artifact:
        for name, packing in artifact.manifest.graphs["image"]["exact"].weights.items():
            if packing == "dense":
                continue
            packed, dense = artifact.nbits(name), artifact.dense(name)
            q = packed.q if packed.bits == 8 else np.stack([packed.q & 15, packed.q >> 4], -1)
            q = q.reshape(*packed.scales.shape, packed.block_size).astype(np.float32)
            zeros = np.float32(128) if packed.zeros is None else packed.zeros[..., None]
            ours = ((q - zeros) * packed.scales[..., None]).reshape(dense.shape)
            np.testing.assert_allclose(ours, dense, rtol=0, atol=2e-6 * np.abs(dense).max())


def test_token_rows_are_rows_of_the_table(tiny_q4: Path) -> None:
    with Artifact.open(tiny_q4) as artifact:
        ids = np.array([0, 1, 5, 1999, 1, 1000], np.int64)
        assert np.array_equal(artifact.token_rows(ids), artifact.dense("t.token_embd.weight")[ids])


def test_metadata_says_what_other_readers_look_for(tiny_q4: Path) -> None:
    fields = gguf.GGUFReader(tiny_q4).fields
    expected = {
        "general.architecture": "siglip",
        "siglip.vision.image_size": 33,
        "siglip.vision.embedding_length": 96,
        "siglip.vision.feed_forward_length": 256,  # as stored: 240 padded
        "siglip.text.context_length": 64,
        "siglip.logit_scale": 2.5,
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.padding_token_id": 1,
    }
    assert {key: fields[key].contents() for key in expected} == expected


def test_the_manifest_obeys_its_schema(tiny_q4: Path, emoji_f32: Path) -> None:
    schema = json.loads(resources.files("sigrun").joinpath("manifest.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in (tiny_q4, emoji_f32):
        with Artifact.open(path) as artifact:
            data = json.loads(artifact.manifest.to_json())
        validator.validate(data)
        for key in data:
            assert not validator.is_valid({k: v for k, v in data.items() if k != key}), key


def test_the_manifest_names_its_source(tiny: Path, tiny_q4: Path) -> None:
    with Artifact.open(tiny_q4) as artifact:
        manifest = artifact.manifest
    digest = hashlib.sha256((tiny / "model.safetensors").read_bytes()).hexdigest()
    assert manifest.source.files["model.safetensors"] == digest
    assert manifest.tensors["v.blk.0.ffn_down.weight"].source_shape == (96, 240)
    assert manifest.tensors["v.blk.0.ffn_down.weight"].shape == (96, 256)
    assert manifest.tensors["v.blk.0.attn_q.weight"].fold == 8
    assert manifest.substitutions() == {}


def test_variants_share_a_space_and_other_weights_do_not(tiny: Path, tiny_q4: Path, tmp_path: Path) -> None:
    from tests import checkpoints

    f32 = export(open_checkpoint(str(tiny)), load("f32"), tmp_path, UNVERIFIED).path
    other = checkpoints.write(tmp_path / "other" / "tiny", seed=1)
    other_q4 = export(open_checkpoint(str(other)), roomy("q4_k_m"), tmp_path / "b", UNVERIFIED).path
    spaces, hashes = [], []
    for path in (tiny_q4, f32, other_q4):
        with Artifact.open(path) as artifact:
            spaces.append(artifact.manifest.space)
            hashes.append(artifact.manifest.weights_sha256)
    assert spaces[0] == spaces[1] != spaces[2]
    assert len(set(hashes)) == 3


def test_an_existing_file_is_kept_unless_forced(tiny: Path, tmp_path: Path) -> None:
    path = Names.of(tmp_path, "tiny", "f32").file(".gguf")
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists already") as caught:
        export(open_checkpoint(str(tiny)), load("f32"), tmp_path, UNVERIFIED)
    assert "--force" in str(caught.value)
    assert path.read_text() == "precious"
    export(open_checkpoint(str(tiny)), load("f32"), tmp_path, Settings(verify=False, force=True))
    assert path.stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("fault", "raised", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "disk is full"),
        (OSError(errno.EIO, "Input/output error"), OutputError, "Input/output error"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_failed_write_leaves_nothing(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: BaseException,
    raised: type[BaseException],
    says: str | None,
) -> None:
    written: list[Path] = []

    def failing(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        written.append(path)
        raise fault

    monkeypatch.setattr(export_module, "write_gguf", failing)
    with pytest.raises(raised, match=says):
        export(open_checkpoint(str(tiny)), load("f32"), tmp_path, UNVERIFIED)
    assert written
    assert contents(tmp_path) == []


def test_a_full_disk_is_seen_before_work_begins(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(OutputError, match="the disk has 1 MiB free"):
        export(open_checkpoint(str(tiny)), load("f32"), tmp_path, UNVERIFIED)
    assert contents(tmp_path) == []


def test_an_output_folder_that_cannot_be(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        export(open_checkpoint(str(tiny)), load("f32"), tmp_path / "file", UNVERIFIED)


def test_a_tensor_that_does_not_fit_f16_is_named(tiny: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(tiny))
    read = checkpoint.read

    def huge(name: str) -> Any:
        return read(name) * np.float32(1e6) if name == "v.patch_embd.weight" else read(name)

    object.__setattr__(checkpoint, "read", huge)
    with pytest.raises(CheckpointError, match=r"'v\.patch_embd\.weight' cannot be stored as f16"):
        export(checkpoint, roomy("q4_k_m"), tmp_path, UNVERIFIED)
    assert contents(tmp_path) == []


def test_a_recipe_beyond_its_limit_writes_nothing(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"more than the 6\.25 of its limit"):
        export(open_checkpoint(str(tiny)), load("q4_k_m"), tmp_path, UNVERIFIED)
    assert contents(tmp_path) == []


def test_towers_that_compute_differently_are_of_different_spaces(tiny: Path, tmp_path: Path) -> None:
    """The number of heads shows in no tensor's shape, and yet it changes every vector."""
    import shutil

    folder = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["vision_config"]["num_attention_heads"] = 4
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    spaces = []
    for source in (tiny, folder):
        settings = Settings(verify=False, force=True)
        path = export(open_checkpoint(str(source)), load("f32"), tmp_path / "models", settings).path
        with Artifact.open(path) as artifact:
            spaces.append(artifact.manifest.space)
    assert spaces[0] != spaces[1]


def test_two_writers_of_one_path_do_not_mix(tmp_path: Path) -> None:
    from sigrun.output import finished

    path = tmp_path / "x.gguf"
    with (
        pytest.raises(OutputError, match="exists already"),
        finished(path, force=False) as slow,
    ):
        slow.write_bytes(b"A" * 10)
        with finished(path, force=False) as fast:
            fast.write_bytes(b"B" * 20)
            slow.write_bytes(b"A" * 30)
    assert path.read_bytes() == b"B" * 20
    assert contents(tmp_path) == ["x.gguf"]


def test_a_disk_that_fills_up_while_quantizing_is_said(tiny: Path, tmp_path: Path) -> None:
    """A real limit on file size, in a process of its own: the waiting weights hit it first."""
    resource = pytest.importorskip("resource")
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "from sigrun_exporters.cli import main\n"
        "sys.exit(main(['convert', sys.argv[1], '--variant', 'f32', '-o', sys.argv[2]]))"
    )
    assert resource is not None
    done = subprocess.run(
        [sys.executable, "-c", code, tiny, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(tmp_path) == []
