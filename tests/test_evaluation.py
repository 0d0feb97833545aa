"""Counts that can be checked by eye, and the benchmarks' own way of counting on a trained model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks import emoji_accuracy
from sigrun import Siglip
from sigrun.embeddings import EmbeddedPicture, Embeddings
from sigrun.errors import ArtifactError, PictureError, SpaceError, TextError
from sigrun.evaluation import Dataset, compare, evaluate
from sigrun.labels import LabelSet
from sigrun.scores import Scoring
from sigrun.statistics import paired
from sigrun_exporters.export import Exported
from tests.judge import CLASSES, OTHER, OTHER_SPACE, SCORING, SIX, SPACE, TRUTHS, VECTORS, Judge, judged


def test_counts_that_can_be_checked_by_eye() -> None:
    found = judged(Judge(VECTORS), SIX)
    assert found.answers.tolist() == [0, 0, 1, 1, 2, 0]
    assert found.rivals.tolist() == [0, 0, 1, 0, 1, 1]
    assert (found.top1.count, found.top1.total, found.top5) == (3, 6, None)
    assert [(c.name, c.right.count, c.right.total) for c in found.classes if c.right] == [
        ("cat", 2, 3),
        ("dog", 1, 2),
        ("cow", 0, 1),
    ]
    assert found.mean_per_class == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found.matrix().tolist() == [[2, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert [(c.truth, c.answer, c.times.count, c.times.total) for c in found.confusions()] == [
        ("cow", "cat", 1, 1),
        ("dog", "cow", 1, 2),
        ("cat", "dog", 1, 3),
    ]
    assert len(found.confusions(2)) == 2


def test_a_tie_is_no_right_answer_whichever_comes_first() -> None:
    both = [[0.6, 0.6]]
    for truth in (0, 1):
        found = judged(Judge(both), Dataset(("cat", "dog"), ("0",), (truth,)))
        assert (found.top1.count, found.answers.tolist()) == (0, [1 - truth])


def test_top_5_is_told_of_more_than_five_classes() -> None:
    order = [[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]]  # the place of class i is i
    classes = tuple("abcdef")
    for truth in range(6):
        found = judged(Judge(order), Dataset(classes, ("0",), (truth,)))
        assert found.top5 is not None
        assert (found.top1.count, found.top5.count) == (int(truth == 0), int(truth < 5))
    assert judged(Judge([[0.9, 0.8, 0.7, 0.6, 0.5]]), Dataset(classes[:5], ("0",), (4,))).top5 is None


def test_bad_pictures_are_listed_and_the_rest_is_judged() -> None:
    pictures = ("bad one", "0", "1", "bad two", "2", "3", "4", "5")
    dataset = Dataset(CLASSES, pictures, (2, 0, 0, 2, 0, 1, 1, 2))
    steps: list[int] = []
    found = judged(Judge(VECTORS), dataset, on_progress=steps.append)
    assert found.answers.tolist() == [-1, 0, 0, -1, 1, 1, 2, 0]
    assert (found.top1.count, found.top1.total) == (3, 6)
    assert found.read.tolist() == [False, True, True, False, True, True, True, True]
    assert sum(steps) == len(pictures)
    record = found.to_json()
    assert [bad["picture"] for bad in record["unreadable"]] == ["bad one", "bad two"]
    assert record["unreadable"][0] == {
        "picture": "bad one",
        "error": "bad one is empty",
        "hint": "send it again",
    }
    assert record["judged"] == 6
    with pytest.raises(PictureError, match="none of the 2 pictures can be read; the first: bad is empty"):
        judged(Judge(VECTORS), Dataset(CLASSES, ("bad", "bad"), (0, 1)))


def test_a_class_whose_pictures_are_all_bad_or_missing_counts_for_no_mean() -> None:
    dataset = Dataset(("cat", "dog", "cow"), ("0", "3", "bad"), (0, 1, 2))
    found = judged(Judge(VECTORS), dataset)
    assert [c.right is None for c in found.classes] == [False, False, True]
    assert found.mean_per_class == 1.0
    assert found.to_json()["classes"][2] == {"class": "cow", "top1": None, "answers": {}}


def test_the_json_holds_the_whole_confusion_table() -> None:
    record = json.loads(json.dumps(judged(Judge(VECTORS), SIX).to_json(), allow_nan=False))
    number = {row["class"]: i for i, row in enumerate(record["classes"])}
    table = np.zeros((3, 3), int)
    for row in record["classes"]:
        for answer, times in row["answers"].items():
            table[number[row["class"]], number[answer]] = times
    assert table.tolist() == judged(Judge(VECTORS), SIX).matrix().tolist()
    assert record["top1"]["share"] == 0.5
    assert [record["top1"][end] for end in ("low", "high")] == pytest.approx([0.18762, 0.81238], abs=1e-5)
    assert record["wrong"] == [
        {"picture": "2", "class": "cat", "answer": "dog"},
        {"picture": "4", "class": "dog", "answer": "cow"},
        {"picture": "5", "class": "cow", "answer": "cat"},
    ]
    assert record["subject"] == {
        "path": "f32.gguf",
        "model": "judge",
        "variant": "f32",
        "compute": "exact",
        "provider": "cpu",
        "space": SPACE,
    }


def test_more_labels_than_classes_are_more_answers_to_choose_from() -> None:
    texts = np.eye(4, dtype=np.float32)
    labels = LabelSet(("bird", "cow", "cat", "dog"), Embeddings(texts, SPACE))
    vectors = [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]  # a cat, a bird, a dog
    found = judged(Judge(vectors), Dataset(("dog", "cat"), ("0", "1", "2"), (1, 1, 0)), labels)
    assert [c.name for c in found.classes] == ["dog", "cat"]
    assert found.classes[1].answers == {"bird": 1, "cat": 1}
    assert (found.top1.count, found.matrix().sum(), found.matrix()[2, 0]) == (2, 3, 1)
    with pytest.raises(TextError, match=r"1 of 2 classes are not among the labels, 'fox' first"):
        judged(Judge(vectors), Dataset(("dog", "fox"), ("0",), (0,)), labels)


def test_fitted_constants_are_those_that_are_scored_with() -> None:
    labels = LabelSet(CLASSES, Embeddings(np.eye(3, dtype=np.float32), SPACE), scoring=Scoring(0.0, 1.0))
    assert judged(Judge(VECTORS), SIX, labels).scoring == Scoring(0.0, 1.0)
    assert judged(Judge(VECTORS), SIX).scoring == SCORING
    with pytest.raises(ArtifactError, match="constants to score with"):
        judged(Judge(VECTORS, scoring=None), SIX)


def test_labels_of_another_model_are_refused_before_any_picture_is_read() -> None:
    judge = Judge(VECTORS)
    labels = LabelSet(CLASSES, Embeddings(np.eye(3, dtype=np.float32), OTHER_SPACE))
    with pytest.raises(SpaceError):
        judged(judge, SIX, labels)
    assert judge.asked == []


def test_classes_that_are_one_text_to_the_model_are_said() -> None:
    texts = [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    found = judged(Judge(VECTORS, texts=texts), SIX)
    assert found.notes == ("the model cannot tell 'cat' from 'cow': they are one text to it",)
    assert found.top1.count == 2  # what was a cat is a tie now
    cut = LabelSet(CLASSES, Embeddings(np.eye(3, dtype=np.float32), SPACE, cut=(1,)))
    assert "'dog'" in judged(Judge(VECTORS), SIX, cut).notes[0]


def test_a_comparison_that_can_be_checked_by_eye() -> None:
    reference, found = judged(Judge(VECTORS), SIX), judged(Judge(OTHER, "q4"), SIX)
    compared = compare(found, reference)
    assert (compared.lost, compared.won) == ((0,), (2, 5))
    assert (compared.paired.lost, compared.paired.won, compared.paired.total) == (1, 2, 6)
    assert [share.count for share in compared.top1] == [4, 3]
    assert compared.paired.difference == pytest.approx(1 / 6)
    assert compared.paired.p == 1.0
    assert compared.paired_top5 is None
    cosines = [(np.float64(a) * np.float64(b)).sum() for a, b in zip(OTHER, VECTORS, strict=True)]
    assert compared.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-6)
    assert compared.worst_cosine == pytest.approx(min(cosines), abs=1e-6)
    chance = [
        [1 / (1 + math.exp(5 - 10 * c)) for row in vectors for c in row] for vectors in (OTHER, VECTORS)
    ]
    errors = np.abs(np.subtract(*chance))
    assert compared.probability_error == pytest.approx(errors.mean(), rel=1e-5)
    own = errors.reshape(6, 3)[np.arange(6), TRUTHS]
    assert compared.right_probability_error == pytest.approx(own.mean(), rel=1e-5)
    turned = compare(reference, found)
    assert (turned.lost, turned.won) == (compared.won, compared.lost)
    record = json.loads(json.dumps(compared.to_json(), allow_nan=False))
    assert (record["lost"], record["won"]) == (["0"], ["2", "5"])
    assert record["top1_difference"]["difference"] == compared.paired.difference
    assert record["top1"]["subject"]["count"] == 4


def test_a_comparison_is_of_the_pictures_that_both_could_read() -> None:
    class Blind(Judge):
        def iter_images(self, pictures: Iterable[str]) -> Iterator[EmbeddedPicture]:
            for one in super().iter_images(pictures):
                hidden = one.row in (1, 5)
                yield EmbeddedPicture(one.row, None, PictureError("too large")) if hidden else one

    compared = compare(judged(Blind(OTHER, "q4"), SIX), judged(Judge(VECTORS), SIX))
    assert (compared.paired.total, compared.lost, compared.won) == (4, (0,), (2,))
    assert [share.count for share in compared.top1] == [2, 2]
    assert math.isfinite(compared.probability_error) and compared.mean_cosine is not None
    assert math.isfinite(compared.mean_cosine)


def test_a_comparison_across_spaces_has_no_cosines() -> None:
    compared = compare(judged(Judge(OTHER, "b16", space=OTHER_SPACE), SIX), judged(Judge(VECTORS), SIX))
    assert (compared.mean_cosine, compared.worst_cosine) == (None, None)
    assert compared.paired.won == 2


def test_only_the_same_pictures_and_labels_can_be_compared() -> None:
    found = judged(Judge(VECTORS), SIX)
    for other in (
        Dataset(CLASSES, ("0", "1", "2", "3", "4", "4"), TRUTHS),
        Dataset(CLASSES, SIX.pictures, (0, 0, 0, 1, 1, 1)),
        Dataset(("cat", "dog", "hen"), SIX.pictures, TRUTHS),
        Dataset(CLASSES, SIX.pictures[:5], TRUTHS[:5]),
    ):
        with pytest.raises(ValueError, match="same pictures"):
            compare(found, judged(Judge(VECTORS), other))


@pytest.mark.parametrize("compute", ["exact", "int8"])
def test_counts_on_a_trained_model_are_the_benchmarks_own(
    emoji_variant: Callable[[str], Exported], compute: str
) -> None:
    """60 drawings it never saw among 300 names: the same pictures right, one by one."""
    cells, names = emoji_accuracy.drawings()
    assert len(set(names)) == len(names)
    classes, every = names[:300], slice(0, 300, 5)
    found = {}
    for variant in ("q4_k_m", "f32"):
        with Siglip.load(emoji_variant(variant).path, compute=compute) as model:
            dataset = Dataset(tuple(classes), tuple(cells[every]), tuple(range(300))[every])
            found[variant] = evaluate(model, dataset)
            scoring = model.info.manifest.scoring
            assert scoring is not None
            images = model.embed_images(cells[every]).vectors
            texts = model.embed_texts(classes).vectors
        scores = emoji_accuracy.logits(images, texts, scoring)
        numbers = np.arange(300)[every]
        top1, top5 = emoji_accuracy.accuracy(scores, numbers)
        five = found[variant].top5
        assert five is not None
        assert (found[variant].top1.share, five.share) == (top1, top5)
        assert ((found[variant].rivals == 0) == (emoji_accuracy.rivals(scores, numbers) < 1)).all()
        assert 0.4 < top1 < top5
    compared = compare(found["q4_k_m"], found["f32"])
    before, after = found["f32"].rivals == 0, found["q4_k_m"].rivals == 0
    assert compared.paired == paired(before, after)
    assert compared.lost == tuple(np.flatnonzero(before & ~after))
    assert compared.mean_cosine is not None and 0.99 < compared.mean_cosine < 1


def test_the_labels_are_the_classes_as_they_are_written(emoji_q4: Path) -> None:
    names = ("owl", "tiger", "rocket", "pizza", "guitar", "key")
    demo = Path(emoji_accuracy.EXAMPLE) / "heldout" / "demo"
    dataset = Dataset(names, tuple(demo / f"{name}.png" for name in names), tuple(range(6)))
    with Siglip.load(emoji_q4) as model:
        found = evaluate(model, dataset)
    assert found.top1.count >= 5
    assert found.seconds > 0 and found.pictures_per_second == pytest.approx(6 / found.seconds)
    assert found.subject["variant"] == "q4_k_m"
    assert found.labels.templates == ("{}",)
