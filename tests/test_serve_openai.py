"""OpenAI's own Python client against our server, unchanged but for its address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sigrun import Siglip

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")
openai = pytest.importorskip("openai", reason="needs the package openai")

from openai.types import CreateEmbeddingResponse  # noqa: E402

from sigrun.serve.settings import Limits, ServeSettings  # noqa: E402
from tests.serving import DEMO, Client, picture, serving, uri  # noqa: E402

TOKEN = "sk-a-token-of-ours"
TEXTS = ["an owl", "a slice of pizza"]


@pytest.fixture(scope="module")
def api(emoji_q4: Path) -> Iterator[Client]:
    with serving(emoji_q4, ServeSettings(port=0, token=TOKEN, limits=Limits(items=64))) as client:
        yield client


@pytest.fixture
def client(api: Client) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=TOKEN, max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def model(emoji_q4: Path) -> Iterator[Siglip]:
    with Siglip.load(emoji_q4) as loaded:
        yield loaded


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_texts_and_pictures(client: openai.OpenAI, model: Siglip, encoding: str | None) -> None:
    """Without an encoding the client asks for base64 and decodes it itself."""
    options = {} if encoding is None else {"encoding_format": encoding}
    given = [TEXTS[0], uri(picture("owl")), TEXTS[1]]
    answer = client.embeddings.create(model="emoji-siglip-patch10-60", input=given, **options)
    texts = model.embed_texts(TEXTS).vectors
    expected = [texts[0], model.embed_images([DEMO / "owl.png"]).vectors[0], texts[1]]
    assert [row.index for row in answer.data] == [0, 1, 2]
    for row, vector in zip(answer.data, expected, strict=True):
        found = row.embedding
        if encoding == "base64":  # asked for by name, it is handed on as it came
            import base64

            assert isinstance(found, str)
            found = np.frombuffer(base64.b64decode(found), "<f4").tolist()
        assert np.array_equal(np.float32(found), vector)
    assert answer.usage.total_tokens == 2 * 64 + 36
    assert answer.model == "emoji-siglip-patch10-60-q4_k_m"


def test_one_text_and_the_shapes_of_others(client: openai.OpenAI, model: Siglip) -> None:
    one = client.embeddings.create(model="emoji-siglip-patch10-60", input=TEXTS[0])
    assert np.array_equal(np.float32(one.data[0].embedding), model.embed_texts(TEXTS[:1]).vectors[0])
    expected = model.embed_images([DEMO / "owl.png"]).vectors[0]
    infinity = client.embeddings.create(
        model="emoji-siglip-patch10-60", input=[uri(picture("owl"))], extra_body={"modality": "image"}
    )
    assert np.array_equal(np.float32(infinity.data[0].embedding), expected)
    part = {"type": "image_url", "image_url": {"url": uri(picture("owl"))}}
    vllm = client.post(
        "/embeddings",
        cast_to=CreateEmbeddingResponse,
        body={"messages": [{"role": "user", "content": [part]}], "encoding_format": "float"},
    )
    assert np.array_equal(np.float32(vllm.data[0].embedding), expected)


def test_models(client: openai.OpenAI) -> None:
    (entry,) = client.models.list().data
    assert entry.id == "emoji-siglip-patch10-60-q4_k_m"
    assert client.models.retrieve(entry.id).owned_by == "sigrun"


def test_errors_become_the_clients_own(client: openai.OpenAI, api: Client) -> None:
    model = "emoji-siglip-patch10-60"
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.embeddings.create(model=model, input=["good", uri(b"no picture")])
    assert caught.value.param == "input[1]"
    assert "is not a picture" in caught.value.message
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions can only be 160"):
        client.embeddings.create(model=model, input="a", dimensions=64)
    with pytest.raises(openai.UnprocessableEntityError, match="token ids"):
        client.embeddings.create(model=model, input=[1, 2, 3])
    stranger = openai.OpenAI(base_url=f"{api.url}/v1", api_key="sk-wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.embeddings.create(model=model, input="a")


def test_the_asynchronous_client(api: Client, model: Siglip) -> None:
    import asyncio

    async def ask() -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
        async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key=TOKEN) as client:
            calls = (
                client.embeddings.create(model="emoji-siglip-patch10-60", input=f"text {n}")
                for n in range(16)
            )
            return [np.float32(answer.data[0].embedding) for answer in await asyncio.gather(*calls)]

    expected = model.embed_texts([f"text {n}" for n in range(16)]).vectors
    assert np.array_equal(np.stack(asyncio.run(ask())), expected)
