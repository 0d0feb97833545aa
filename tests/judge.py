"""A model that can be followed by eye: it sees what a picture's name says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from sigrun import Siglip
from sigrun.embeddings import EmbeddedPicture, Embeddings
from sigrun.errors import PictureError
from sigrun.evaluation import Dataset, Evaluation, evaluate
from sigrun.labels import LabelSet
from sigrun.scores import Scoring

SPACE, OTHER_SPACE = "a" * 32, "b" * 32
SCORING = Scoring(math.log(10.0), -5.0)  # logit = 10 cos - 5


class Judge:
    """Stands for a model: picture ``"3"`` gets row 3 of ``vectors``, label i the i-th axis, ``"bad"`` an error."""

    def __init__(
        self,
        vectors: Any,
        name: str = "f32",
        space: str = SPACE,
        scoring: Scoring | None = SCORING,
        texts: Any = None,
    ) -> None:
        self.vectors = np.asarray(vectors, np.float32)
        self.texts = None if texts is None else np.asarray(texts, np.float32)
        self.space = space
        self.asked: list[str] = []
        manifest = SimpleNamespace(model="judge", variant=name, scoring=scoring)
        running = {"image": SimpleNamespace(compute="exact", provider="cpu")}
        self.info = SimpleNamespace(path=f"{name}.gguf", manifest=manifest, running=running)

    def label_set(self, labels: Iterable[str]) -> LabelSet:
        listed = tuple(labels)
        texts = np.eye(self.vectors.shape[1], dtype=np.float32)[: len(listed)]
        return LabelSet(listed, Embeddings(texts if self.texts is None else self.texts, self.space))

    def embed_images(self, pictures: list[Any]) -> Embeddings:
        return Embeddings(np.zeros((len(pictures), self.vectors.shape[1]), np.float32), self.space)

    def iter_images(self, pictures: Iterable[str]) -> Iterator[EmbeddedPicture]:
        for row, picture in enumerate(pictures):
            self.asked.append(picture)
            if picture.startswith("bad"):
                yield EmbeddedPicture(row, None, PictureError(f"{picture} is empty", hint="send it again"))
            else:
                yield EmbeddedPicture(row, self.vectors[int(picture)])


def judged(
    judge: Judge, dataset: Dataset, labels: LabelSet | None = None, on_progress: Any = None
) -> Evaluation:
    return evaluate(cast(Siglip, judge), dataset, labels, on_progress=on_progress)


# Six pictures of three classes. Answers by eye: cat, cat, dog (wrong) | dog, a tie of dog and cow (wrong) | cat (wrong)
CLASSES = ("cat", "dog", "cow")
TRUTHS = (0, 0, 0, 1, 1, 2)
VECTORS = [[1, 0, 0], [0.8, 0.6, 0], [0.6, 0.8, 0], [0, 1, 0], [0, 0.6, 0.6], [0.6, 0, 0.5]]
SIX = Dataset(CLASSES, ("0", "1", "2", "3", "4", "5"), TRUTHS)

# A second model on the same pictures: it has 2 right that the first has wrong, and 4 and 5 as before; 0 it loses.
OTHER = [[0.6, 0.8, 0], [0.8, 0.6, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0.6, 0.6], [0.6, 0, 0.8]]
