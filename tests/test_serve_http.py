"""Hostile HTTP: who may ask, for what, how much and how slowly."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
import zlib
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.serve.settings import MIB, ServeSettings
from tests.hostile import HEAD, lives_on, raw, served  # noqa: F401
from tests.serving import JSON, SMALL, Client, picture, serving, uri


def test_only_json_is_taken(api: Client) -> None:
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "image/png",
    ):
        answer = api.ask("POST", "/v1/embeddings", b'{"input": "a"}', {"content-type": kind})
        assert (answer.status, answer.error["code"]) == (415, "wrong_content_type")
    packed = api.ask("POST", "/v1/embeddings", zlib.compress(b"{}"), {**JSON, "content-encoding": "deflate"})
    assert packed.status == 415
    assert (
        api.ask(
            "POST", "/v1/embeddings", b'{"input": "a"}', {"content-type": "application/vnd.x+json"}
        ).status
        == 200
    )


def test_routes_and_methods_that_there_are_not(api: Client) -> None:
    for path in (
        "/v1/",
        "/v1/embeddings/",
        "/../etc/passwd",
        "/v1/models/..%2f..",
        "/%00",
        "/metrics/x",
        "//",
    ):
        assert api.get(path).status == 404, path
        assert api.get(path).error["message"]
    for method, path in (
        ("GET", "/v1/embeddings"),
        ("DELETE", "/v1/models"),
        ("TRACE", "/"),
        ("OPTIONS", "/v1/score"),
    ):
        answer = api.ask(method, path)
        assert answer.status == 405, (method, path)
        assert answer.headers["allow"]
    assert "access-control-allow-origin" not in api.ask("OPTIONS", "/v1/embeddings").headers


def test_other_names_and_other_sites_are_refused(api: Client) -> None:
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "a b",
        "[::1",
    ):
        answer = api.get("/v1/models", host=host)
        assert answer.status in (400, 421), host
        assert b"siglip" not in answer.raw
    for host in ("localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:80", "192.168.1.5"):
        assert api.get("/v1/models", host=host).status == 200, host
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{api.port + 1}", "file://"):
        assert api.get("/v1/models", origin=origin).status == 403, origin
    assert api.get("/v1/models", origin=api.url).status == 200
    assert all("evil" not in str(line) for line in api.log)


def test_pages_are_sent_with_a_strict_policy(api: Client) -> None:
    for path in ("/", "/docs"):
        answer = api.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_bodies_that_are_too_large(api: Client) -> None:
    claimed = raw(api, HEAD + b"content-length: 99999999999\r\n\r\n")
    assert b" 413 " in claimed.split(b"\r\n")[0]
    sent = api.ask("POST", "/v1/embeddings", b'{"input": "' + b"a" * (2 * MIB) + b'"}', JSON)
    assert (sent.status, sent.error["code"]) == (413, "too_large")
    part = b"%x\r\n" % MIB + b"a" * MIB + b"\r\n"
    chunked = raw(api, HEAD + b"transfer-encoding: chunked\r\n\r\n" + part * 3 + b"0\r\n\r\n")
    assert b" 413 " in chunked.split(b"\r\n")[0]


def test_slow_senders_are_let_go(api: Client) -> None:
    begin = time.monotonic()
    answer = raw(api, HEAD + b"content-length: 100\r\n\r\n", b'{"in', wait=0.2)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert raw(api, b"POST /v1/emb", wait=0.1) == b"", "a head that never ends"
    assert raw(api) == b"", "a connection on which nothing is said"
    assert time.monotonic() - begin < 15


def test_an_answer_that_nobody_reads_is_not_kept(api: Client) -> None:
    labels = [f"{n} " + "a" * 9_900 for n in range(15)]
    body = json.dumps({"input": [uri(picture())] * 64, "labels": labels}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((api.host, api.port))
        head = HEAD.replace(b"embeddings", b"classify")
        connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        time.sleep(2.0 * SMALL.body_seconds + 1.5)
        connection.settimeout(20)
        found = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 20):
                found += part
    head, _, came = found.partition(b"\r\n\r\n")
    assert b" 200 OK" in head
    assert len(came) < int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]


def test_requests_that_are_not_http(api: Client) -> None:
    for nonsense in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        HEAD + b"x: " + b"a" * 200_000 + b"\r\n\r\n",
    ):
        answer = raw(api, nonsense)
        assert answer == b"" or answer.split(b"\r\n")[0].split()[1] in (b"400", b"413", b"421", b"431")


def test_an_answer_that_nobody_waits_for_leaves_nothing(api: Client) -> None:
    body = json.dumps({"input": [f"text number {n}" for n in range(64)]}).encode()
    for _ in range(5):
        with socket.create_connection((api.host, api.port)) as connection:
            connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    end = time.monotonic() + 20
    while any(tower.depth for tower in api.service.engine.towers.values()):
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- tokens ----


def test_a_token_is_asked_for(emoji_q4: Path) -> None:
    token = "correct-horse-battery"
    with serving(emoji_q4, ServeSettings(port=0, token=token)) as client:
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            for header in ({}, {"authorization": "Bearer"}, {"authorization": "Bearer wrong"},
                           {"authorization": f"Basic {token}"}, {"authorization": f"Bearer {token}x"},
                           {"authorization": token}):  # fmt: skip
                answer = client.get(path, **header)
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), (path, header)
        assert client.post("/v1/embeddings", {"input": "a"}).status == 401
        good = {"authorization": f"Bearer {token}"}
        assert client.post("/v1/embeddings", {"input": "a"}, good).status == 200
        assert client.get("/metrics", **good).status == 200
        for path in ("/", "/docs", "/health", "/openapi.json"):
            assert client.get(path).status == 200
        assert token not in str(client.log)
