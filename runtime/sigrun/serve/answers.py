"""Answers: vectors and scores as the JSON that clients expect."""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import SigrunError
from sigrun.labels import LabelSet
from sigrun.scores import Scoring, cosines, probability, scaled, softmax
from sigrun.serve.errors import ApiError, error_object, unprocessable
from sigrun.serve.items import Bad, Item, Text
from sigrun.serve.searching import Listed
from sigrun.serve.shapes import Activation, Classify
from sigrun.serve.vectors import Vector

Found = Sequence[Vector | SigrunError]


def item_error(error: SigrunError, param: str) -> ApiError:
    """An item's error with the item's place in it."""
    if isinstance(error, ApiError):
        if error.param is not None:
            return error
        return unprocessable(
            f"{param}: {error.message}", param, hint=error.hint, code=error.code or "invalid_value"
        )
    message = error.message.replace("<bytes>", param, 1)
    message = message if param in message else f"{param}: {message}"
    hint = None if error.hint is not None and "max_pixels" in error.hint else error.hint
    return unprocessable(message, param, hint=hint, code="invalid_item")


def settled(found: Found, param: str, *, many: bool, rows: bool) -> list[Vector | ApiError]:
    """Results with their errors placed; where errors may not stand in rows, the first one is raised.

    Raises:
        ApiError: an item failed, and ``rows`` is false.
    """
    placed: list[Vector | ApiError] = []
    for index, result in enumerate(found):
        if isinstance(result, Vector):
            placed.append(result)
            continue
        error = item_error(result, f"{param}[{index}]" if many else param)
        if not rows:
            raise error
        placed.append(error)
    return placed


def row_error(error: ApiError) -> dict[str, Any]:
    """An item's error as it stands in its row."""
    return error_object(error, code=error.code, param=error.param)


def embedding_row(index: int, result: Vector | ApiError, as_base64: bool) -> dict[str, Any]:
    """A row of ``/v1/embeddings``."""
    row: dict[str, Any] = {"object": "embedding", "index": index, "embedding": None}
    if isinstance(result, ApiError):
        return row | {"error": row_error(result)}
    row["embedding"] = encoded(result.values, as_base64)
    if result.note is not None:
        row["note"] = result.note
    return row


def encoded(values: NDArray[np.float32], as_base64: bool) -> str | list[float]:
    """A vector as numbers, or as base64 of little-endian float32."""
    if as_base64:
        return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = values.astype(np.float64).tolist()
    return numbers


def classification_row(
    index: int, result: Vector | ApiError, asked: Classify, labels: LabelSet, scoring: Scoring
) -> dict[str, Any]:
    """A row of ``/v1/classify``."""
    row: dict[str, Any] = {"object": "classification", "index": index, "prediction": None, "score": None}
    if isinstance(result, ApiError):
        return row | {"predictions": [], "error": row_error(result)}
    predictions = predicted(result.values, asked, labels, scoring)
    if predictions:
        row |= {"prediction": predictions[0]["label"], "score": predictions[0]["score"]}
    row["predictions"] = predictions
    if result.note is not None:
        row["note"] = result.note
    return row


def predicted(
    vector: NDArray[np.float32], asked: Classify, labels: LabelSet, scoring: Scoring
) -> list[dict[str, Any]]:
    """The labels that a picture gets, best first; ranked by logit, which never saturates."""
    cosine = cosines(vector[np.newaxis], labels.embeddings.vectors)[0]  # [labels]
    logits = scaled(cosine, scoring)
    scores = activated(cosine, scoring, asked.activation)
    order = np.argsort(-logits, kind="stable")
    if asked.threshold is not None:
        order = order[scores[order] >= asked.threshold]
    return [
        {
            "label": labels.labels[i],
            "score": float(scores[i]),
            "logit": float(logits[i]),
            "cosine": float(cosine[i]),
        }
        for i in order[: asked.top]
    ]


def activated(
    cosine: NDArray[np.float32], scoring: Scoring, activation: Activation
) -> NDArray[np.floating[Any]]:
    """Scores of the labels of one picture."""
    match activation:
        case "cosine":
            return cosine
        case "logit":
            return scaled(cosine, scoring)
        case "softmax":
            return softmax(scaled(cosine, scoring))
        case "sigmoid":
            return probability(scaled(cosine, scoring))


def pair_activation(asked: str, lefts: Sequence[Item | Bad], rights: Sequence[Item | Bad]) -> Activation:
    """What becomes of the cosines of pairs. ``auto``: of text and picture the probability, of two alike the cosine.

    Raises:
        ApiError: the pairs differ in kind, so that their scores would not be on one scale.
    """
    pairs = zip(lefts if len(lefts) == len(rights) else [lefts[0]] * len(rights), rights, strict=True)
    mixed = {isinstance(a, Text) != isinstance(b, Text) for a, b in pairs if not isinstance(a, Bad | str)
             and not isinstance(b, Bad)}  # fmt: skip
    if asked == "cosine":
        return "cosine"
    if len(mixed) > 1:
        raise unprocessable(
            "some pairs are of text and picture, others of two alike: their scores are not comparable", None,
            hint="send them in two requests, or activation: cosine",
        )  # fmt: skip
    if mixed == {False}:
        if asked != "auto":
            raise unprocessable(
                "the model's probabilities are of a text with a picture; two alike have a cosine only", "activation",
                hint="activation: cosine",
            )  # fmt: skip
        return "cosine"
    return "logit" if asked == "logit" else "sigmoid"


def pair_score(left: Vector, right: Vector, scoring: Scoring | None, activation: Activation) -> float:
    """The score of one pair."""
    cosine = cosines(left.values[np.newaxis], right.values[np.newaxis])[0]  # [1]
    if activation == "cosine" or scoring is None:
        return min(1.0, max(-1.0, float(cosine[0])))
    return float(activated(cosine, scoring, activation)[0])


def hit_row(index: int, listed: Listed, thumbnails: str) -> dict[str, Any]:
    """A row of ``/v1/search``: the hit as ``sigrun search --json`` has it, its path below the indexed folder."""
    row = {"object": "hit", "index": index, **listed.hit.to_json()}
    return row | {"path": listed.path, "thumbnail": thumbnails + listed.name}


def new_id(kind: str) -> str:
    """A name for an answer."""
    return f"{kind}-{uuid.uuid4().hex}"


def finite(score: float | None) -> float:
    """A score to sort by; those that are missing come last."""
    return -math.inf if score is None else score
