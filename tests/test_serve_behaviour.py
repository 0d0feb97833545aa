"""How a server behaves over time: towers loaded and given back, overload, deadlines, and being stopped."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun import Siglip

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.serve.fetch import Fetcher
from sigrun.serve.memory import resident_bytes
from sigrun.serve.settings import Limits, ServeSettings
from tests.serving import JSON, Client, picture, serving, uri


def towers(api: Client) -> dict[str, bool]:
    """Which towers are in memory."""
    return {name: tower["loaded"] for name, tower in api.get("/v1/models").json["data"][0]["towers"].items()}


def until(condition: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_towers_are_loaded_at_first_use_and_given_back_when_idle(emoji_q4: Path) -> None:
    settings = ServeSettings(port=0, limits=Limits(idle_seconds=0.3, kept_vectors=0))
    with serving(emoji_q4, settings) as api:
        assert towers(api) == {"image": False, "text": False}
        first = api.post("/v1/embeddings", {"input": "an owl"}).json["data"]
        assert towers(api) == {"image": False, "text": True}
        until(lambda: towers(api) == {"image": False, "text": False})
        until(lambda: any(line.get("event") == "unloaded" for line in api.log))
        assert api.post("/v1/embeddings", {"input": "an owl"}).json["data"] == first
        assert towers(api)["text"]


class Gate:
    """Holds up the loading or the computing of a model."""

    def __init__(self, model: Siglip, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.calls = 0
        before = getattr(model, method)

        def held(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            self.reached.set()
            assert self.open.wait(30)
            return before(*arguments, **options)

        monkeypatch.setattr(model, method, held)


def test_a_tower_that_is_being_loaded_is_said(emoji_q4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(emoji_q4, ServeSettings(port=0, limits=Limits(load_seconds=0.1))) as api:
        gate = Gate(api.service.engine.model, "_session", monkeypatch)
        early = api.post("/v1/embeddings", {"input": "a"})
        assert (early.status, early.error["code"]) == (503, "loading")
        assert int(early.headers["retry-after"]) >= 1
        assert api.get("/health").json == {"status": "loading"}
        none = api.post("/v1/embeddings", {"input": "a"}, {"prefer": "wait=0"})
        assert none.status == 503
        with ThreadPoolExecutor(1) as pool:
            patient = pool.submit(
                api.post, "/v1/embeddings", {"input": "a"}, {"Prefer": "respond-async, wait=20"}
            )
            time.sleep(0.3)
            assert not patient.done()
            gate.open.set()
            assert patient.result(20).status == 200
        assert api.post("/v1/embeddings", {"input": "a"}).status == 200
        assert api.get("/health").json == {"status": "ok"}


def test_a_tower_that_is_being_loaded_holds_up_nothing_that_tells(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the watch over idle towers, which looks at each of them."""
    with serving(emoji_q4, ServeSettings(port=0, limits=Limits(idle_seconds=0.2))) as api:
        gate = Gate(api.service.engine.model._towers, "_load", monkeypatch)
        try:
            early = api.post("/v1/embeddings", {"input": uri(picture())}, {"prefer": "wait=0"})
            assert early.status == 503
            assert gate.reached.wait(10)
            time.sleep(0.3)
            with ThreadPoolExecutor(1) as pool:
                for path in ("/health", "/v1/models", "/metrics", "/"):
                    assert pool.submit(api.get, path).result(10).status == 200, path
        finally:
            gate.open.set()


