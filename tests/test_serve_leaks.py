"""After a thousand hostile requests a server holds what it held before: memory, files, threads, and good answers."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="needs the extra serve")
pytest.importorskip("starlette", reason="needs the extra serve")

from sigrun.serve import memory
from sigrun.serve.memory import resident_bytes
from sigrun.serve.settings import MIB, Limits, ServeSettings
from tests.hostile import HEAD, raw
from tests.serving import SMALL, Client, bare, holds_nothing, picture, serving, uri
from tests.test_serve_framing import AMBIGUOUS, OTHERS, SECOND
from tests.test_serve_hostile import BODIES, DATA_URIS, PICTURES

FILES = Path("/proc/self/fd")


@pytest.fixture(scope="module")
def api(emoji_q4: Path) -> Iterator[Client]:
    with serving(emoji_q4, ServeSettings(port=0, limits=SMALL)) as client:
        yield client


def hostile() -> list[bytes]:
    """What the other tests send, each as the bytes of one connection."""
    sent = [found + SECOND for found in AMBIGUOUS.values()]
    sent += [found for found, _ in OTHERS.values()]
    bodies = [found for found, _ in BODIES.values()]
    bodies += [json.dumps({"input": [{"image": found}]}).encode() for found in DATA_URIS.values()]
    bodies += [json.dumps({"input": [uri(found)]}).encode() for found, _ in PICTURES.values()]
    for body in bodies:
        whole = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        sent += [whole, whole[: len(whole) // 2], whole.replace(b"/v1/embeddings", b"/v1/classify", 1)]
    return sent


def test_a_thousand_hostile_requests_leave_nothing(api: Client) -> None:
    rng = random.Random(0)
    cases = hostile()
    good = api.post("/v1/embeddings", {"input": ["a", uri(picture())]}).json["data"]

    def attack(count: int) -> None:
        chosen = rng.choices(cases, k=count)
        # Half of them go before there is an answer, as attackers do.
        patience = rng.choices((0.002, 0.2), k=count)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda case, seconds: raw(api, case, seconds=seconds), chosen, patience))

    def held() -> tuple[int, int, int]:
        holds_nothing(api)
        end = time.monotonic() + 10
        while api.server.server_state.connections and time.monotonic() < end:
            time.sleep(0.05)
        gc.collect()
        files = len(list(FILES.iterdir())) if FILES.exists() else 0
        return files, threading.active_count(), resident_bytes() or 0

    attack(300)
    files, threads, held_before = held()
    attack(700)
    later = held()
    assert later[0] <= files + 2
    assert later[1] <= threads + 1
    assert later[2] - held_before < 16 * MIB
    assert api.post("/v1/embeddings", {"input": ["a", uri(picture())]}).json["data"] == good
    assert not [line for line in api.log if line.get("status") == 500]


@pytest.mark.skipif(
    resident_bytes() is None, reason="this system does not say how much memory a process holds"
)
@pytest.mark.skipif(os.name != "posix", reason="the allocator of glibc is asked")
def test_what_a_large_picture_took_is_given_back(emoji_q4: Path) -> None:
    """Otherwise a single one would leave the server at the size of its largest moment for ever."""
    file = BytesIO()
    Image.new("L", (7000, 7000)).save(file, "PNG")
    body = {"input": [{"image": bare(file.getvalue())}]}
    with serving(emoji_q4, ServeSettings(port=0, limits=Limits())) as client:
        client.post("/v1/embeddings", {"input": [uri(picture())]})
        before = resident_bytes() or 0
        assert client.post("/v1/embeddings", body).status == 200
        end = time.monotonic() + 10
        while (resident_bytes() or 0) - before > 128 * MIB:  # what the picture took is twice that
            assert time.monotonic() < end
            time.sleep(0.05)


def test_what_is_still_held_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer on its way holds the picture a little longer than one waits before the first look."""
    asked: list[int] = []
    monkeypatch.setattr(memory, "resident_bytes", lambda: 200 if running and len(asked) < 3 else 100)
    monkeypatch.setattr(memory, "give_back_freed", lambda: asked.append(1))
    running = False

    async def ends() -> int | None:
        nonlocal running
        tide = memory.Tide(step=50, delay=0.001)
        running = True
        tide.request_ended()
        end = time.monotonic() + 10
        while tide._due and time.monotonic() < end:
            await asyncio.sleep(0.001)
        return tide._low

    assert asyncio.run(ends()) == 100
    assert len(asked) == 3
