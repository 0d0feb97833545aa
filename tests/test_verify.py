"""Verification: figures that can be checked by eye, and gates that let no broken artifact pass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sigrun.artifact import Artifact
from sigrun.errors import VerificationError
from sigrun.scores import Scoring
from sigrun.verification import Agreement, golden_picture
from sigrun_exporters.checkpoint import Checkpoint, open_checkpoint
from sigrun_exporters.cli import main
from sigrun_exporters.verify.gate import Measured, judge
from sigrun_exporters.verify.inputs import Inputs, inputs
from sigrun_exporters.verify.measure import TIE, cosines, scores, spearman
from sigrun_exporters.verify.pictures import drawings
from sigrun_exporters.verify.verify import agreements
from sigrun_recipes import load
from tests.checkpoints import EMOJI

UP = "v.blk.1.ffn_up.weight"
OUT = "t.blk.0.attn_out.weight"
Bytes = NDArray[np.uint8]
PLAIN = Scoring(0.0, 0.0)  # a logit is the cosine


def rows(*values: list[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_cosines_by_hand() -> None:
    found = cosines(rows([1, 0], [0, 1]), rows([1, 0], [0.8, 0.6]))
    assert (found.mean, found.worst) == pytest.approx((0.8, 0.6), abs=1e-7)


def test_spearman_by_hand() -> None:
    assert spearman(rows([1, 2, 3])[0], rows([10, 20, 30])[0]) == pytest.approx(1)
    assert spearman(rows([1, 2, 3])[0], rows([3, 2, 1])[0]) == pytest.approx(-1)
    # Ranks 1 2 3 4 and 2 1 4 3: 1 - 6 * 4 / (4 * 15)
    assert spearman(rows([1, 2, 3, 4])[0], rows([2, 1, 4, 3])[0]) == pytest.approx(0.6)
    # Ranks 1.5 1.5 3 and 1 2 3: covariance 1.5, variances 1.5 and 2
    assert spearman(rows([5, 5, 9])[0], rows([1, 2, 3])[0]) == pytest.approx(1.5 / np.sqrt(3))


@given(
    hnp.arrays(np.float32, 7, elements=st.integers(-3, 3)),
    hnp.arrays(np.float32, 7, elements=st.integers(-3, 3)),
)
def test_spearman_is_symmetric_bounded_and_blind_to_scale(
    a: NDArray[np.float32], b: NDArray[np.float32]
) -> None:
    found = spearman(a, b)
    assert -1 - 1e-12 <= found <= 1 + 1e-12
    assert spearman(b, a) == pytest.approx(found)
    assert spearman(a * 4 + 1, b) == pytest.approx(found)
    assert spearman(a, a) == pytest.approx(1)


def test_scores_by_hand() -> None:
    pictures, texts = rows([1, 0], [0, 1]), rows([1, 0], [0, 1])
    found = scores((pictures, texts), (rows([1, 0], [1, 0]), texts), PLAIN, PLAIN)
    # The second picture's logits are 1 0 in place of 0 1.
    step = 1 / (1 + np.exp(-1)) - 0.5
    assert found.logit_error == pytest.approx(0.5)
    assert found.probability_error == pytest.approx(step / 2, abs=1e-8)
    assert found.probability_error_worst == pytest.approx(step, abs=1e-8)
    assert (found.top1, found.rank) == (0.5, 0)


@pytest.mark.parametrize(("lead", "agreed"), [(0.9 * TIE, 1.0), (1.1 * TIE, 0.0)])
def test_best_texts_that_nearly_tie_are_all_best(lead: float, agreed: float) -> None:
    texts = rows([1, 0], [0, 1])
    found = scores((rows([0.5 + lead, 0.5]), texts), (rows([0.5, 0.6]), texts), PLAIN, PLAIN)
    assert found.top1 == agreed


def test_the_golden_picture_is_its_formula() -> None:
    picture = golden_picture(384)
    assert (picture.shape, picture.dtype) == ((384, 384, 3), np.uint8)
    x, y = 301, 77
    assert picture[y, x].tolist() == [(13 * x + 7 * y) % 256, (3 * x + 17 * y) % 256, (19 * x + 5 * y) % 256]


def test_the_built_in_pictures_are_the_same_each_time_and_no_two_alike() -> None:
    scenes, again = drawings(), drawings()
    pixels = [np.asarray(scene.picture).tobytes() for scene in scenes]
    assert pixels == [np.asarray(scene.picture).tobytes() for scene in again]
    assert len(set(pixels)) == len({scene.caption for scene in scenes}) == len(scenes) >= 12
    assert {scene.picture.mode for scene in scenes} == {"RGB"}
    shapes = [scene.picture.width / scene.picture.height for scene in scenes]
    assert min(shapes) < 1 < max(shapes)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint(str(EMOJI))


@pytest.fixture(scope="module")
def seen(checkpoint: Checkpoint) -> Inputs:
    return inputs(checkpoint, None, lambda text: None)


def verified(path: Path, checkpoint: Checkpoint, seen: Inputs) -> Agreement:
    return agreements(path, checkpoint, load("q4_k_m").gate, seen, ("exact",))["exact"]


def test_an_honest_artifact_passes_with_room(emoji_q4: Path, checkpoint: Checkpoint, seen: Inputs) -> None:
    gate = load("q4_k_m").gate
    found = verified(emoji_q4, checkpoint, seen)
    assert found.passed
    assert found.scores is not None
    assert found.scores.probability_error < gate.score_error / 2
    assert found.scores.top1 > gate.top1


def test_float32_is_the_reference(emoji_f32: Path, checkpoint: Checkpoint, seen: Inputs) -> None:
    found = agreements(emoji_f32, checkpoint, load("f32").gate, seen, ("exact",))["exact"]
    assert found.passed
    assert min(c.worst for c in found.cosines.values()) > 1 - 1e-6


def nibbles_swapped(data: Bytes) -> Bytes:
    """Q4_K with the two weights of each byte in the other order: 16 bytes of scales, 128 of weights."""
    blocks = data.reshape(-1, 144).copy()
    weights = blocks[:, 16:].copy()
    blocks[:, 16:] = weights >> 4 | weights << 4
    return blocks.reshape(data.shape)


def scales_larger(data: Bytes) -> Bytes:
    """Q4_K with each super-block's scale, its first two bytes, half as large again."""
    blocks = data.reshape(-1, 144).copy()
    scales = blocks[:, :2].copy().view(np.float16) * np.float16(1.5)
    blocks[:, :2] = scales.view(np.uint8)
    return blocks.reshape(data.shape)


