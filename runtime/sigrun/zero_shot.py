"""Makes label sets, and scores pictures with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sigrun.embeddings import Embeddings, same_space
from sigrun.errors import TextError
from sigrun.labels import LabelSet, Origin
from sigrun.scores import Score, Scoring, check_limits, cosines, rank
from sigrun.templates import PLACE

TEXTS_AT_ONCE = 64  # texts of an ensemble that are embedded together


def make(
    embed: Callable[[Sequence[str], Callable[[int], object] | None], Embeddings],
    labels: Sequence[str],
    templates: tuple[str, ...],
    origin: Origin,
    on_progress: Callable[[int], object] | None = None,
) -> LabelSet:
    """Embed labels; the arguments are those of :meth:`sigrun.Siglip.label_set`.

    Args:
        embed: embeds texts, telling how many as they are done.
        labels: at least one, none empty.
        templates: at least one, each with ``{}``.
        origin: the model.
        on_progress: called with the number of labels that were done since the last call.

    Raises:
        TextError: there are no labels, or one is empty.
    """
    listed = _listed(labels)
    if len(templates) == 1:
        whole = embed([templates[0].replace(PLACE, label) for label in listed], on_progress)
        return LabelSet(tuple(listed), whole, templates, origin=origin)
    at_once = max(1, TEXTS_AT_ONCE // len(templates))
    rows: list[NDArray[np.float32]] = []
    cut: list[int] = []
    space = ""
    for start in range(0, len(listed), at_once):
        part = listed[start : start + at_once]
        texts = [template.replace(PLACE, label) for label in part for template in templates]
        embedded = embed(texts, None)
        space = embedded.space
        rows.append(_means(embedded.vectors.reshape(len(part), len(templates), -1)))
        cut += sorted({start + text // len(templates) for text in embedded.cut})
        if on_progress is not None:
            on_progress(len(part))
    return LabelSet(
        tuple(listed), Embeddings(np.concatenate(rows), space, cut=tuple(cut)), templates, origin=origin
    )


def score(
    images: Embeddings,
    labels: LabelSet,
    scoring: Scoring,
    *,
    top: int | None = None,
    threshold: float | None = None,
) -> list[list[Score]]:
    """Score embedded pictures; the arguments are those of :meth:`sigrun.Siglip.score`."""
    check_limits(top, threshold)
    same_space(images.space, labels.space)
    matrix = cosines(images.vectors, labels.embeddings.vectors)  # [n, labels]
    return [
        rank(labels.labels, row, scoring, top=top, threshold=threshold)
        if number not in images.errors and np.isfinite(row).all()
        else []
        for number, row in enumerate(matrix)
    ]


def _listed(labels: Sequence[str]) -> list[str]:
    listed = [] if isinstance(labels, str) else list(labels)
    if not listed:
        given = isinstance(labels, str) and labels
        raise TextError(
            "there is no list of labels to score",
            hint=f'write ["{labels}"]' if given else 'give at least one, such as ["a cat"]',
        )
    for number, label in enumerate(listed, 1):
        if not isinstance(label, str):
            raise TextError(f"label {number} is not a text: {label!r}")
        if not label.strip():
            raise TextError(f"label {number} is empty: {label!r}")
    return listed


def _means(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors [labels, templates, width] → the mean of each label's, of unit length again, [labels, width]."""
    means = vectors.astype(np.float64).mean(axis=1)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    if not (lengths > 1e-6).all():
        raise TextError(
            "the templates cancel each other out: their vectors have no mean direction", hint="use others"
        )
    result: NDArray[np.float32] = (means / lengths).astype(np.float32)
    return result
