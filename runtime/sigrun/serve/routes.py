"""The routes that compute: a request's JSON in, an answer's JSON out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sigrun.labels import LabelSet
from sigrun.manifest import TowerName
from sigrun.search import Query, Term
from sigrun.serve import answers
from sigrun.serve.engine import Engine
from sigrun.serve.errors import ApiError, unprocessable
from sigrun.serve.items import Bad, Item, Text
from sigrun.serve.search_request import THUMBNAILS, read_search
from sigrun.serve.searching import ServedIndex
from sigrun.serve.shapes import Classify, read_classify, read_embed, read_pairs, read_rerank
from sigrun.serve.vectors import Vector

_ROWS_A_STEP = 16


@dataclass(frozen=True)
class Answer:
    """What a route answers with.

    Attributes:
        head: the fields of the answer but for its rows.
        field: the name of the rows.
        rows: made one after the other, as they are written.
        items: how many rows there are, for the log.
        failed: how many of them hold an error.
    """

    head: dict[str, Any]
    field: str
    rows: Iterable[dict[str, Any]]
    items: int
    failed: int = 0

    async def encoded(self) -> bytes:
        """The answer as JSON. Long ones are written in steps, between which other requests have their turn."""
        rows: list[str] = []
        for number, row in enumerate(self.rows, 1):
            rows.append(json.dumps(row, separators=(",", ":"), allow_nan=False))
            if number % _ROWS_A_STEP == 0:
                await asyncio.sleep(0)
        head = json.dumps(self.head, separators=(",", ":"), allow_nan=False)
        return f'{head[:-1]},"{self.field}":[{",".join(rows)}]}}'.encode()


Route = Callable[[Engine, Mapping[str, Any], float], Awaitable[Answer]]


async def embeddings(engine: Engine, body: Mapping[str, Any], patience: float) -> Answer:
    """``/v1/embeddings``: one vector an item, in order."""
    asked = read_embed(body, engine.settings.limits)
    engine.check_model(asked.model)
    if asked.dimensions is not None and asked.dimensions != engine.width:
        raise unprocessable(
            f"dimensions can only be {engine.width}: the model's vectors lose their meaning when they are cut",
            "dimensions",
        )
    param = "messages" if body.get("messages") is not None else "input"
    found = await _embedded(engine, asked.items, param, patience, many=isinstance(body.get("input"), list),
                            rows=asked.rows)  # fmt: skip
    used = _usage(engine, asked.items)
    return Answer(
        {"object": "list", "model": engine.name, "space": engine.model.space, "usage": used},
        "data",
        (answers.embedding_row(index, result, asked.base64) for index, result in enumerate(found)),
        len(found),
        _failed(found),
    )


async def classify(engine: Engine, body: Mapping[str, Any], patience: float) -> Answer:
    """``/v1/classify``: how well each label fits each picture."""
    asked = read_classify(body, engine.settings.limits, engine.settings.label_sets)
    engine.check_model(asked.model)
    many = isinstance(body.get("input"), list)
    items = [
        _picture_only(item, f"input[{index}]" if many else "input") for index, item in enumerate(asked.items)
    ]
    images = asyncio.create_task(_embedded(engine, items, "input", patience, many=many, rows=asked.rows))
    try:
        labels = await _labels(engine, asked, patience)
    except BaseException:
        images.cancel()
        await asyncio.gather(images, return_exceptions=True)
        raise
    found = await images
    scoring = engine.scoring(labels)
    rows = (
        answers.classification_row(index, result, asked, labels, scoring)
        for index, result in enumerate(found)
    )
    return Answer(
        {
            "object": "list",
            "model": engine.name,
            "activation": asked.activation,
            "usage": _usage(engine, items, labels=0 if asked.labels is None else len(asked.labels)),
        },
        "data",
        rows,
        len(found),
        _failed(found),
    )


async def score(engine: Engine, body: Mapping[str, Any], patience: float) -> Answer:
    """``/v1/score``: how well the two of each pair fit."""
    asked = read_pairs(body, engine.settings.limits)
    engine.check_model(asked.model)
    activation = answers.pair_activation(asked.activation, asked.left, asked.right)
    scoring = None if activation == "cosine" else engine.scoring()
    found = await engine.vectors([*asked.left, *asked.right], patience)
    left = answers.settled(found[: len(asked.left)], asked.names[0], many=True, rows=asked.rows)
    right = answers.settled(found[len(asked.left) :], asked.names[1], many=True, rows=asked.rows)
    rows: list[dict[str, Any]] = []
    for index, other in enumerate(right):
        one = left[index if len(left) > 1 else 0]
        row: dict[str, Any] = {"index": index, "object": "score", "score": None}
        wrong = next((result for result in (one, other) if isinstance(result, ApiError)), None)
        if isinstance(one, Vector) and isinstance(other, Vector):
            row["score"] = answers.pair_score(one, other, scoring, activation)
        elif wrong is not None:
            row["error"] = answers.row_error(wrong)
        rows.append(row)
    return Answer(
        {
            "id": answers.new_id("score"),
            "object": "list",
            "created": engine.created,
            "model": engine.name,
            "activation": activation,
            "usage": _usage(engine, [*asked.left, *asked.right]),
        },
        "data",
        rows,
        len(rows),
        sum("error" in row for row in rows),
    )


async def rerank(engine: Engine, body: Mapping[str, Any], patience: float) -> Answer:
    """``/v1/rerank``: documents in the order in which they fit the query."""
    asked = read_rerank(body, engine.settings.limits)
    engine.check_model(asked.model)
    activation = answers.pair_activation(asked.activation, [asked.query], asked.documents)
    scoring = None if activation == "cosine" else engine.scoring()
    found = await engine.vectors([asked.query, *asked.documents], patience)
    query = answers.settled(found[:1], "query", many=False, rows=False)[0]
    documents = answers.settled(found[1:], "documents", many=True, rows=asked.rows)
    rows: list[dict[str, Any]] = []
    for index, document in enumerate(documents):
        row: dict[str, Any] = {"index": index, "relevance_score": None}
        if isinstance(document, ApiError):
            row["error"] = answers.row_error(document)
        elif isinstance(query, Vector):
            row["relevance_score"] = answers.pair_score(query, document, scoring, activation)
        text = asked.texts[index] if asked.texts is not None else None
        if text is not None:
            row["document"] = {"text": text}
        rows.append(row)
    rows.sort(key=lambda row: -answers.finite(row["relevance_score"]))
    return Answer(
        {
            "id": answers.new_id("rerank"),
            "object": "list",
            "model": engine.name,
            "activation": activation,
            "usage": _usage(engine, [asked.query, *asked.documents]),
        },
        "results",
        rows[: asked.top],
        len(rows),
        _failed(documents),
    )


async def search(engine: Engine, body: Mapping[str, Any], patience: float) -> Answer:
    """``/v1/search``: pictures of the index that fit texts and pictures, best first."""
    index = the_index(engine)
    asked = read_search(body, engine.settings.limits)
    engine.check_model(asked.model)
    items: list[Item | Bad] = [*asked.items]
    found = answers.settled(await engine.vectors(items, patience), "query", many=asked.many, rows=False)
    terms = tuple(
        Term(vector.values, "text" if isinstance(item, Text) else "picture", weight)
        for item, vector, weight in zip(asked.items, found, asked.weights, strict=True)
        if isinstance(vector, Vector)
    )
    hits, count = await index.search(Query(terms), asked.top, asked.threshold, pictures=asked.pictures)
    rows = [answers.hit_row(number, listed, THUMBNAILS) for number, listed in enumerate(hits)]
    return Answer(
        {
            "object": "list",
            "model": engine.name,
            "space": engine.model.space,
            "searched": count,
            "usage": _usage(engine, items),
        },
        "data",
        rows,
        len(rows),
    )


def the_index(engine: Engine) -> ServedIndex:
    """The index that is served.

    Raises:
        ApiError: there is none.
    """
    if engine.index is None:
        raise ApiError(
            404,
            "this server has no index to search",
            hint="start it with one: sigrun serve ARTIFACT --index INDEX, which `sigrun index` makes",
            code="no_index",
        )
    return engine.index


async def _embedded(
    engine: Engine, items: list[Item | Bad], param: str, patience: float, *, many: bool, rows: bool
) -> list[Vector | ApiError]:
    if not rows:  # then an item that is bad already takes no other's time
        for item in items:
            if isinstance(item, Bad):
                raise item.error
    return answers.settled(await engine.vectors(items, patience), param, many=many, rows=rows)


async def _labels(engine: Engine, asked: Classify, patience: float) -> LabelSet:
    if asked.label_set is not None:
        return engine.settings.label_sets[asked.label_set]
    return await engine.label_set(asked.labels or [], asked.templates, patience)


def _picture_only(item: Item | Bad, param: str) -> Item | Bad:
    if not isinstance(item, Text):
        return item
    hint = "send it as data:image/png;base64,…" + (
        ' or {"image": "https://…"}' if item.text.lstrip().startswith("http") else ""
    )
    return Bad(unprocessable(f"{param} is a text; the model judges pictures by labels", param, hint=hint))


def _failed(found: list[Vector | ApiError]) -> int:
    return sum(isinstance(result, ApiError) for result in found)


def _usage(engine: Engine, items: list[Item | Bad], labels: int = 0) -> dict[str, int]:
    """Tokens that the towers read: every text is as long as the context, every picture as its patches."""
    lengths: dict[TowerName, int] = engine.tokens
    texts = labels + sum(isinstance(item, Text) for item in items)
    pictures = sum(not isinstance(item, Text | Bad) for item in items)
    total = texts * lengths.get("text", 0) + pictures * lengths.get("image", 0)
    return {"prompt_tokens": total, "total_tokens": total}


ROUTES: dict[str, Route] = {
    "/v1/embeddings": embeddings,
    "/v1/classify": classify,
    "/v1/score": score,
    "/v1/rerank": rerank,
    "/v1/search": search,
}