def test_a_tower_that_took_long_to_load_is_not_idle_yet(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be given back before the client that was told to come again has come."""
    with serving(emoji_q4, ServeSettings(port=0, limits=Limits(idle_seconds=600))) as api:
        tower = api.service.engine.towers["text"]
        gate = Gate(api.service.engine.model, "_session", monkeypatch)
        assert api.post("/v1/embeddings", {"input": "a"}, {"prefer": "wait=0"}).status == 503
        tower.last_used -= 3600  # as if loading took an hour
        gate.open.set()
        until(lambda: tower.loaded and not tower.loading)
        assert time.monotonic() - tower.last_used < 600


def test_a_model_that_cannot_be_loaded_is_said_once_in_the_log(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sigrun.errors import ProviderError

    def fails(tower: str) -> None:
        raise ProviderError("the secret place /home/me is broken")

    with serving(emoji_q4) as api:
        monkeypatch.setattr(api.service.engine.model, "_session", fails)
        answer = api.post("/v1/embeddings", {"input": "a"})
        assert (answer.status, answer.error["code"]) == (503, "model_unavailable")
        assert "secret" not in answer.error["message"]


def test_what_was_not_foreseen_is_no_traceback(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("secret contents")

    with serving(emoji_q4) as api:
        monkeypatch.setattr(api.service.engine.model, "embed_texts", fails)
        answer = api.post("/v1/embeddings", {"input": "a"})
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert "secret" not in answer.error["message"]
        monkeypatch.undo()
        assert api.post("/v1/embeddings", {"input": "a"}).status == 200
    said = capfd.readouterr().err
    assert "secret" not in said
    assert "RuntimeError" in said


def test_an_answer_that_takes_too_long_is_given_up(emoji_q4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(emoji_q4, ServeSettings(port=0, limits=Limits(answer_seconds=0.3, batch=1))) as api:
        until(lambda: api.post("/v1/embeddings", {"input": "ready"}).status == 200)
        gate = Gate(api.service.engine.model, "embed_texts", monkeypatch)
        late = api.post("/v1/embeddings", {"input": [f"text {n}" for n in range(20)]})
        assert (late.status, late.error["code"]) == (504, "timeout")
        gate.open.set()
        until(lambda: api.service.engine.towers["text"].depth == 0)
        assert gate.calls <= 2, "what was not begun was dropped"
        until(lambda: api.post("/v1/embeddings", {"input": "again"}).status == 200)


def test_overload_is_said_and_nothing_is_lost_or_crossed(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many clients at once, more than the server takes: each gets its own answer or is told to come again."""
    texts = [f"picture number {n}" for n in range(120)]
    with Siglip.load(emoji_q4) as model:
        expected = dict(zip(texts, model.embed_texts(texts).vectors, strict=True))
    with serving(
        emoji_q4, ServeSettings(port=0, limits=Limits(queue=12, items=4, requests=24, kept_vectors=0))
    ) as api:
        api.post("/v1/embeddings", {"input": "ready"})
        gate = Gate(api.service.engine.model, "embed_texts", monkeypatch)
        refused: list[int] = []

        def ask(start: int) -> int:
            mine = [texts[(start + n) % len(texts)] for n in range(3)]
            for _ in range(400):
                answer = api.post("/v1/embeddings", {"input": mine})
                if answer.status == 429:
                    assert int(answer.headers["retry-after"]) >= 1
                    refused.append(start)
                    gate.open.set()  # let the tower go on once the queue has been full
                    time.sleep(0.02)
                    continue
                assert answer.status == 200, answer.raw
                for text, row in zip(mine, answer.json["data"], strict=True):
                    assert np.array_equal(np.float32(row["embedding"]), expected[text])
                return start
            raise AssertionError("never answered")

        with ThreadPoolExecutor(32) as pool:
            assert sorted(pool.map(ask, range(0, 120, 2))) == list(range(0, 120, 2))
        assert refused
        assert 'status="429"' in api.get("/metrics").raw.decode()
        assert (api.service.admission.requests, api.service.admission.nbytes) == (0, 0)


def test_what_one_tower_refuses_the_other_does_not_compute(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would wait for it: pictures of a request whose text found the queue full."""
    limits = Limits(queue=4, batch=1, kept_vectors=0)
    with serving(emoji_q4, ServeSettings(port=0, limits=limits)) as api:
        pictures = [uri(picture(name)) for name in ("owl", "key", "pizza")]
        assert api.post("/v1/embeddings", {"input": ["ready", pictures[0]]}).status == 200
        texts = Gate(api.service.engine.model, "embed_texts", monkeypatch)
        images = Gate(api.service.engine.model, "embed_images", monkeypatch)
        tower = api.service.engine.towers
        with ThreadPoolExecutor(1) as pool:
            patient = pool.submit(api.post, "/v1/embeddings", {"input": ["a", "b", "c", "d"]})
            until(lambda: tower["text"].depth == 4)
            try:
                refused = api.post("/v1/embeddings", {"input": [*pictures, "e"]})
                assert (refused.status, refused.error["code"]) == (429, "overloaded")
                assert tower["image"].depth <= 1, "what was begun before the refusal"
            finally:
                texts.open.set()
                images.open.set()
            assert patient.result(20).status == 200
        until(lambda: tower["image"].depth == 0)
        assert images.calls <= 1
        assert (api.service.admission.requests, api.service.admission.nbytes) == (0, 0)


class Fetched(Fetcher):
    """An internet of one picture."""

    async def fetch(self, url: str) -> bytes:
        return picture()


def test_pictures_that_were_fetched_are_bounded_over_all_requests(
    emoji_q4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short request can ask for much; what it fetched counts until it is answered."""
    settings = ServeSettings(port=0, limits=Limits(held_bytes=2 * len(picture()) + 100, kept_vectors=0))

    def ask(count: int) -> Any:
        body = {
            "input": [{"image": f"http://pictures.example/{n}"} for n in range(count)],
            "on_error": "item",
        }
        return api.post("/v1/embeddings", body)

    with serving(emoji_q4, settings, fetcher=lambda: Fetched(settings.fetch)) as api:
        assert ask(2).status == 200
        assert ask(3).status == 429, "nor can one have more"
        gate = Gate(api.service.engine.model, "embed_images", monkeypatch)
        with ThreadPoolExecutor(1) as pool:
            patient = pool.submit(ask, 2)
            try:
                assert gate.reached.wait(20)
                full = ask(1)
                assert (full.status, full.error["code"]) == (429, "overloaded")
                assert int(full.headers["retry-after"]) >= 1
                assert api.post("/v1/embeddings", {"input": "a text"}).status == 200
            finally:
                gate.open.set()
            assert patient.result(20).status == 200
        assert ask(2).status == 200
        assert api.service.engine._fetched == 0


def test_bytes_that_are_held_are_bounded(emoji_q4: Path) -> None:
    limits = Limits(body_bytes=1 << 20, held_bytes=2 << 20, body_seconds=20)
    with serving(emoji_q4, ServeSettings(port=0, limits=limits)) as api:
        head = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        open_ones = []
        for _ in range(2):
            connection = socket.create_connection((api.host, api.port))
            connection.sendall(head + b"content-length: 1000000\r\n\r\n" + b"x" * 999_000)
            open_ones.append(connection)
        until(lambda: api.service.admission.nbytes == 2 * 999_000)
        full = api.ask("POST", "/v1/embeddings", b"x" * 200_000, JSON)
        assert full.status == 429
        assert full.headers["retry-after"]
        for connection in open_ones:
            connection.close()
        until(lambda: api.service.admission.nbytes == 0)
        assert api.post("/v1/embeddings", {"input": "a"}).status == 200


def test_answers_are_sent_without_delay(emoji_q4: Path) -> None:
    """Otherwise each waits 40 ms for the client to acknowledge its head (Nagle's algorithm and delayed ACKs)."""
    with serving(emoji_q4) as api, socket.create_connection((api.host, api.port)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(100)
        (protocol,) = api.server.server_state.connections
        sent_by = protocol.transport.get_extra_info("socket")
        assert sent_by.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_connections_are_bounded(emoji_q4: Path) -> None:
    with serving(emoji_q4, ServeSettings(port=0, limits=Limits(connections=4))) as api:
        held = [socket.create_connection((api.host, api.port)) for _ in range(4)]
        time.sleep(0.2)
        with socket.create_connection((api.host, api.port), timeout=10) as more:
            assert more.recv(1) == b""
        for connection in held:
            connection.close()
        until(lambda: _answers(api))


def _answers(api: Client) -> bool:
    try:
        return api.get("/health").status == 200
    except OSError:
        return False


def test_memory_does_not_grow_with_requests(emoji_q4: Path) -> None:
    if resident_bytes() is None:
        pytest.skip("this system does not say how much memory a process holds")
    with serving(emoji_q4, ServeSettings(port=0, limits=Limits(kept_vectors=16))) as api:
        body = {"input": [uri(picture(name)) for name in ("owl", "key", "pizza")]}

        def ask(times: int) -> None:
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda _: api.post("/v1/embeddings", body).status, range(times)))
            assert set(answers) == {200}

        ask(60)
        before = resident_bytes()
        ask(150)
        after = resident_bytes()
        assert before is not None
        assert after is not None
        assert after - before < 32 << 20
        assert len(api.service.engine.towers["image"]._recent) <= 16


def test_equal_items_are_computed_once(emoji_q4: Path) -> None:
    with serving(emoji_q4) as api:
        api.post("/v1/embeddings", {"input": ["same"] * 10})
        api.post("/v1/embeddings", {"input": ["same", "same"]})
        assert 'sigrun_items_total{tower="text"} 1\n' in api.get("/metrics").raw.decode()