def rows_moved(data: Bytes) -> Bytes:
    """The upper half of the rows below: the heads of an attention permuted in one of its matrices."""
    return np.roll(data.reshape(-1), data.size // 2).reshape(data.shape)


def nothing(data: Bytes) -> Bytes:
    return np.zeros_like(data)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        (UP, nibbles_swapped),
        (OUT, nibbles_swapped),
        (OUT, scales_larger),
        (UP, nothing),
        ("t.blk.0.attn_q.weight", rows_moved),
        ("v.blk.0.attn_v.weight", rows_moved),
        ("v.position_embd.weight", rows_moved),
    ],
)
def test_one_spoiled_tensor_fails_the_gate(
    emoji_q4: Path,
    checkpoint: Checkpoint,
    seen: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    spoil: Callable[[Bytes], Bytes],
) -> None:
    stored = Artifact.data

    def spoiled(artifact: Artifact, asked: str) -> Bytes:
        data = stored(artifact, asked)
        return spoil(np.array(data)) if asked == name else data

    with Artifact.open(emoji_q4) as artifact:
        kind = artifact.tensors[name].encoding
    assert spoil not in (nibbles_swapped, scales_larger) or kind == "q4_k"
    monkeypatch.setattr(Artifact, "data", spoiled)
    assert verified(emoji_q4, checkpoint, seen).problems


