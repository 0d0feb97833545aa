"""The OpenAPI description of the routes: what a request may hold, and what comes back."""

from __future__ import annotations

from typing import Any

from sigrun import __version__
from sigrun.serve.items import MODALITIES
from sigrun.serve.search_request import MOST_TERMS, MOST_WEIGHT, THUMBNAILS, TOP
from sigrun.serve.settings import Limits
from sigrun.serve.shapes import ACTIVATIONS, MOST_TEMPLATES, ON_ERROR, PAIR_ACTIVATIONS, PAIRS
from sigrun.templates import ENSEMBLES

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_ERRORS = {
    "400": "the body is not JSON",
    "401": "the token is missing or wrong",
    "403": "a page of another site asked",
    "404": "the model asked for is not served here, or there is no index",
    "405": "the route does not take that method",
    "408": "the request came too slowly",
    "409": "another variant of the model made the index",
    "413": "the request is too large",
    "415": "the content-type is not application/json",
    "421": "the Host header names another server",
    "422": "the request cannot be meant; the message names the field and the item",
    "429": "too much is asked for at once; Retry-After says when to come again",
    "500": "the server failed",
    "503": "a tower is being loaded, or the server is stopping; Retry-After says when to come again",
    "504": "there was no answer in time",
}


def description(limits: Limits, *, token: bool) -> Schema:
    """The description as a JSON value.

    Args:
        limits: those that it states.
        token: whether clients must send a token.
    """
    schemas = {**_requests(limits), **_answers(), "Error": _error(), "ErrorObject": ERROR_OBJECT}
    paths = {
        "/v1/embeddings": _post(
            "EmbeddingRequest", "EmbeddingAnswer", "Embed texts and pictures", _EMBED_TEXT
        ),
        "/v1/classify": _post(
            "ClassifyRequest", "ClassifyAnswer", "Judge pictures by labels", _CLASSIFY_TEXT
        ),
        "/v1/score": _post("ScoreRequest", "ScoreAnswer", "Score pairs", _SCORE_TEXT),
        "/v1/rerank": _post("RerankRequest", "RerankAnswer", "Rank documents by a query", _RERANK_TEXT),
        "/v1/search": _post("SearchRequest", "SearchAnswer", "Search the index", _SEARCH_TEXT),
        THUMBNAILS + "{name}": _get(
            {}, "A small JPEG of a picture that was found", name=True, kind="image/jpeg"
        ),
        "/v1/models": _get({"$ref": "#/components/schemas/Models"}, "What is served"),
        "/v1/models/{name}": _get({"$ref": "#/components/schemas/Model"}, "One model", name=True),
        "/health": _get({"$ref": "#/components/schemas/Health"}, "Whether the server lives"),
        "/metrics": _get(_TEXT, "Counts and times in Prometheus' text format", kind="text/plain"),
    }
    found: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Sigrun",
            "version": __version__,
            "description": "A SigLIP model on this machine: vectors of texts and pictures, and how well they fit.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
        found["paths"]["/health"]["get"]["security"] = []
    return found


_EMBED_TEXT = (
    "One vector of unit length an item, in order. input is one item or a list of them: a text; a picture as a data URI "
    "(data:image/…;base64,…); {text} or {image} as Jina's clients send them; {content: [part]} as OpenRouter's do, "
    "with one part of type text or image_url. With modality: image every string is a picture. In the place of input, "
    "messages may hold one text or picture, as vLLM's clients send it. Addresses of pictures are fetched from hosts "
    "that the server was told to allow."
)
_CLASSIFY_TEXT = (
    "How well each label fits each picture, best first. The default activation, sigmoid, gives each label a "
    "probability of its own; they do not sum to 1. A picture that cannot be read gets an error in its row, unless "
    "on_error is fail."
)
_SCORE_TEXT = (
    "The score of each pair: of a text and a picture their probability (sigmoid), of two texts or two pictures their "
    "cosine. One item on the left goes with each on the right."
)
_RERANK_TEXT = (
    "The documents, best first, by their score with the query: texts by a picture, or pictures by a text."
)


_SEARCH_TEXT = (
    "Pictures of the server's index, best first. query is a text or a picture, in the shapes of /v1/embeddings, or a "
    "list of both; an object may have a weight, below 0 against. Of a single text, probability says how likely it "
    "fits; of a single picture there is a cosine; of several terms score ranks and is no probability. With a "
    "threshold, only pictures that each text that counts for fits with that probability. Paths are below the indexed "
    "folder."
)


