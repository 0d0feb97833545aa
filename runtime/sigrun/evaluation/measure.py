"""Runs a model over pictures of known class and counts how often it is right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.embeddings import Embeddings, same_space
from sigrun.errors import ArtifactError, PictureError, TextError
from sigrun.evaluation.dataset import Dataset
from sigrun.gather import safe
from sigrun.labels import LabelSet
from sigrun.model import Siglip
from sigrun.scores import Scoring, logits
from sigrun.statistics import CONFIDENCE, Proportion

AMONG = 5  # top-5, told where there are more classes than that
ROWS = 512  # pictures scored at a time
_ALIKE = 1e-5  # cosines this close to 1 are of texts that the model cannot tell apart
_FAILED = -1


@dataclass(frozen=True)
class ClassResult:
    """How the pictures of one class were judged.

    Attributes:
        name: its text.
        right: how many were given this class, of those that could be read; none if there are none.
        answers: class → how many of its pictures were given that class; most first.
    """

    name: str
    right: Proportion | None
    answers: dict[str, int]


@dataclass(frozen=True)
class Confusion:
    """How often pictures of one class were given another.

    Attributes:
        truth: the class they are of.
        answer: the class they were given.
        times: how often, of all pictures of the class that could be read.
    """

    truth: str
    answer: str
    times: Proportion


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a model answered on pictures of known class.

    Attributes:
        subject: what ran: path, model, variant, compute, provider, space.
        dataset: the pictures.
        labels: the possible answers and their embeddings.
        images: the pictures' embeddings, one row each; those that could not be read are among its errors, and what
            is to be known of others, such as that one is the first of 12 frames, among its notes.
        scoring: the constants that made logits of cosines.
        truths: int64 [n], the label of each picture's class.
        answers: int64 [n], the label that scored best; -1 where the picture could not be read. A label that scores
            just as well as the right one is taken for the answer: a tie is no right answer.
        rivals: int64 [n], how many labels scored at least as well as the right one; -1 as above.
        seconds: from the first picture's decoding to the last one's vector.
        start_seconds: what came before: unpacking the image tower and a first picture.
        notes: what a reader of the figures should know.
    """

    subject: dict[str, str]
    dataset: Dataset
    labels: LabelSet
    images: Embeddings
    scoring: Scoring
    truths: NDArray[np.int64]
    answers: NDArray[np.int64]
    rivals: NDArray[np.int64]
    seconds: float
    start_seconds: float
    notes: tuple[str, ...] = ()

    @property
    def read(self) -> NDArray[np.bool_]:
        """Which pictures could be read, [n]; only they are judged."""
        found: NDArray[np.bool_] = self.rivals != _FAILED
        return found

    @property
    def top1(self) -> Proportion:
        """How many pictures were given their class."""
        return self._among(1)

    @property
    def top5(self) -> Proportion | None:
        """How many had their class among the best five; none with five classes or fewer."""
        return self._among(AMONG) if len(self.labels.labels) > AMONG else None

    @property
    def mean_per_class(self) -> float:
        """Mean of the classes' shares of right answers: each class counts alike, however many pictures it has."""
        return float(np.mean([result.right.share for result in self.classes if result.right is not None]))

    @property
    def pictures_per_second(self) -> float:
        """Pictures that were decoded, prepared and embedded in a second."""
        return int(self.read.sum()) / self.seconds if self.seconds > 0 else 0.0

    @cached_property
    def classes(self) -> list[ClassResult]:
        """Each class that has pictures or could have had them, in the order of the dataset."""
        column = _columns(self.labels)
        given: dict[int, dict[int, int]] = {}
        for truth, answer in zip(self.truths.tolist(), self.answers.tolist(), strict=True):
            if answer != _FAILED:
                row = given.setdefault(truth, {})
                row[answer] = row.get(answer, 0) + 1
        results = []
        for name in self.dataset.classes:
            row = given.get(column[name], {})
            most = sorted(row.items(), key=lambda item: (-item[1], item[0]))
            right = Proportion(row.get(column[name], 0), sum(row.values())) if row else None
            results.append(ClassResult(name, right, {self.labels.labels[a]: n for a, n in most}))
        return results

    def confusions(self, most: int | None = None) -> list[Confusion]:
        """Wrong answers by class and answer, the most frequent first."""
        found = [
            Confusion(result.name, answer, Proportion(times, result.right.total))
            for result in self.classes
            for answer, times in result.answers.items()
            if answer != result.name and result.right is not None
        ]
        return sorted(found, key=lambda c: (-c.times.count, -c.times.share))[:most]

    def matrix(self) -> NDArray[np.int64]:
        """The confusion table, [labels, labels]: pictures by their class (row) and their answer (column)."""
        size = len(self.labels.labels)
        table = np.zeros((size, size), np.int64)
        np.add.at(table, (self.truths[self.read], self.answers[self.read]), 1)
        return table

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values; ``answers`` of the classes are the whole confusion table."""
        wrong = np.flatnonzero(self.read & (self.answers != self.truths)).tolist()
        label = self.labels.labels
        return {
            "subject": dict(self.subject),
            "dataset": {
                "root": safe(self.dataset.root),
                "pictures": len(self.dataset.pictures),
                "classes": len(self.dataset.classes),
                "labels": len(label),
            },
            "confidence": CONFIDENCE,
            "judged": int(self.read.sum()),
            "top1": proportion_json(self.top1),
            "top5": None if self.top5 is None else proportion_json(self.top5),
            "mean_per_class": self.mean_per_class,
            "seconds": self.seconds,
            "start_seconds": self.start_seconds,
            "pictures_per_second": self.pictures_per_second,
            "classes": [
                {
                    "class": result.name,
                    "top1": None if result.right is None else proportion_json(result.right),
                    "answers": result.answers,
                }
                for result in self.classes
            ],
            "wrong": [
                {
                    "picture": self.dataset.name(row),
                    "class": label[self.truths[row]],
                    "answer": label[self.answers[row]],
                }
                for row in wrong
            ],
            "unreadable": [
                {"picture": self.dataset.name(row), "error": error.message, "hint": error.hint}
                for row, error in sorted(self.images.errors.items())
            ],
            "picture_notes": [
                {"picture": self.dataset.name(row), "note": note}
                for row, note in sorted(self.images.notes.items())
            ],
            "notes": list(self.notes),
        }

    def _among(self, best: int) -> Proportion:
        read = self.rivals[self.read]
        return Proportion(int((read < best).sum()), len(read))


def proportion_json(found: Proportion) -> dict[str, float | int]:
    """A share with its interval as plain JSON values."""
    low, high = found.interval()
    return {"share": found.share, "low": low, "high": high, "count": found.count, "of": found.total}


def evaluate(
    model: Siglip,
    dataset: Dataset,
    labels: LabelSet | None = None,
    *,
    on_progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Give each picture the label that scores best, and count how often that is its class.

    Only the vectors of the pictures are held, not the pictures.

    Args:
        model: what runs.
        dataset: the pictures and their classes.
        labels: the possible answers, the dataset's classes among them; by default those, each as it is written.
        on_progress: called with 1 after each picture.

    Raises:
        TextError: a class is not among the labels.
        PictureError: none of the pictures can be read.
        SpaceError: the label set was made by another model.
        ArtifactError: the artifact lacks a tower that is needed.
    """
    chosen = model.label_set(dataset.classes) if labels is None else labels
    same_space(model.space, chosen.embeddings.space)
    scoring = _scoring(model, chosen)
    column = _columns(chosen)
    missing = [name for name in dataset.classes if name not in column]
    if missing:
        raise TextError(
            f"{len(missing):,} of {len(dataset.classes):,} classes are not among the labels, {missing[0]!r} first",
            hint="name each folder as one of the labels, or say in a file of classes which label it is",
        )
    began = time.perf_counter()
    width = model.embed_images([np.zeros((1, 1, 3), np.uint8)]).vectors.shape[1]  # unpacks the image tower
    started = time.perf_counter()
    vectors = np.full((len(dataset.pictures), width), np.nan, np.float32)
    errors: dict[int, PictureError] = {}
    remarks: dict[int, str] = {}
    for found in model.iter_images(dataset.pictures):
        if found.error is not None:
            errors[found.row] = found.error
        else:
            vectors[found.row] = found.vector
        if found.note is not None:
            remarks[found.row] = found.note
        if on_progress is not None:
            on_progress(1)
    seconds = time.perf_counter() - started
    if len(errors) == len(vectors):
        raise PictureError(
            f"none of the {len(vectors):,} pictures can be read; the first: {errors[0].message}",
            hint=errors[0].hint,
        )
    truths = np.array([column[dataset.classes[truth]] for truth in dataset.truths], np.int64)
    images = Embeddings(vectors, model.space, errors, notes=remarks)
    answers, rivals = _judged(images, chosen, scoring, truths)
    notes = (*dataset.notes, *_doubtful(chosen))
    return Evaluation(
        _subject(model),
        dataset,
        chosen,
        images,
        scoring,
        truths,
        answers,
        rivals,
        seconds,
        started - began,
        notes,
    )


