"""Calibration: the fit against brute force, what its figures say, and what it does on drawings the model never saw."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.emoji_accuracy import drawings
from sigrun import Embeddings, LabelSet, PictureError, Scoring, Siglip, SpaceError, TextError
from sigrun.calibrate import SHIFT_SPREAD, SLOPE_SPREAD, Calibration, calibrate
from sigrun.scores import logits, probability

START = Scoring(math.log(10.0), -5.0)


def made(
    pictures: int, labels: int, *, slope: float = 1.0, shift: float = 0.0, seed: int = 0
) -> tuple[LabelSet, Embeddings, list[list[str]]]:
    """A set, pictures, and truths drawn from ``slope · logit + shift`` of the constants START."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((pictures + labels, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    images, texts = vectors[:pictures], vectors[pictures:]
    drawn = rng.random((pictures, labels)) < probability(slope * logits(images, texts, START) + shift)
    names = tuple(f"label {n}" for n in range(labels))
    truths = [[names[column] for column in np.flatnonzero(row)] for row in drawn]
    return LabelSet(names, Embeddings(texts, "s")), Embeddings(images, "s"), truths


def change(found: Calibration) -> tuple[float, float]:
    """Slope and shift of a calibration."""
    slope = math.exp(found.scoring.logit_scale - found.scoring_before.logit_scale)
    return slope, found.scoring.logit_bias - slope * found.scoring_before.logit_bias