def _post(request: str, answer: str, summary: str, text: str) -> Schema:
    body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{request}"}}}
    ok = {
        "description": "done",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}},
    }
    return {
        "post": {
            "summary": summary,
            "description": text,
            "operationId": request.removesuffix("Request").lower(),
            "requestBody": {"required": True, "content": body},
            "responses": {"200": ok} | _failures(),
        }
    }


def _get(schema: Schema, summary: str, *, name: bool = False, kind: str = "application/json") -> Schema:
    content = {kind: {"schema": schema}}
    operation: Schema = {
        "summary": summary,
        "responses": {"200": {"description": "done", "content": content}} | _failures(),
    }
    if name:
        operation["parameters"] = [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        ]
    return {"get": operation}


def _failures() -> Schema:
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {status: {"description": text, "content": schema} for status, text in _ERRORS.items()}


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def _maybe(schema: Schema, text: str = "") -> Schema:
    """A field that may be null, which is as if it were absent."""
    found: Schema = {"anyOf": [schema, {"type": "null"}]}
    return found | ({"description": text} if text else {})


def _enum(values: tuple[str, ...] | list[str], text: str = "") -> Schema:
    return _maybe({"type": "string", "enum": list(values)}, text)


def _items(limits: Limits) -> dict[str, Schema]:
    text = {"type": "string", "minLength": 1}
    url = {"anyOf": [text, _object(("url",), url=text)]}
    part = {
        "anyOf": [
            _object(("text",), type={"enum": ["text", "input_text"]}, text=text),
            _object(("image",), type={"enum": ["image", "image_url", "input_image"]}, image=text),
            _object(("image_url",), type={"enum": ["image", "image_url", "input_image"]}, image_url=url),
        ]
    }
    contents = {"anyOf": [text, {"$ref": "#/components/schemas/Part"}]}
    one = {"type": "array", "items": contents, "minItems": 1, "maxItems": 1}
    item = {
        "anyOf": [
            text,
            {"$ref": "#/components/schemas/Part"},
            _object(("content",), content={"anyOf": [text, one]}),
        ]
    }
    several = {
        "anyOf": [
            {"$ref": "#/components/schemas/Item"},
            {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Item"},
                "minItems": 1,
                "maxItems": limits.items,
            },
        ]
    }
    return {"Part": part, "Item": item, "Items": several}


def _requests(limits: Limits) -> dict[str, Schema]:
    items = {"$ref": "#/components/schemas/Items"}
    model = _maybe(_TEXT, "the model's id; another is refused")
    labels = {
        "type": "array", "items": {"type": "string", "minLength": 1, "maxLength": limits.text_characters},
        "minItems": 1, "maxItems": limits.items,
    }  # fmt: skip
    template = {"type": "string", "pattern": r"\{\}", "maxLength": limits.text_characters}
    whole = {"type": "integer", "minimum": 1}
    failing = _enum(
        ON_ERROR, "item: an item that cannot be used gets an error in its row; fail: the request fails"
    )
    message = _object(("content",), role=_TEXT, content={"anyOf": [_TEXT, {"type": "array"}]})
    embed = _object(
        (),
        model=model,
        input=items,
        messages={
            "type": "array",
            "items": message,
            "minItems": 1,
            "description": "one text or picture, in place of input",
        },
        modality=_enum(MODALITIES, "what strings are; auto: data URIs are pictures, all else is text"),
        encoding_format=_enum(["float", "base64"], "base64: of little-endian float32"),
        embedding_type={"description": "Jina's name for encoding_format"},
        dimensions=_maybe(whole, "the model's own width, or nothing"),
        normalized=_maybe({"const": True}),
        on_error=failing,
    )
    embed["anyOf"] = [{"required": ["input"]}, {"required": ["messages"]}]
    classify = _object(
        ("input",),
        model=model,
        input=items,
        labels=_maybe(labels),
        label_set=_maybe(_TEXT, "the name of a label set that the server loaded, in place of labels"),
        template=_maybe(
            {
                "anyOf": [
                    template,
                    {"type": "array", "items": template, "minItems": 1, "maxItems": MOST_TEMPLATES},
                ]
            },
            "a sentence with {} where the label goes; of several the mean is taken",
        ),
        ensemble=_enum(sorted(ENSEMBLES), "a named list of templates"),
        activation=_enum(ACTIVATIONS),
        threshold=_maybe({"type": "number"}, "keep labels that score so much"),
        top_k=_maybe(whole, "keep so many"),
        on_error=failing,
    )
    activation = _enum(PAIR_ACTIVATIONS)
    sides = dict.fromkeys((name for pair in PAIRS for name in pair), items)
    score = _object((), model=model, activation=activation, on_error=failing, **sides)
    score["anyOf"] = [{"required": list(pair)} for pair in PAIRS]
    rerank = _object(
        ("query", "documents"),
        model=model,
        query={"$ref": "#/components/schemas/Item"},
        documents=items,
        top_n=_maybe(whole),
        return_documents=_maybe({"type": "boolean"}, "give each text back with its score"),
        activation=activation,
        on_error=failing,
    )
    far = {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_WEIGHT}
    near = {"type": "number", "minimum": -MOST_WEIGHT, "exclusiveMaximum": 0}
    weight = _maybe({"anyOf": [far, near]}, "how much it counts; below 0, against; 1 if it is not given")
    term: Schema = {"allOf": [{"$ref": "#/components/schemas/Item"}, {"properties": {"weight": weight}}]}
    terms = {"anyOf": [term, {"type": "array", "items": term, "minItems": 1, "maxItems": MOST_TERMS}]}
    search = _object(
        ("query",),
        model=model,
        query=terms,
        top=_maybe({**whole, "maximum": limits.hits}, f"so many; {TOP}, or with a threshold {limits.hits}"),
        threshold=_maybe({"type": "number", "minimum": 0, "maximum": 1}),
    )
    found = {
        "EmbeddingRequest": embed,
        "SearchRequest": search,
        "ClassifyRequest": classify,
        "ScoreRequest": score,
        "RerankRequest": rerank,
    }
    return found | _items(limits)


