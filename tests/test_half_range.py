"""What does not fit float16: told from the float32 reference, as the CPU's arithmetic hides it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from sigrun.artifact import Artifact
from sigrun.sessions import TowerSession
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_exporters.graph import build
from sigrun_exporters.half_range import LARGEST, HalfRange
from sigrun_exporters.reference import Reference
from sigrun_recipes import plan
from tests import checkpoints
from tests.conftest import UNVERIFIED, roomy
from tests.half_numerics import computed

GROWN = 2.0**17


def test_peaks_bound_activations_and_results(tiny_q4: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["v.blk.0.attn_q.weight", "v.blk.1.ffn_down.weight"]
    small = rng.standard_normal((9, 96)).astype(np.float32)
    large = rng.standard_normal((9, 240)).astype(np.float32) * 1e4
    with Artifact.open(tiny_q4) as artifact:
        ranges = HalfRange(artifact, names)
        for x in (small, small / 2):
            ranges.observe(names[0], x)
        ranges.observe(names[1], large)
        ranges.observe("v.head.attn_q.weight", large)
        ranges.observe(names[1], large[:0])
        results = [np.abs(small @ artifact.dense(names[0]).T).max()]
        results.append(np.abs(large @ artifact.dense(names[1])[:, :240].T).max())
    peaks = ranges.peaks()
    assert list(peaks) == names
    assert results[0] <= peaks[names[0]] < LARGEST / 100
    assert peaks[names[1]] == max(results[1], np.abs(large).max())
    assert ranges.beyond() == {names[1]}


def test_a_weight_too_large_counts_whatever_it_multiplies(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "huge")
    weights = load_file(folder / "model.safetensors")
    weights["vision_model.encoder.layers.0.self_attn.q_proj.weight"][3, 5] = 1e5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with Artifact.open(
        export(open_checkpoint(str(folder)), roomy("f32"), tmp_path, UNVERIFIED).path
    ) as artifact:
        ranges = HalfRange(artifact, ["v.blk.0.attn_q.weight", "v.blk.0.attn_k.weight"])
        for name in ("v.blk.0.attn_q.weight", "v.blk.0.attn_k.weight"):
            ranges.observe(name, np.zeros((2, 96), np.float32))
    assert ranges.beyond() == {"v.blk.0.attn_q.weight"}


def test_an_mlp_that_overflows_is_found_and_leaving_it_exact_mends_the_form(tmp_path: Path) -> None:
    """Hidden units beyond 65504, which the next matrix makes small again: the checkpoint itself is sound."""
    folder = checkpoints.write(tmp_path / "overflowing")
    weights = load_file(folder / "model.safetensors")
    layer = "vision_model.encoder.layers.1"
    weights[f"{layer}.mlp.fc1.weight"][7] *= GROWN
    weights[f"{layer}.mlp.fc2.weight"][:, 7] /= GROWN
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(str(folder))
    recipe = roomy("f32")
    planned = plan(recipe, checkpoint.architecture)
    pixels = np.random.default_rng(1).uniform(-1, 1, (3, 3, 33, 33)).astype(np.float32)
    with Artifact.open(export(checkpoint, recipe, tmp_path, UNVERIFIED).path) as artifact:
        ranges = HalfRange(artifact, planned.rounded("image", "f16"))
        Reference(checkpoint).images(pixels, observe=ranges.observe)
        exact = ranges.beyond()
        assert exact == {"v.blk.1.ffn_up.weight", "v.blk.1.ffn_down.weight"}
        expected = TowerSession(artifact, "image", "exact", 2).embed(pixels)
        broken = computed(build(planned, "image", "f16"), artifact, pixels)["image_embeds"]
        assert not np.isfinite(broken).all()
        mended = computed(build(planned, "image", "f16", exact=exact), artifact, pixels)["image_embeds"]
    np.testing.assert_allclose(mended, expected, atol=2e-3)