def rows(images: Embeddings) -> Iterator[NDArray[np.int64]]:
    """The rows that did not fail, a part at a time."""
    good = np.flatnonzero(~np.isin(np.arange(len(images)), list(images.errors)))
    yield from (good[start : start + ROWS] for start in range(0, len(good), ROWS))


def _judged(
    images: Embeddings, labels: LabelSet, scoring: Scoring, truths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each picture's answer and how many labels rival the right one, as :class:`Evaluation` has them."""
    answers, rivals = np.full((2, len(images)), _FAILED, np.int64)
    for part in rows(images):
        scores = logits(images.vectors[part], labels.embeddings.vectors, scoring)  # [part, labels]
        at = np.arange(len(part))
        right = scores[at, truths[part]].copy()
        rivals[part] = (scores >= right[:, None]).sum(axis=1) - 1
        scores[at, truths[part]] = -np.inf  # so that the best of the others wins a tie
        other = scores.argmax(axis=1)
        answers[part] = np.where(rivals[part] == 0, truths[part], other)
    return answers, rivals


def _columns(labels: LabelSet) -> dict[str, int]:
    """Label → its number, the first where a label is given twice."""
    return {label: number for number, label in reversed(list(enumerate(labels.labels)))}


def _scoring(model: Siglip, labels: LabelSet) -> Scoring:
    """The constants of a calibrated label set, or the model's own."""
    scoring = labels.constants(model.info.manifest.scoring)
    if scoring is None:
        raise ArtifactError(
            f"{model.info.path}: neither the artifact nor the label set has constants to score with",
            hint="make the label set with an artifact that has both towers",
        )
    return scoring


def _subject(model: Siglip) -> dict[str, str]:
    info = model.info
    manifest = info.manifest
    image = info.running["image"]
    return {
        "path": safe(info.path),
        "model": manifest.model,
        "variant": manifest.variant,
        "compute": image.compute,
        "provider": image.provider,
        "space": model.space,
    }


def _doubtful(labels: LabelSet) -> Iterator[str]:
    """Labels that lost their end, or that the model cannot tell apart."""
    for number in labels.embeddings.cut:
        yield f"the model does not read the end of this label, which is too long for it: {labels.labels[number]!r}"
    vectors = labels.embeddings.vectors
    order = np.argsort(vectors @ vectors.mean(axis=0), kind="stable")  # labels that are alike are neighbours
    cosines = (vectors[order[1:]] * vectors[order[:-1]]).sum(axis=1)
    for place in np.flatnonzero(cosines > 1 - _ALIKE).tolist():
        first, second = sorted((int(order[place]), int(order[place + 1])))
        yield f"the model cannot tell {labels.labels[first]!r} from {labels.labels[second]!r}: they are one text to it"
