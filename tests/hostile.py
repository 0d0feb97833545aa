"""Fixtures for hostile requests: a server with limits that a test can reach, which each test must leave as it was."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sigrun.serve.settings import ServeSettings
from tests.serving import SMALL, Client, holds_nothing, serving

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module", name="api")
def served(emoji_q4: Path) -> Iterator[Client]:
    """A server."""
    with serving(emoji_q4, ServeSettings(port=0, limits=SMALL)) as client:
        yield client


@pytest.fixture(autouse=True)
def lives_on(api: Client) -> Iterator[None]:
    """After each test the server answers, and holds nothing any more."""
    yield
    assert api.post("/v1/embeddings", {"input": "still here"}).status == 200
    holds_nothing(api)


def raw(api: Client, *parts: bytes, wait: float = 0.0, seconds: float = 20) -> bytes:
    """What comes back on a bare connection until it ends, or nothing comes for so long."""
    with socket.create_connection((api.host, api.port), timeout=seconds) as connection:
        found = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            for part in parts:
                connection.sendall(part)
                time.sleep(wait)
            while more := connection.recv(65536):
                found += more
        return found
