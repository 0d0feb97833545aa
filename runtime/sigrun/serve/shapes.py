"""What each route is asked for: a request's JSON, checked and made one of four plain records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sigrun.serve.body import Fields
from sigrun.serve.errors import unprocessable
from sigrun.serve.items import MODALITIES, Bad, Item, Modality, read_item, read_items, read_messages
from sigrun.serve.settings import Limits
from sigrun.templates import ENSEMBLES, PLACE

Activation = Literal["sigmoid", "softmax", "logit", "cosine"]
ACTIVATIONS: tuple[Activation, ...] = ("sigmoid", "softmax", "logit", "cosine")
PAIR_ACTIVATIONS: tuple[str, ...] = ("auto", "sigmoid", "logit", "cosine")
ON_ERROR = ("fail", "item")
MOST_TEMPLATES = 100


@dataclass(frozen=True)
class Embed:
    """``/v1/embeddings``.

    Attributes:
        model: the model asked for, if one was named.
        items: what to embed.
        base64: whether vectors are sent as base64 of little-endian float32.
        dimensions: the length asked for.
        rows: whether an item's error goes into its row.
    """

    model: str | None
    items: list[Item | Bad]
    base64: bool
    dimensions: int | None
    rows: bool


@dataclass(frozen=True)
class Classify:
    """``/v1/classify``.

    Attributes:
        model: the model asked for, if one was named.
        items: the pictures.
        labels: the labels; none where a label set is named.
        label_set: the name of a label set.
        templates: sentences for the labels.
        activation: what becomes of a logit.
        threshold: keep only labels that score so much.
        top: keep only so many.
        rows: whether an item's error goes into its row.
    """

    model: str | None
    items: list[Item | Bad]
    labels: list[str] | None
    label_set: str | None
    templates: tuple[str, ...]
    activation: Activation
    threshold: float | None
    top: int | None
    rows: bool


@dataclass(frozen=True)
class Pairs:
    """``/v1/score``: each of the left with its fellow on the right; one on the left goes with all of the right."""

    model: str | None
    names: tuple[str, str]  # the two fields
    left: list[Item | Bad]
    right: list[Item | Bad]
    activation: str
    rows: bool


@dataclass(frozen=True)
class Rerank:
    """``/v1/rerank``."""

    model: str | None
    query: Item
    documents: list[Item | Bad]
    activation: str
    top: int | None
    texts: list[str | None] | None  # each document's text, where documents are to be returned
    rows: bool


def read_embed(body: Mapping[str, Any], limits: Limits) -> Embed:
    """A request for embeddings: OpenAI's, infinity's, Jina's, OpenRouter's, llama.cpp's or vLLM's shape.

    Raises:
        ApiError: it cannot be meant; this holds for all of this module.
    """
    fields = Fields(body)
    model = fields.text("model")
    encoding = fields.choice("encoding_format", ("float", "base64"), "")
    jina = _embedding_type(fields)
    if encoding and jina and encoding != jina:
        raise fields.fail("embedding_type", "does not agree with encoding_format")
    if not fields.flag("normalized", True):
        raise fields.fail("normalized", "cannot be false: the model's vectors have unit length")
    dimensions = fields.whole("dimensions")
    modality = cast(Modality, fields.choice("modality", MODALITIES, "auto"))
    rows = fields.choice("on_error", ON_ERROR, "fail") == "item"
    if fields.has("messages"):
        if fields.has("input"):
            raise fields.fail("messages", "and input are both given, and only one can be meant")
        items: list[Item | Bad] = [read_messages(body["messages"], limits)]
    else:
        items = read_items(body.get("input"), "input", limits, modality)
    return Embed(model, items, (encoding or jina) == "base64", dimensions, rows)


def _embedding_type(fields: Fields) -> str:
    """Jina's name for the encoding: a string, or a list of one."""
    value = fields.get("embedding_type")
    if isinstance(value, list):
        if len(value) != 1:
            raise fields.fail("embedding_type", "must name one type")
        value = value[0]
    return Fields({"embedding_type": value}).choice("embedding_type", ("float", "base64"), "")


