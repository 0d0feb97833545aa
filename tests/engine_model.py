"""A stand-in for a model behind an engine: it logs what is asked of it, and computes when it is let."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from sigrun import EmbeddedPicture, Embeddings, Engine

PATIENCE = 30.0  # seconds, after which a test fails rather than hangs


class Slow:
    """Computes a picture or a text each time it is let, with :meth:`let`; any number after ``let(None)``."""

    def __init__(self) -> None:
        self.log: list[object] = []  # what was computed, in order
        self.begun: list[object] = []  # what computing was begun with
        self.ended = 0  # iterators that were ended
        self.closed = False
        self.threads: set[int] = set()
        self._free = False
        self._permits = threading.Semaphore(0)

    def let(self, count: int | None = 1) -> None:
        if count is None:
            self._free = True
        self._permits.release(count or 1)

    def _compute(self, item: object) -> None:
        self.threads.add(threading.get_ident())
        self.begun.append(item)
        if not self._free:
            assert self._permits.acquire(timeout=PATIENCE)
        self.log.append(item)

    def iter_images(self, pictures: Iterable[Any], *, features: bool = False) -> Iterator[EmbeddedPicture]:
        try:
            for row, picture in enumerate(pictures):
                self._compute(picture)
                yield EmbeddedPicture(row, np.full(2, row, np.float32))
        finally:
            self.ended += 1

    def embed_images(
        self, pictures: Iterable[Any], *, features: bool, on_progress: Callable[[int], object]
    ) -> Embeddings:
        return self._all(pictures, on_progress)

    def embed_texts(self, texts: Sequence[str], *, on_progress: Callable[[int], object]) -> Embeddings:
        return self._all(texts, on_progress)

    def _all(self, items: Iterable[Any], on_progress: Callable[[int], object]) -> Embeddings:
        count = 0
        for item in items:
            self._compute(item)
            on_progress(1)
            count += 1
        return Embeddings(np.zeros((count, 2), np.float32), "space")

    def close(self) -> None:
        self.closed = True


class SlowEngine(Engine):
    """An engine on a :class:`Slow` model."""

    def __init__(self, **options: Any) -> None:
        super().__init__("slow.gguf", **options)
        self.model = Slow()

    def _open(self) -> Any:
        return self.model


class Window:
    """What a user interface has: a thread with a queue of functions to call, here called by hand."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()

    def call(self, function: Callable[[], object]) -> None:
        with self._changed:
            self.waiting.append(function)
            self._changed.notify_all()

    def run(self, until: Callable[[], bool]) -> None:
        """Call what there is, and what comes, until something is so."""
        while not until():
            with self._changed:
                assert self._changed.wait_for(lambda: self.waiting, PATIENCE), "nothing comes"
                function = self.waiting.popleft()
            function()


def soon(true: Callable[[], object]) -> None:
    """Wait until something is so."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if true():
            return
        pause.wait(0.005)
    raise AssertionError("it never came to be so")