def _answers() -> dict[str, Schema]:
    number = {"type": "number"}
    count = {"type": "integer", "minimum": 0}
    error = {"$ref": "#/components/schemas/ErrorObject"}
    usage = _object(("prompt_tokens", "total_tokens"), prompt_tokens=count, total_tokens=count)
    vector = {"anyOf": [{"type": "array", "items": number}, {"type": "string"}, {"type": "null"}]}
    embedding = _object(("object", "index", "embedding"), object={"const": "embedding"}, index=count, embedding=vector,
                        note=_TEXT, error=error)  # fmt: skip
    predicted = _object(
        ("label", "score", "logit", "cosine"), label=_TEXT, score=number, logit=number, cosine=number
    )
    classification = _object(
        ("object", "index", "predictions"), object={"const": "classification"}, index=count, prediction=_maybe(_TEXT),
        score=_maybe(number), predictions={"type": "array", "items": predicted}, note=_TEXT, error=error,
    )  # fmt: skip
    pair = _object(
        ("index", "object", "score"),
        index=count,
        object={"const": "score"},
        score=_maybe(number),
        error=error,
    )
    ranked = _object(("index", "relevance_score"), index=count, relevance_score=_maybe(number),
                     document=_object(("text",), text=_TEXT), error=error)  # fmt: skip
    hit = _object(("object", "index", "path", "score", "thumbnail"), object={"const": "hit"}, index=count, path=_TEXT,
                  score=number, cosine=number, logit=number, probability=number, thumbnail=_TEXT)  # fmt: skip
    model = _object(("id", "object", "created", "owned_by", "space", "dimensions", "towers"), id=_TEXT,
                    object={"const": "model"}, created=count, owned_by=_TEXT, space=_TEXT, dimensions=count,
                    towers={"type": "object"}, index=_maybe(_object((), pictures=_maybe(count))))  # fmt: skip

    def listing(rows: Schema, field: str = "data", *more: str) -> Schema:
        properties = {
            "object": {"const": "list"}, "model": _TEXT, "usage": usage, field: {"type": "array", "items": rows}
        }  # fmt: skip
        return _object(("object", "model", "usage", field, *more), **properties, **dict.fromkeys(more, _TEXT))

    return {
        "EmbeddingAnswer": listing(embedding, "data", "space"),
        "ClassifyAnswer": listing(classification, "data", "activation"),
        "ScoreAnswer": listing(pair, "data", "activation", "id"),
        "RerankAnswer": listing(ranked, "results", "activation", "id"),
        "SearchAnswer": _object(
            ("object", "model", "space", "searched", "usage", "data"), object={"const": "list"}, model=_TEXT,
            space=_TEXT, searched=count, usage=usage, data={"type": "array", "items": hit},
        ),
        "Model": model,
        "Models": _object(("object", "data"), object={"const": "list"},
                          data={"type": "array", "items": {"$ref": "#/components/schemas/Model"}}),
        "Health": _object(("status",), status={"enum": ["ok", "loading"]}),
    }  # fmt: skip


def _error() -> Schema:
    return _object(("error",), error={"$ref": "#/components/schemas/ErrorObject"})


ERROR_OBJECT = _object(
    ("message", "type", "param", "code"), message=_TEXT, type=_TEXT, param=_maybe(_TEXT), code=_maybe(_TEXT)
)
