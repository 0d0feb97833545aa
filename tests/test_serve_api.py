"""The HTTP API answers every shape of request with what the Python API gives."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun import LabelSet, Siglip

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.serve.settings import ServeSettings
from tests.serving import DEMO, Client, bare, picture, serving, uri

NAMES = ("owl", "pizza", "key")
TEXTS = ("an owl", "Pizza!", "a key  on a table")


@pytest.fixture(scope="module")
def model(emoji_q4: Path) -> Iterator[Siglip]:
    with Siglip.load(emoji_q4) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def labels(model: Siglip) -> LabelSet:
    return model.label_set(["an owl", "a pizza", "a key"], template="a drawing of {}")


@pytest.fixture(scope="module")
def api(emoji_q4: Path, labels: LabelSet) -> Iterator[Client]:
    with serving(
        emoji_q4, ServeSettings(port=0, label_sets={"things": labels}, aliases=("siglip",))
    ) as client:
        yield client


def vectors(answer: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert answer.status == 200, answer.raw
    rows = answer.json["data"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert {row["object"] for row in rows} == {"embedding"}
    return np.array([row["embedding"] for row in rows], np.float32)


# ---- /v1/embeddings ----


def test_texts_as_openai_sends_them(api: Client, model: Siglip) -> None:
    expected = model.embed_texts(TEXTS).vectors
    answer = api.post("/v1/embeddings", {"model": "siglip", "input": list(TEXTS)})
    assert np.array_equal(vectors(answer), expected)
    assert answer.json["space"] == model.space
    assert answer.json["usage"] == {"prompt_tokens": 192, "total_tokens": 192}
    one = api.post("/v1/embeddings", {"input": TEXTS[0], "dimensions": 160, "user": "me"})
    assert np.array_equal(vectors(one), expected[:1])


def test_base64_is_little_endian_float32(api: Client, model: Siglip) -> None:
    for asked in (
        {"encoding_format": "base64"},
        {"embedding_type": "base64"},
        {"embedding_type": ["base64"]},
    ):
        answer = api.post("/v1/embeddings", {"input": TEXTS[0], **asked})
        raw = base64.b64decode(answer.json["data"][0]["embedding"])
        assert np.array_equal(np.frombuffer(raw, "<f4"), model.embed_texts(TEXTS[:1]).vectors[0])


def pictures_in_each_shape() -> list[tuple[str, Any]]:
    one = uri(picture("owl"))
    part = {"type": "image_url", "image_url": {"url": one}}
    return [
        ("data URI in input", {"input": one}),
        ("infinity", {"input": [one], "modality": "image"}),
        ("infinity, bare base64", {"input": [bare(picture("owl"))], "modality": "image"}),
        ("Jina", {"input": [{"image": one}], "normalized": True, "embedding_type": "float"}),
        ("Jina, bare base64", {"input": [{"image": bare(picture("owl"))}]}),
        ("OpenRouter", {"input": [{"content": [part]}], "input_type": "document"}),
        ("llama.cpp", {"input": [part]}),
        ("image_url as a string", {"input": {"type": "input_image", "image_url": one}}),
        ("vLLM", {"messages": [{"role": "user", "content": [part]}], "encoding_format": "float"}),
    ]


@pytest.mark.parametrize(("shape", "body"), pictures_in_each_shape(), ids=lambda value: str(value)[:30])
def test_pictures_in_each_shape(api: Client, model: Siglip, shape: str, body: dict[str, Any]) -> None:
    expected = model.embed_images([DEMO / "owl.png"]).vectors
    assert np.array_equal(vectors(api.post("/v1/embeddings", body)), expected), shape


def test_mixed_lists_keep_their_order(api: Client, model: Siglip) -> None:
    body = [
        TEXTS[0],
        uri(picture("owl")),
        {"text": TEXTS[1]},
        {"image": uri(picture("pizza"))},
        {"content": [{"type": "text", "text": TEXTS[2]}]},
        {"content": TEXTS[0]},
    ]
    texts = model.embed_texts(TEXTS).vectors
    images = model.embed_images([DEMO / "owl.png", DEMO / "pizza.png"]).vectors
    expected = np.stack([texts[0], images[0], texts[1], images[1], texts[2], texts[0]])
    assert np.array_equal(vectors(api.post("/v1/embeddings", {"input": body})), expected)


def test_a_data_uri_is_a_text_where_that_is_said(api: Client, model: Siglip) -> None:
    text = "data:image/png;base64,AAAA"
    answer = api.post("/v1/embeddings", {"input": text, "modality": "text"})
    assert np.array_equal(vectors(answer), model.embed_texts([text]).vectors)
    spoken = "data: the new oil"  # neither is what only begins alike
    assert np.array_equal(
        vectors(api.post("/v1/embeddings", {"input": spoken})), model.embed_texts([spoken]).vectors
    )


def test_what_there_is_to_know_of_an_item_stands_in_its_row(api: Client) -> None:
    long = api.post("/v1/embeddings", {"input": ["owl " * 100, "owl"]}).json["data"]
    assert "longer than the model reads" in long[0]["note"]
    assert "note" not in long[1]


def test_a_bad_item_fails_the_request_or_its_row(api: Client, model: Siglip) -> None:
    body = {"input": [TEXTS[0], uri(b"no picture"), "...", {"image": uri(picture())}]}
    refused = api.post("/v1/embeddings", body)
    assert refused.status == 422
    assert refused.error["param"] == "input[1]"
    rows = api.post("/v1/embeddings", {**body, "on_error": "item"})
    assert rows.status == 200
    found = rows.json["data"]
    assert [row["embedding"] is None for row in found] == [False, True, True, False]
    assert "is not a picture" in found[1]["error"]["message"]
    assert "punctuation" in found[2]["error"]["message"]
    assert np.array_equal(np.float32(found[3]["embedding"]), model.embed_images([picture()]).vectors[0])


# ---- /v1/classify ----


def classified(answer: Any) -> list[list[tuple[str, float]]]:
    assert answer.status == 200, answer.raw
    return [[(p["label"], p["score"]) for p in row["predictions"]] for row in answer.json["data"]]


def test_classify_gives_the_probabilities_of_the_python_api(api: Client, model: Siglip) -> None:
    labels = ["an owl", "a pizza", "a key"]
    body = {"input": [{"image": uri(picture(name))} for name in NAMES], "labels": labels}
    answer = api.post("/v1/classify", body)
    expected = [
        [(score.label, score.probability) for score in model.classify(DEMO / f"{name}.png", labels)]
        for name in NAMES
    ]
    assert classified(answer) == expected
    for row, scores in zip(answer.json["data"], expected, strict=True):
        assert (row["prediction"], row["score"]) == scores[0]
        assert row["object"] == "classification"


def test_classify_with_templates_activations_and_limits(api: Client, model: Siglip) -> None:
    body = {"input": uri(picture("owl")), "labels": ["owl", "pizza", "key"]}
    several = ["a {}", "a drawing of a {}"]
    labels = model.label_set(body["labels"], templates=several)
    images = model.embed_images([DEMO / "owl.png"])
    scores = model.score(images, labels)[0]
    answer = api.post("/v1/classify", {**body, "template": several, "activation": "logit"})
    assert classified(answer)[0] == [(score.label, score.logit) for score in scores]
    soft = classified(api.post("/v1/classify", {**body, "template": several, "activation": "softmax"}))[0]
    assert sum(score for _, score in soft) == pytest.approx(1, abs=1e-12)
    powers = np.exp(np.array([score.logit for score in scores]) - scores[0].logit)
    assert [s for _, s in soft] == pytest.approx(list(powers / powers.sum()), rel=1e-9)
    assert len(classified(api.post("/v1/classify", {**body, "top_k": 2}))[0]) == 2
    none = api.post("/v1/classify", {**body, "threshold": 1.0})
    assert classified(none) == [[]]
    assert none.json["data"][0]["prediction"] is None
    above = api.post(
        "/v1/classify", {**body, "activation": "logit", "threshold": scores[1].logit, "template": several}
    )
    assert len(classified(above)[0]) == 2


def test_classify_with_a_label_set_and_an_ensemble(api: Client, model: Siglip, labels: LabelSet) -> None:
    answer = api.post("/v1/classify", {"input": [uri(picture("owl"))], "label_set": "things"})
    images = model.embed_images([DEMO / "owl.png"])
    assert classified(answer)[0] == [(s.label, s.probability) for s in model.score(images, labels)[0]]
    ensemble = api.post(
        "/v1/classify", {"input": uri(picture()), "labels": ["owl"], "ensemble": "imagenet80"}
    )
    from sigrun.templates import IMAGENET_80

    expected = model.score(images, model.label_set(["owl"], templates=IMAGENET_80))[0][0]
    assert classified(ensemble)[0] == [("owl", expected.probability)]


def test_classify_keeps_an_error_in_its_row(api: Client) -> None:
    body = {"input": [{"image": uri(picture())}, {"image": "AAAA"}, {"text": "an owl"}], "labels": ["owl"]}
    rows = api.post("/v1/classify", body).json["data"]
    assert [bool(row["predictions"]) for row in rows] == [True, False, False]
    assert "is not a picture" in rows[1]["error"]["message"]
    assert "is a text" in rows[2]["error"]["message"]
    assert api.post("/v1/classify", {**body, "on_error": "fail"}).error["param"] == "input[2]"


# ---- /v1/score and /v1/rerank ----


def test_pairs_are_scored_in_each_shape(api: Client, model: Siglip) -> None:
    expected = [model.classify(DEMO / f"{n}.png", ["an owl"])[0] for n in NAMES]
    pictures = [{"image": uri(picture(name))} for name in NAMES]
    part = [{"type": "image_url", "image_url": {"url": uri(picture(name))}} for name in NAMES]
    for body in (
        {"data_1": "an owl", "data_2": pictures},
        {"text_1": ["an owl"], "text_2": [uri(picture(name)) for name in NAMES]},
        {"queries": "an owl", "documents": {"content": part}},
        {"queries": ["an owl"] * 3, "items": pictures},
    ):
        answer = api.post("/v1/score", body)
        assert answer.status == 200, answer.raw
        rows = answer.json["data"]
        assert [row["score"] for row in rows] == [score.probability for score in expected]
        assert answer.json["activation"] == "sigmoid"
    logits = api.post("/v1/score", {"data_1": "an owl", "data_2": pictures, "activation": "logit"})
    assert [row["score"] for row in logits.json["data"]] == [score.logit for score in expected]


def test_two_pictures_are_compared_by_their_cosine(api: Client, model: Siglip) -> None:
    answer = api.post("/v1/score", {"data_1": uri(picture("owl")), "data_2": uri(picture("pizza"))}).json
    a, b = model.embed_images([DEMO / "owl.png", DEMO / "pizza.png"]).vectors
    assert answer["activation"] == "cosine"
    assert answer["data"][0]["score"] == pytest.approx(float(a @ b), abs=1e-6)
    refused = api.post("/v1/score", {"data_1": "a", "data_2": "b", "activation": "sigmoid"})
    assert refused.status == 422
    mixed = api.post("/v1/score", {"data_1": "a", "data_2": ["b", uri(picture())]})
    assert "not comparable" in mixed.error["message"]
    body = {"data_1": "a", "data_2": ["b", uri(picture())], "activation": "cosine"}
    assert api.post("/v1/score", body).status == 200


def test_documents_are_ranked(api: Client, model: Siglip) -> None:
    labels = ["a key", "an owl", "a pizza"]
    answer = api.post("/v1/rerank", {"query": {"image": uri(picture("owl"))}, "documents": labels,
                                     "return_documents": True})  # fmt: skip
    expected = model.classify(DEMO / "owl.png", labels)
    rows = answer.json["results"]
    assert [row["document"]["text"] for row in rows] == [score.label for score in expected]
    # The product of another shape sums in another order.
    assert [row["relevance_score"] for row in rows] == pytest.approx(
        [score.probability for score in expected], rel=1e-5
    )
    assert [labels[row["index"]] for row in rows] == [score.label for score in expected]
    documents = [{"image": uri(picture(name))} for name in NAMES]
    best = api.post("/v1/rerank", {"query": "a pizza", "documents": documents, "top_n": 1}).json["results"]
    assert [row["index"] for row in best] == [1]
    body = {"query": "a pizza", "documents": [*documents, {"image": "AAAA"}]}
    assert api.post("/v1/rerank", body).error["param"] == "documents[3]"
    last = api.post("/v1/rerank", {**body, "on_error": "item"}).json["results"][-1]
    assert (last["index"], last["relevance_score"]) == (3, None)


# ---- what tells ----


def test_models_say_what_is_served(api: Client, model: Siglip) -> None:
    api.post("/v1/embeddings", {"input": ["a", uri(picture())]})
    listed = api.get("/v1/models").json
    (entry,) = listed["data"]
    assert entry == api.get(f"/v1/models/{entry['id']}").json == api.get("/v1/models/siglip").json
    assert entry["id"] == "emoji-siglip-patch10-60-q4_k_m"
    assert (entry["space"], entry["dimensions"]) == (model.space, 160)
    assert entry["label_sets"] == {"things": 3}
    assert entry["towers"]["image"]["loaded"]
    assert entry["towers"]["image"]["stored_bytes"] == model.info.tower_nbytes["image"]
    assert api.get("/v1/models/gpt-5").error["code"] == "model_not_found"


def test_another_model_is_refused_rather_than_impersonated(api: Client) -> None:
    for path, body in (
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/classify", {"input": uri(picture()), "labels": ["a"]}),
        ("/v1/score", {"data_1": "a", "data_2": "b"}),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    ):
        answer = api.post(path, {**body, "model": "text-embedding-3-small"})
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")


def test_health_and_metrics(api: Client) -> None:
    assert api.get("/health").json == {"status": "ok"}
    api.post("/v1/embeddings", {"input": "count me"})
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.raw.decode()
    assert 'sigrun_requests_total{route="/v1/embeddings",status="200"}' in text
    assert 'sigrun_tower_loaded{tower="text"} 1' in text
    assert 'sigrun_request_seconds_bucket{route="/v1/embeddings",le="+Inf"}' in text
    for line in text.splitlines():
        assert line.startswith("#") or (line.rpartition(" ")[2] and float(line.rpartition(" ")[2]) >= 0)


def test_the_log_holds_no_contents(api: Client) -> None:
    secret = "xylophone"
    api.post("/v1/embeddings", {"input": secret})
    api.post("/v1/classify", {"input": secret, "labels": [secret]})
    api.get(f"/{secret}?q={secret}")
    api.ask(secret.upper(), "/v1/models")
    assert len(api.log) >= 4
    assert secret not in str(api.log).lower()
    assert {"time", "client", "method", "route", "status", "ms"} <= set(api.log[-1])