def test_tensors_in_each_others_place_fail_the_gate(
    emoji_q4: Path, checkpoint: Checkpoint, seen: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = Artifact.data
    other = {
        "t.blk.0.ffn_up.weight": "t.blk.1.ffn_up.weight",
        "t.blk.1.ffn_up.weight": "t.blk.0.ffn_up.weight",
    }
    with Artifact.open(emoji_q4) as artifact:
        first, second = (artifact.tensors[name] for name in other)
    assert (first.encoding, first.shape) == (second.encoding, second.shape)
    monkeypatch.setattr(Artifact, "data", lambda self, name: stored(self, other.get(name, name)))
    assert verified(emoji_q4, checkpoint, seen).problems


@pytest.mark.parametrize("what", ["pictures", "texts", "scores"])
def test_other_preparation_is_refused(
    emoji_q4: Path, checkpoint: Checkpoint, seen: Inputs, what: str
) -> None:
    """No embedding of inputs prepared by the checkpoint would show that the artifact prepares its own otherwise."""
    assert checkpoint.scoring is not None and checkpoint.tokenizer is not None
    changed: dict[str, Any] = {
        "pictures": {"preprocessing": dataclasses.replace(checkpoint.preprocessing, resample="nearest")},
        "texts": {"tokenizer": dataclasses.replace(checkpoint.tokenizer, canonicalisation="none")},
        "scores": {"scoring": dataclasses.replace(checkpoint.scoring, logit_bias=0.0)},
    }
    other = dataclasses.replace(checkpoint, **changed[what])
    with pytest.raises(VerificationError, match=f"{what} are .* otherwise than by"):
        agreements(emoji_q4, other, load("q4_k_m").gate, seen, ("exact",))


def test_other_scores_fail_a_close_variants_gate() -> None:
    """Of f32 scores must be exact: cosines alone would not see a wrong bias."""
    right, wrong = Scoring(2.3, -9.0), Scoring(2.3, -8.0)
    towers = {
        name: Measured(vectors, {"exact": (list(range(len(vectors))), vectors)})
        for name, vectors in (("image", unit(14)), ("text", unit(24)))
    }
    gate = load("f32").gate
    assert judge("exact", towers, right, gate).passed
    found = judge("exact", towers, right, gate, wrong)
    assert found.cosines["image"].worst > 1 - 1e-6
    assert any("probability error" in problem for problem in found.problems)


def unit(count: int) -> Any:
    """Seeded unit vectors near each other, float32 [count, 16]: scores in the middle."""
    vectors = 1 + 0.3 * np.random.default_rng(count).standard_normal((count, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_verify_says_that_it_passed(emoji_q4: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(emoji_q4), "--reference", str(EMOJI), "--compute", "exact", "--json"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["problems"] == []
    assert record["forms"]["exact"]["passed"] is True
    assert record["forms"]["exact"]["cosines"]["image"]["worst"] > 0.97


def test_verify_refuses_another_checkpoint(
    emoji_q4: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(emoji_q4), "--reference", str(tiny)]) == 1
    said = capsys.readouterr().err
    assert "another checkpoint" in said
    assert "hint" in said


@pytest.mark.parametrize("missing", ["artifact", "reference", "calibration", "captions"])
def test_verify_names_what_is_missing(
    emoji_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    gone = str(tmp_path / "gone")
    artifact = gone if missing == "artifact" else str(emoji_q4)
    reference = gone if missing == "reference" else str(EMOJI)
    own = [f"--{missing}", gone] if missing in ("calibration", "captions") else []
    assert main(["verify", artifact, "--reference", reference, *own]) == 1
    said = capsys.readouterr().err
    assert "gone" in said
    assert "Traceback" not in said


def test_verify_knows_its_usage(emoji_q4: Path) -> None:
    for wrong in (
        ["verify", str(emoji_q4)],
        ["verify", str(emoji_q4), "--reference", "x", "--against", "nobody"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
