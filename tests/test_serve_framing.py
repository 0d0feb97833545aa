"""Where one request ends and the next begins: nothing that two readers could see in two ways is taken."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import socket
import time

import pytest

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from tests.hostile import HEAD, lives_on, raw, served  # noqa: F401
from tests.serving import SMALL, Client

BODY = b'{"input": "a"}'
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"content-length: %d\r\n" % len(BODY)
SECOND = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def statuses(answer: bytes) -> list[int]:
    """The status of each answer on a connection."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d\d\d) ", answer)]


AMBIGUOUS = {
    "length and chunks": HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"transfer-encoding: chunked\r\n" + LENGTH + b"\r\n" + CHUNKED,
    "chunks in HTTP/1.0": HEAD.replace(b"/1.1", b"/1.0") + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED,
    "two lengths": HEAD + LENGTH + b"content-length: 1\r\n\r\n" + BODY,
    "a list of lengths": HEAD + b"content-length: 14, 1\r\n\r\n" + BODY,
    "a length with a sign": HEAD + b"content-length: +14\r\n\r\n" + BODY,
    "a hexadecimal length": HEAD + b"content-length: 0xe\r\n\r\n" + BODY,
    "a length in two parts": HEAD + b"content-length: 1 4\r\n\r\n" + BODY,
    "a length in Arabic digits": HEAD + "content-length: \u0661\u0664\r\n\r\n".encode() + BODY,
    "another coding": HEAD + b"transfer-encoding: xchunked\r\n\r\n" + CHUNKED,
    "two codings": HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n" + CHUNKED,
    "codings in two lines": HEAD
    + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n"
    + CHUNKED,
    "a blank before the colon": HEAD + b"transfer-encoding : chunked\r\n\r\n" + CHUNKED,
    "a vertical tab": HEAD + b"transfer-encoding:\x0bchunked\r\n\r\n" + CHUNKED,
    "a NUL": HEAD + b"x: a\0b\r\n" + LENGTH + b"\r\n" + BODY,
    "a bare CR": HEAD + b"x: a\rcontent-length: 3\r\n" + LENGTH + b"\r\n" + BODY,
    "a negative chunk": HEAD + b"transfer-encoding: chunked\r\n\r\n-1\r\n",
    "a chunk with a sign": HEAD + b"transfer-encoding: chunked\r\n\r\n+e\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk that is longer": HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\n" + BODY + b"\r\n0\r\n\r\n",
    "two hosts": SECOND.replace(b"host", b"host: evil.example\r\nhost", 1),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_that_ends_in_two_places_is_refused(api: Client, name: str) -> None:
    """With one answer, after which the connection ends: what follows is never taken for a request."""
    answer = raw(api, AMBIGUOUS[name] + SECOND)
    assert statuses(answer) == [400], answer[:500]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert json.loads(body)["error"]["message"]


UNUSUAL = {
    "the length twice": HEAD + LENGTH * 2 + b"\r\n" + BODY,
    "the length in a list": HEAD + b"content-length: 14, 14\r\n\r\n" + BODY,
    "chunks in capitals": HEAD + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNKED,
    "a chunk of each byte": HEAD + b"transfer-encoding: chunked\r\n\r\n"
    + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    "a trailer": HEAD + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED[:-2]
    + b"host: evil.example\r\ncontent-length: 3\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_only_unusual_is_taken(api: Client, name: str) -> None:
    answer = raw(api, UNUSUAL[name] + SECOND)
    assert statuses(answer) == [200, 200], answer[:500]
    assert b"embedding" in answer


def test_requests_in_one_breath_are_answered_in_turn(api: Client) -> None:
    asked = b"".join(
        b"GET /v1/models/%s HTTP/1.1\r\nhost: localhost\r\n\r\n"
        % (b"emoji-siglip-patch10-60" if n % 2 else b"none")
        for n in range(40)
    )
    assert statuses(raw(api, asked + SECOND)) == [404, 200] * 20 + [200]


OTHERS = {
    "HTTP/1.0": (b"GET /v1/models HTTP/1.0\r\nhost: localhost\r\n\r\n", 200),
    "HTTP/1.0 without a host": (b"GET /v1/models HTTP/1.0\r\n\r\n", 421),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 421),
    "an upgrade to HTTP/2": (SECOND[:-2] + b"upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n", 200),
    "a web socket": (SECOND[:-2] + b"upgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n", 200),
    "an address of elsewhere": (SECOND.replace(b"/v1", b"http://evil.example/v1"), 404),
    "a proxy's method": (SECOND.replace(b"GET /v1/models", b"CONNECT evil.example:443"), 404),
    "of the server": (SECOND.replace(b"GET /v1/models", b"OPTIONS *"), 404),
    "TRACE": (SECOND.replace(b"GET", b"TRACE").replace(b"close\r\n", b"close\r\nx-secret: 1234\r\n"), 405),
    "HEAD": (SECOND.replace(b"GET", b"HEAD"), 200),
    "HEAD of what is posted": (SECOND.replace(b"GET /v1/models", b"HEAD /v1/classify"), 405),
    "OPTIONS": (SECOND.replace(b"GET /v1/models", b"OPTIONS /v1/classify"), 405),
    "a body for GET": (SECOND[:-2] + LENGTH + b"\r\n" + BODY, 200),
    "an expectation": (HEAD + LENGTH + b"expect: magic\r\nconnection: close\r\n\r\n" + BODY, 200),
    "an expectation of much": (HEAD + b"content-length: 999999999\r\nexpect: 100-continue\r\n\r\n", 413),
    "a path of 60,000 letters": (SECOND.replace(b"/v1", b"/" + b"a" * 60_000), 404),
    "a path of no encoding": (SECOND.replace(b"/v1", b"/%ff%fe%00"), 404),
    "a path of bare bytes": (SECOND.replace(b"/v1", b"/\xff\xfe"), 400),
    "1,000 headers": (SECOND[:-2] + b"".join(b"x-%d: y\r\n" % n for n in range(1000)) + b"\r\n", 200),
    "packed": (HEAD + b"content-encoding: gzip\r\ncontent-length: 34\r\n\r\n" + gzip.compress(BODY), 415),
    "packed and not said": (
        HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(gzip.compress(b"[" * 10**6))
        + gzip.compress(b"[" * 10**6), 400,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_requests(api: Client, name: str) -> None:
    asked, status = OTHERS[name]
    answer = raw(api, asked)
    assert statuses(answer) == [status], answer[:500]
    assert b"1234" not in answer, "nothing is sent back"
    if b"HEAD" in asked[:4]:
        assert answer.endswith(b"\r\n\r\n")


def test_chunks_without_end_are_cut_off(api: Client) -> None:
    with socket.create_connection((api.host, api.port), timeout=10) as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        begin = time.monotonic()
        connection.settimeout(0.05)
        answer = b""
        while b"\r\n\r\n" not in answer:
            assert time.monotonic() - begin < 10
            with contextlib.suppress(TimeoutError):
                connection.sendall(b"1\r\n \r\n")
                answer += connection.recv(65536)
        assert time.monotonic() - begin >= SMALL.body_seconds
    assert statuses(answer) == [408]


def test_nonsense_after_an_answer_makes_no_noise(
    api: Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A chunk that is none, while the refusal of its request is still on the way or has been sent."""
    begun = HEAD.replace(b"application/json", b"text/plain") + b"transfer-encoding: chunked\r\n\r\n"
    for wait in (0.0, 0.05):
        for end in (b"zz\r\n", b"2\r\n{}xx"):
            assert set(statuses(raw(api, begun, b"1\r\n{\r\n", end, wait=wait))) <= {400, 415}
            assert statuses(raw(api, SECOND, end, wait=wait)) == [200]
    assert not caplog.records
    assert "Traceback" not in capfd.readouterr().err


def test_a_head_that_arrived_is_not_waited_for(api: Client) -> None:
    """A connection that was opened before is kept for as long as others are: the bound was on its first head."""
    connection = http.client.HTTPConnection(api.host, api.port, timeout=10)
    with contextlib.closing(connection):
        for wait in (1.3 * SMALL.body_seconds, 0):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            time.sleep(wait)
        assert connection.sock is not None
        connection.sock.sendall(b"GET /health HTTP/1.1\r\nhost: local")
        assert connection.sock.recv(1) == b"", "of a further request it is waited for again"


def test_many_idle_connections_hold_nobody_up(api: Client) -> None:
    with contextlib.ExitStack() as held:
        idle = [
            held.enter_context(socket.create_connection((api.host, api.port), timeout=10)) for _ in range(200)
        ]
        for number, connection in enumerate(idle):
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: local"[: number % 40])
        assert api.post("/v1/embeddings", {"input": "a"}).status == 200
        for connection in idle:
            assert connection.recv(1) == b"", "it is let go"