def read_classify(body: Mapping[str, Any], limits: Limits, label_sets: Mapping[str, Any]) -> Classify:
    """A request to classify pictures, Jina's shape."""
    fields = Fields(body)
    model = fields.text("model")
    labels = fields.texts("labels", limits.items)
    name = fields.text("label_set")
    if (labels is None) == (name is None):
        problem = "and label_set are both given" if labels is not None else "is missing"
        raise fields.fail("labels", problem, "give labels, or the name of a label set")
    for index, label in enumerate(labels or ()):
        if not label.strip() or len(label) > limits.text_characters:
            problem = (
                "is empty" if not label.strip() else f"has more than {limits.text_characters} characters"
            )
            raise unprocessable(f"labels[{index}] {problem}", f"labels[{index}]")
    if name is not None and name not in label_sets:
        known = ", ".join(sorted(label_sets)) or "none was loaded"
        raise fields.fail("label_set", f"names no label set of this server: {known}", "see /v1/models")
    templates = _templates(fields, limits)
    if name is not None and (fields.has("template") or fields.has("ensemble")):
        raise fields.fail("label_set", "has templates of its own", "leave template and ensemble away")
    if labels is not None and len(labels) * len(templates) > limits.queue:
        raise unprocessable(
            f"{len(labels)} labels in {len(templates)} templates are {len(labels) * len(templates)} texts; at most "
            f"{limits.queue} are accepted", "labels", hint="make a label set with `sigrun labels`",
        )  # fmt: skip
    activation = cast(Activation, fields.choice("activation", ACTIVATIONS, "sigmoid"))
    threshold = _threshold(fields, activation)
    top = fields.whole("top_k")
    rows = fields.choice("on_error", ON_ERROR, "item") == "item"
    items = read_items(body.get("input"), "input", limits)
    count = len(labels) if labels is not None else len(label_sets[name or ""])
    if len(items) * min(top or count, count) > limits.predictions:
        raise unprocessable(
            f"{len(items)} pictures by {count} labels are more than {limits.predictions} scores",
            "input",
            hint="keep the best ones with top_k, or send fewer pictures at a time",
        )
    return Classify(model, items, labels, name, templates, activation, threshold, top, rows)


def _templates(fields: Fields, limits: Limits) -> tuple[str, ...]:
    ensemble = fields.choice("ensemble", tuple(ENSEMBLES), "")
    given = fields.get("template")
    if ensemble and given is not None:
        raise fields.fail("template", "and ensemble are both given, and only one can be meant")
    if ensemble:
        return ENSEMBLES[ensemble]
    if given is None:
        return (PLACE,)
    listed = Fields({"template": given if isinstance(given, list) else [given]}).texts(
        "template", MOST_TEMPLATES
    )
    for template in listed or ():
        if PLACE not in template:
            raise fields.fail("template", "has no {} where the label goes", 'such as "a photo of {}"')
        if len(template) > limits.text_characters or template.count(PLACE) > 8:
            raise fields.fail("template", "is too long")
    return tuple(listed or ())


def _threshold(fields: Fields, activation: Activation) -> float | None:
    """A threshold is on the scale of the scores: 0 to 1 where they are shares or probabilities, else any number."""
    if activation in ("sigmoid", "softmax"):
        return fields.fraction("threshold")
    value = fields.get("threshold")
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not abs(value) <= 1e30
        or math.isnan(value)
    ):
        raise fields.fail("threshold", "must be a number of ordinary size")
    return float(value)


PAIRS = (("data_1", "data_2"), ("text_1", "text_2"), ("queries", "documents"), ("queries", "items"))


def read_pairs(body: Mapping[str, Any], limits: Limits) -> Pairs:
    """A request to score pairs, vLLM's shapes."""
    fields = Fields(body)
    model = fields.text("model")
    found = [(a, b) for a, b in PAIRS if fields.has(a) and fields.has(b)]
    if len(found) != 1:
        names = "; ".join(f"{a} and {b}" for a, b in PAIRS)
        problem = "are given twice over" if found else "are missing"
        raise unprocessable(
            f"the two sides {problem}: give one of {names}", found[0][0] if found else "data_1"
        )
    activation = fields.choice("activation", PAIR_ACTIVATIONS, "auto")
    rows = fields.choice("on_error", ON_ERROR, "fail") == "item"
    one, other = found[0]
    left = read_items(_multi_modal(body[one]), one, limits)
    right = read_items(_multi_modal(body[other]), other, limits)
    if len(left) not in (1, len(right)):
        raise unprocessable(
            f"{one} holds {len(left)} items and {other} {len(right)}: there must be one, or as many", one
        )
    return Pairs(model, (one, other), left, right, activation, rows)


def _multi_modal(value: Any) -> Any:
    """vLLM wraps several items in ``{"content": [...]}``."""
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        return value["content"]
    return value


def read_rerank(body: Mapping[str, Any], limits: Limits) -> Rerank:
    """A request to rank documents by a query, the shape that Cohere, Jina, vLLM and infinity share."""
    fields = Fields(body)
    model = fields.text("model")
    if not fields.has("query"):
        raise unprocessable("query is missing", "query", code="missing")
    query = body["query"]
    query = query[0] if isinstance(query, list) and len(query) == 1 else query
    activation = fields.choice("activation", PAIR_ACTIVATIONS, "auto")
    top = fields.whole("top_n")
    returned = fields.flag("return_documents", False)
    rows = fields.choice("on_error", ON_ERROR, "fail") == "item"
    item = read_item(query, "query", limits)
    value = _multi_modal(fields.get("documents"))
    documents = read_items(value, "documents", limits)
    texts = [getattr(document, "text", None) for document in documents] if returned else None
    return Rerank(model, item, documents, activation, top, texts, rows)