def log_posterior(
    labels: LabelSet, images: Embeddings, truths: list[list[str]], slope: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    """For every slope and shift: the likelihood by its definition, and the priors."""
    x = logits(images.vectors, labels.embeddings.vectors, START).astype(np.float64)
    y = np.array([[label in truth for label in labels.labels] for truth in truths])
    p = 1 / (1 + np.exp(-(slope[..., None, None] * x + shift[..., None, None])))
    likelihood = np.log(np.where(y, p, 1 - p)).sum((-1, -2))
    return np.asarray(likelihood - ((slope - 1) / SLOPE_SPREAD) ** 2 / 2 - (shift / SHIFT_SPREAD) ** 2 / 2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [True, False])
def test_the_fit_is_the_best_of_a_fine_grid(seed: int, scale: bool) -> None:
    labels, images, truths = made(12, 5, slope=0.7, shift=1.0, seed=seed)
    found = change(calibrate(labels, images, truths, START, scale=scale))
    slopes = np.arange(0.2, 2.0, 0.004) if scale else np.array([1.0])
    slope, shift = np.meshgrid(slopes, np.arange(-4, 4, 0.01), indexing="ij")
    values = log_posterior(labels, images, truths, slope, shift)
    best = np.unravel_index(values.argmax(), values.shape)
    assert found[0] == pytest.approx(slope[best], abs=0.004 if scale else 1e-9)
    assert found[1] == pytest.approx(shift[best], abs=0.02)
    here = log_posterior(labels, images, truths, np.array(found[0]), np.array(found[1]))
    assert here >= values.max() - 1e-9


def test_many_examples_find_the_truth_whatever_the_prior() -> None:
    labels, images, truths = made(3000, 8, slope=0.6, shift=2.0)
    slope, shift = change(calibrate(labels, images, truths, START))
    assert (slope, shift) == (pytest.approx(0.6, abs=0.03), pytest.approx(2.0, abs=0.1))


def test_two_examples_move_little() -> None:
    labels, images, _ = made(2, 3)
    for truths in ([list(labels.labels)] * 2, [()] * 2):  # everything is true, nothing is
        found = calibrate(labels, images, truths, START)
        slope, shift = change(found)
        assert abs(shift) < 2 * SHIFT_SPREAD
        assert 0.1 < slope < 2.5


def test_a_fit_that_would_turn_the_order_round_leaves_the_scale_alone() -> None:
    labels, images, truths = made(300, 8, slope=-1.0, shift=-4.0)
    slope, _ = change(calibrate(labels, images, truths, START))
    assert slope == pytest.approx(1.0, abs=1e-7)


def test_it_is_the_same_every_time_and_the_order_of_labels_stays() -> None:
    labels, images, truths = made(40, 6, slope=0.8, shift=1.0)
    one, other = (calibrate(labels, images, truths, START) for _ in range(2))
    assert (one.scoring, one.before, one.after, one.gain) == (
        other.scoring,
        other.before,
        other.after,
        other.gain,
    )
    assert one.labels.labels == labels.labels
    assert one.labels.embeddings is labels.embeddings
    assert one.labels.scoring == one.scoring
    assert labels.scoring is None


def test_figures_by_hand() -> None:
    """Two pictures, one label, cosines 1 and 0: logits 5 and −5, both right."""
    eye = np.eye(2, dtype=np.float32)
    labels, images = LabelSet(("x",), Embeddings(eye[:1], "s")), Embeddings(eye, "s")
    found = calibrate(labels, images, ["x", ()], START)
    assert found.before.log_loss == pytest.approx(math.log1p(math.exp(-5)), rel=1e-6)
    assert found.before.error == pytest.approx((1 / (1 + math.exp(5))) ** 2, rel=1e-5)
    assert found.gain == pytest.approx(found.before.log_loss - found.after.log_loss, abs=1e-12)
    assert found.pictures == 2


def test_it_says_whether_it_helps_on_pictures_it_did_not_see() -> None:
    far = calibrate(*made(100, 8, shift=2.0), START)
    assert far.better
    assert far.after.log_loss < far.before.log_loss
    assert far.after.error < far.before.error
    right = calibrate(*made(100, 8), START)
    assert not right.better
    assert right.after.log_loss == pytest.approx(right.before.log_loss, rel=0.05)


def test_few_pictures_cannot_show_that_they_help() -> None:
    labels, images, truths = made(9, 8, shift=3.0, seed=1)
    found = calibrate(labels, images, truths, START)
    assert found.gain > 2 * found.gain_error
    assert not found.better


def test_the_figures_after_are_of_pictures_left_out() -> None:
    """A fit to a fold that sees its own truths would look better than one that does not."""
    labels, images, truths = made(5, 4, seed=3)
    found = calibrate(labels, images, truths, START)
    slope, shift = change(found)
    x = slope * logits(images.vectors, labels.embeddings.vectors, START) + shift
    y = np.array([[label in truth for label in labels.labels] for truth in truths])
    seen = -np.log(np.where(y, probability(x), probability(-x))).sum(1).mean()
    assert found.after.log_loss > seen


def test_bad_pictures_are_left_out_and_told() -> None:
    labels, images, truths = made(20, 5, shift=1.0)
    vectors = np.insert(images.vectors, 3, np.nan, axis=0)
    error = PictureError("bad.png: no picture")
    found = calibrate(
        labels, Embeddings(vectors, "s", {3: error}), [*truths[:3], "label 0", *truths[3:]], START
    )
    assert found.errors == {3: error}
    assert found.pictures == 20
    assert found.scoring == calibrate(labels, images, truths, START).scoring


def test_what_cannot_be_calibrated_with() -> None:
    labels, images, truths = made(3, 2)
    with pytest.raises(TextError, match=r"truth 1 \('cat'\) is not among the labels"):
        calibrate(labels, images, ["label 0", "cat", "label 1"], START)
    with pytest.raises(TextError, match="3 pictures and 2 truths"):
        calibrate(labels, images, truths[:2], START)
    with pytest.raises(TextError, match="one text"):
        calibrate(labels, images, "label 0", START)
    with pytest.raises(SpaceError):
        calibrate(labels, Embeddings(images.vectors, "t"), truths, START)
    bad = Embeddings(np.full_like(images.vectors, np.nan), "s", dict.fromkeys(range(3), PictureError("x")))
    with pytest.raises(PictureError, match="of 3 pictures to calibrate with, 0 can be read"):
        calibrate(labels, bad, truths, START)


def test_twins_among_the_labels_are_both_true() -> None:
    eye = np.eye(2, dtype=np.float32)
    labels = LabelSet(("x", "x"), Embeddings(eye, "s"))
    found = calibrate(labels, Embeddings(eye, "s"), ["x", "x"], START)
    assert found.before.log_loss == pytest.approx(
        math.log1p(math.exp(-5)) + math.log1p(math.exp(5)), rel=1e-6
    )


def test_on_drawings_that_the_model_never_saw(emoji_q4: Path, tmp_path: Path) -> None:
    """One example in seven, judged on the others; the set keeps its constants in its file."""
    pictures, names = (listed[::5] for listed in drawings())
    examples, others = range(0, len(names), 7), [n for n in range(len(names)) if n % 7]
    with Siglip.load(emoji_q4, compute="exact", threads=1) as model:
        labels = model.label_set(names)
        shown = [pictures[n] for n in examples]
        found = model.calibrate(labels, [*shown, b"no picture"], [*(names[n] for n in examples), names[0]])
        assert (found.pictures, list(found.errors)) == (len(shown), [len(shown)]) == (47, [47])
        assert found.gain > 0
        images = model.embed_images([pictures[n] for n in others])
        right = [names[n] for n in others]
        before, after = (_log_loss(model.score(images, chosen), right) for chosen in (labels, found.labels))
        assert after < 0.9 * before  # seen: 1.90 nats a picture before, 1.64 after
        assert found.after.log_loss == pytest.approx(after, rel=0.2)  # what the folds promise comes true
        orders = [
            [[s.label for s in scores] for scores in model.score(images, chosen)]
            for chosen in (labels, found.labels)
        ]
        assert [o[0] for o in orders[0]] == [o[0] for o in orders[1]]
        found.labels.save(tmp_path / "set")
        assert model.score(images, LabelSet.load(tmp_path / "set")) == model.score(images, found.labels)


def _log_loss(scores: list[list[object]], names: list[str]) -> float:
    total = 0.0
    for listed, name in zip(scores, names, strict=True):
        for score in listed:
            x = score.logit if score.label == name else -score.logit  # type: ignore[attr-defined]
            total += float(np.logaddexp(0, -x))
    return total / len(names)
