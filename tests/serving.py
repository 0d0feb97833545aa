"""A real server on a real socket, in a thread of the test's process, and plain HTTP to talk to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sigrun import Siglip
from sigrun.serve.app import Service
from sigrun.serve.fetch import Fetcher
from sigrun.serve.server import Server, bound, config_for
from sigrun.serve.settings import MIB, Limits, ServeSettings
from tests.checkpoints import ROOT

DEMO = ROOT / "examples" / "emoji_siglip" / "heldout" / "demo"
JSON = {"content-type": "application/json"}
SMALL = Limits(
    body_bytes=2 * MIB,
    held_bytes=8 * MIB,
    items=64,
    queue=256,
    predictions=1000,
    picture_bytes=MIB,
    body_seconds=1.0,
)
"""Limits that a test can reach."""


@dataclass(frozen=True)
class Answered:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        """The error object; its shape is checked."""
        found = self.json
        assert set(found) == {"error"}
        assert set(found["error"]) == {"message", "type", "param", "code"}
        assert isinstance(found["error"], dict)
        return found["error"]


class Client:
    """Plain HTTP to a server."""

    server: Server

    def __init__(self, host: str, port: int, service: Service, log: list[dict[str, Any]]) -> None:
        self.host = host
        self.port = port
        self.service = service
        self.log = log

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answered:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answered(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answered:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answered:
        return self.ask("POST", path, json.dumps(body).encode(), {**JSON, **(headers or {})})


@contextlib.contextmanager
def serving(
    artifact: Path, settings: ServeSettings | None = None, *, fetcher: Callable[[], Fetcher] | None = None
) -> Iterator[Client]:
    """A server of an artifact; it is stopped, and what it was doing finished, at the end."""
    settings = settings or ServeSettings(port=0)
    ready = threading.Event()
    found: dict[str, Any] = {}
    log: list[dict[str, Any]] = []

    async def main() -> None:
        with bound(settings) as listener:
            made = fetcher() if fetcher is not None else None
            service = Service(Siglip.load(artifact), settings, log=log.append, fetcher=made)
            found["server"] = server = Server(config_for(service))
            server.on_start = ready.set
            host, port = listener.getsockname()[:2]
            found["client"] = Client(host, port, service, log)
            found["client"].server = server
            await server.serve(sockets=[listener])

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            found["error"] = error
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="test-server")
    thread.start()
    assert ready.wait(60)
    if "error" in found:
        thread.join()
        raise found["error"]
    try:
        yield found["client"]
    finally:
        found["server"].should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        assert "error" not in found, found["error"]


def picture(name: str = "owl") -> bytes:
    """A demo drawing's file."""
    return (DEMO / f"{name}.png").read_bytes()


def bare(data: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(data).decode("ascii")


def uri(data: bytes, kind: str = "image/png") -> str:
    """Bytes as a data URI."""
    return f"data:{kind};base64,{bare(data)}"


def holds_nothing(client: Client, seconds: float = 10) -> None:
    """Wait until a server holds no request any more."""
    end = time.monotonic() + seconds
    while (client.service.admission.requests, client.service.admission.nbytes) != (0, 0):
        assert time.monotonic() < end
        time.sleep(0.01)
