"""``sigrun serve`` under load: requests and pictures a second, waiting times, memory, and what overload does.

The server is a process of its own with the bundled model; clients are threads of this one, on the same machine, each
with a connection that it keeps. No item is sent twice, and every answer is compared with what the Python API gives.

    python -m benchmarks.serving
    python -m benchmarks.serving --seconds 2
"""

from __future__ import annotations

import argparse
import base64
import http.client
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.children import MIB
from benchmarks.exports import WORK, convert, need_room, say
from benchmarks.markdown import table
from sigrun import Siglip

EMOJI = Path(__file__).parent.parent / "examples" / "emoji_siglip"
ROOM = 100_000_000
CLIENTS = (1, 8, 32)
RETRY = 0.05  # seconds after which a client that was refused tries again
NEAR = 0.9999  # cosine with the expected vector; those of different items are far below
KINDS = {"text": 1, "picture": 1, "8 pictures": 8}  # items a request
OVERLOAD = ("--max-queue", "16", "--max-items", "4")
HURRIED = 32
EACH = 20  # requests of each client under overload


@dataclass
class Seen:
    """What clients saw.

    Attributes:
        seconds: how long each answered request took, tries that were refused left out.
        refused: answers 429.
        failed: other answers, and broken connections.
        wrong: vectors that are not the item's own.
        spent: wall time of all.
        peak_bytes: largest memory of the server, as it says itself while it works.
    """

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    wrong: int = 0
    spent: float = 0.0
    peak_bytes: int = 0


class Items:
    """Texts and pictures of which no two are the same bytes, with the vectors that they must get.

    A picture gets further bytes after its end, a text blanks, neither of which the model sees.
    """

    def __init__(self, artifact: Path, compute: str) -> None:
        files = sorted((EMOJI / "heldout" / "demo").glob("*.png"))
        self._names = [path.stem.replace("-", " ") for path in files]
        self._pictures = [path.read_bytes() for path in files]
        self._numbers = itertools.count()
        with Siglip.load(artifact, compute=compute) as model:
            self._vectors = {
                "text": model.embed_texts(self._names).vectors,
                "picture": model.embed_images(self._pictures).vectors,
            }

    def request(self, kind: str) -> tuple[bytes, NDArray[np.float32]]:
        """A body for ``/v1/embeddings``, and the vectors that answer it, float32 [items, width]."""
        tower = "text" if kind == "text" else "picture"
        numbers = [next(self._numbers) for _ in range(KINDS[kind])]
        places = [number % len(self._names) for number in numbers]
        if tower == "text":
            given: list[Any] = [self._names[p] + blanks(n) for n, p in zip(numbers, places, strict=True)]
        else:
            given = [
                {"image": base64.b64encode(self._pictures[p] + b"%d" % n).decode("ascii")}
                for n, p in zip(numbers, places, strict=True)
            ]
        body = json.dumps({"input": given, "encoding_format": "base64"}).encode()
        return body, self._vectors[tower][places]


def blanks(number: int) -> str:
    """A number as blanks and tabs."""
    return "".join(" \t"[bit == "1"] for bit in f" {number:b}")


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of an answer."""
        self._connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


@contextmanager
def server(artifact: Path, compute: str, *more: str) -> Iterator[int]:
    """A server as a user starts it, both towers in memory; gives its port."""
    command = [sys.executable, "-m", "sigrun", "serve", str(artifact), "--port", "0", "--quiet"]
    options = ["--compute", compute, "--preload", "image", "--preload", "text", *more]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line:
            sys.exit("the server did not start")
        yield int(line.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def resident(port: int) -> int:
    """Memory of the server in bytes; 0 where its system does not say."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith("sigrun_resident_bytes "):
                return int(float(line.split()[1]))
        return 0
    finally:
        connection.close()


