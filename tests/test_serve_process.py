"""``sigrun serve`` as a process: told to stop and killed under load, and started again."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sigrun import Siglip

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from tests.serving import Client

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are of POSIX")

GONE = (ConnectionError, http.client.IncompleteRead, http.client.BadStatusLine)
"""What clients of a server that ended see."""


class Process:
    """``sigrun serve`` as a user starts it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sigrun", "serve", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "SIGRUN_CACHE": "off"},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2] or 0)
        self.api = Client("127.0.0.1", self.port, None, [])  # type: ignore[arg-type]

    def stop(self, number: int) -> tuple[int, str]:
        """Send a signal; gives the exit code, and what was said on stderr."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=40)
        return self.process.returncode, said


@pytest.fixture
def start(emoji_q4: Path) -> Iterator[Callable[..., Process]]:
    """Starts servers; ends those that the test leaves."""
    processes: list[Process] = []

    def start(port: int = 0) -> Process:
        found = Process(str(emoji_q4), "--preload", "text", "--port", str(port))
        processes.append(found)
        return found

    yield start
    for process in processes:
        if process.process.poll() is None:
            process.process.kill()
            process.process.communicate()


class Load:
    """Clients that ask without end, and check each answer against the model's own vectors."""

    def __init__(self, api: Client, model: Siglip, clients: int = 8, items: int = 20) -> None:
        self.whole: list[int] = []  # statuses of whole answers
        self.gone: list[str] = []
        self.ending = threading.Event()
        self._api = api
        texts = [f"text {n}" for n in range(60)]
        self._vectors = dict(zip(texts, model.embed_texts(texts).vectors, strict=True))
        self._texts, self._items = texts, items
        self._pool = ThreadPoolExecutor(clients)
        self._tasks = [self._pool.submit(self._run, seed) for seed in range(clients)]

    def _run(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while True:
            asked = [self._texts[n] for n in rng.integers(0, len(self._texts), self._items)]
            # Blanks at the end are not the model's business, and make each a text that was not computed before.
            body = {"input": [text + " " * int(rng.integers(1, 2000)) for text in asked]}
            try:
                answer = self._api.post("/v1/embeddings", body)
            except GONE as error:
                assert self.ending.is_set(), "the server went by itself"
                self.gone.append(type(error).__name__)
                return
            assert answer.status in (200, 503), answer.raw
            if answer.status == 200:
                rows = [np.float32(row["embedding"]) for row in answer.json["data"]]
                assert np.array_equal(rows, [self._vectors[text] for text in asked])
            self.whole.append(answer.status)

    def busy(self) -> None:
        """Wait until the server has much to do."""
        end = time.monotonic() + 30
        while len(self.whole) < 20:
            assert time.monotonic() < end
            time.sleep(0.01)
        self.ending.set()

    def finish(self) -> None:
        """Wait until each client found that there is no server any more."""
        for task in self._tasks:
            task.result(40)
        self._pool.shutdown()


@pytest.fixture(scope="module")
def model(emoji_q4: Path) -> Iterator[Siglip]:
    with Siglip.load(emoji_q4) as loaded:
        yield loaded


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_finishes_what_it_took(
    start: Callable[..., Process], model: Siglip, number: int
) -> None:
    """No request gets half an answer: each is answered whole, refused in words, or finds no server any more."""
    process = start()
    assert process.url.startswith("http://127.0.0.1:")
    load = Load(process.api, model)
    load.busy()
    code, said = process.stop(number)
    load.finish()
    assert code == 0, said
    assert "Traceback" not in said
    assert "IncompleteRead" not in load.gone
    logged = [json.loads(line) for line in said.splitlines()]
    assert {line["status"] for line in logged} <= {200, 503}
    assert sum(line["status"] == 200 for line in logged) == load.whole.count(200), (
        "what was taken was answered"
    )


def test_a_server_that_is_killed_tells_nothing_wrong_and_can_be_started_again(
    start: Callable[..., Process], model: Siglip
) -> None:
    """Clients see whole and right answers or a broken connection; the port is free at once."""
    process = start()
    load = Load(process.api, model)
    load.busy()
    code, _ = process.stop(signal.SIGKILL)
    load.finish()
    assert code == -signal.SIGKILL
    assert len(load.gone) == 8
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", process.port), timeout=5)
    again = start(process.port)
    assert again.port == process.port
    answer = again.api.post("/v1/embeddings", {"input": "text 1"})
    assert np.array_equal(
        np.float32(answer.json["data"][0]["embedding"]), model.embed_texts(["text 1"]).vectors[0]
    )
    assert again.stop(signal.SIGTERM)[0] == 0


def test_one_request_in_flight_is_answered_before_the_server_ends(
    start: Callable[..., Process], model: Siglip
) -> None:
    """Whoever was told to wait gets its answer, whole, after the signal."""
    process = start()
    texts = [f"number {n}" for n in range(800)]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(process.api.post, "/v1/embeddings", {"input": texts})
        end = time.monotonic() + 20
        while 'sigrun_queue_items{tower="text"} 0\n' in process.api.get("/metrics").raw.decode():
            assert time.monotonic() < end
        code, said = process.stop(signal.SIGTERM)
        answer = asked.result(40)
    assert code == 0, said
    assert answer.status == 200
    rows = np.float32([row["embedding"] for row in answer.json["data"]])
    assert np.array_equal(rows, model.embed_texts(texts).vectors)