def load(port: int, items: Items, kind: str, clients: int, more: Callable[[int], bool]) -> Seen:
    """Let clients ask for as long as ``more`` says of the number of answers that one has."""
    seen, lock, ended = Seen(), threading.Lock(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            seen.peak_bytes = max(seen.peak_bytes, resident(port))

    def run() -> None:
        client, answered = Client(port), 0
        try:
            while more(answered):
                with lock:
                    body, expected = items.request(kind)
                answered += 1
                _until_taken(client, body, expected, seen, lock)
        finally:
            client.close()

    watcher = threading.Thread(target=watch)
    threads = [threading.Thread(target=run) for _ in range(clients)]
    watcher.start()
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen.spent = time.perf_counter() - begin
    ended.set()
    watcher.join()
    return seen


def _until_taken(
    client: Client, body: bytes, expected: NDArray[np.float32], seen: Seen, lock: threading.Lock
) -> None:
    """Ask until the answer is not that there is too much to do."""
    while True:
        begin = time.perf_counter()
        try:
            status, answer = client.ask(body)
        except (OSError, http.client.HTTPException):
            status, answer = 0, b""
        seconds = time.perf_counter() - begin
        if status == 429:
            with lock:
                seen.refused += 1
            time.sleep(RETRY)
            continue
        wrong = 0 if status != 200 else _wrong(answer, expected)
        with lock:
            seen.failed += status != 200
            seen.wrong += wrong
            if status == 200:
                seen.seconds.append(seconds)
        return


def _wrong(answer: bytes, expected: NDArray[np.float32]) -> int:
    """How many vectors of an answer are missing or belong to another item."""
    rows = [base64.b64decode(row["embedding"]) for row in json.loads(answer)["data"]]
    found = np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), -1)
    if found.shape != expected.shape:
        return len(expected)
    return int((np.einsum("ij,ij->i", found, expected) < NEAR).sum())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="for each line (default: %(default)g)")
    parser.add_argument("--compute", default="int8")
    parser.add_argument("--artifact", type=Path, help="default: the bundled model as q4_k_m")
    chosen = parser.parse_args(arguments)
    need_room(ROOM)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        path = (
            chosen.artifact
            or convert(EMOJI / "emoji-siglip-patch10-60", "q4_k_m", Path(folder), "--no-verify").path
        )
        items = Items(path, chosen.compute)
        found: dict[tuple[str, int], Seen] = {}
        with server(path, chosen.compute) as port:
            before = resident(port)
            for kind in KINDS:
                for clients in CLIENTS:
                    say(f"{kind} a request, {clients} clients")
                    end = time.monotonic() + chosen.seconds
                    found[kind, clients] = load(
                        port, items, kind, clients, lambda _, end=end: time.monotonic() < end
                    )
            after = resident(port)
        say("overload")
        with server(path, chosen.compute, *OVERLOAD) as port:
            hurried = load(port, items, "picture", HURRIED, lambda answered: answered < EACH)
    print(markdown(found, before, after, hurried, chosen.compute))
    return 0


def markdown(found: dict[tuple[str, int], Seen], before: int, after: int, hurried: Seen, compute: str) -> str:
    """The table, and what is said below it."""
    rows = []
    for (kind, clients), seen in found.items():
        times = sorted(seen.seconds) or [float("nan")]
        rate = len(seen.seconds) / seen.spent
        rows.append(
            [
                kind,
                str(clients),
                f"{rate:,.0f}",
                f"{rate * KINDS[kind]:,.0f}",
                f"{1000 * statistics.median(times):.1f} ms",
                f"{1000 * times[int(0.95 * len(times))]:.1f} ms",
                f"{seen.peak_bytes / MIB:,.0f} MiB",
            ]
        )
    every = [*found.values(), hurried]
    answered = sum(len(seen.seconds) for seen in every)
    return "\n\n".join(
        [
            f"`sigrun serve` with the bundled model in form {compute}, `/v1/embeddings` over loopback; clients on the "
            "same machine, drawings of 240 × 240 pixels.",
            table(
                ["a request holds", "clients", "requests/s", "items/s", "p50", "p95", "server's memory"], rows
            ),
            f"Memory of the server: {before / MIB:,.0f} MiB with both towers loaded, {after / MIB:,.0f} MiB after all "
            "of it.",
            f"Overload: {HURRIED} clients with {EACH} pictures each, one a request, against `{' '.join(OVERLOAD)}`: "
            f"{len(hurried.seconds)} of {HURRIED * EACH} answered, {hurried.refused} times 429, after which a client "
            f"waits {1000 * RETRY:.0f} ms and asks again.",
            f"Of all {answered:,} answers {sum(seen.wrong for seen in every)} held a vector of another item; "
            f"{sum(seen.failed for seen in every)} requests failed otherwise.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
