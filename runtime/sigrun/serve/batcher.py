"""Items of many requests through one tower: a bounded queue, and a thread that takes a few at a time.

Requests take turns: each batch has one item of every request that waits, then a second of each, until it is full. A
request for one picture so never waits for all of one for a thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sigrun.errors import SigrunError
from sigrun.serve.errors import busy, unavailable

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


@dataclass(eq=False)
class _Job(Generic[T, R]):
    """The items of one request."""

    items: Sequence[T]
    done: asyncio.Future[list[R | SigrunError]]
    loop: asyncio.AbstractEventLoop
    results: list[R | SigrunError | None] = field(default_factory=list)
    taken: int = 0  # items that were given to a batch
    left: int = 0  # items without a result
    dropped: bool = False  # nobody waits for it any more


class Batcher(Generic[T, R]):
    """The queue and the thread of one tower.

    Args:
        name: the tower, for messages.
        run: computes a batch: a result or an error an item. Called in the thread, one batch at a time.
        batch: most items of a batch.
        queue: most items that wait or are computed.
        wait: gives the seconds to wait for a fuller batch; called in the thread.
        observe: called in the thread after each batch with the number of items and the seconds it took.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[T]], Sequence[R | SigrunError]],
        *,
        batch: int,
        queue: int,
        wait: Callable[[], float] = lambda: 0.0,
        observe: Callable[[int, float], object] = lambda count, seconds: None,
    ) -> None:
        self.name = name
        self._run = run
        self._batch = batch
        self._queue = queue
        self._wait = wait
        self._observe = observe
        self._jobs: deque[_Job[T, R]] = deque()
        self._tasks: deque[Callable[[], object]] = deque()
        self._waiting = 0  # items in the queue
        self._computing = 0
        self._closing = False
        self._seconds = 0.1  # an item's, a running mean
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"sigrun-serve-{name}", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Items that wait or are computed."""
        return self._waiting + self._computing

    def seconds_for(self, items: int) -> float:
        """An estimate of how long so many items take."""
        return items * self._seconds

    async def submit(self, items: Sequence[T]) -> list[R | SigrunError]:
        """The results of items, in order. Where the caller stops waiting, what was not begun is dropped.

        Raises:
            ApiError: the queue is full, or the server is stopping.
        """
        if not items:
            return []
        loop = asyncio.get_running_loop()
        job: _Job[T, R] = _Job(items, loop.create_future(), loop, [None] * len(items), left=len(items))
        with self._changed:
            if self._closing:
                raise unavailable("the server is stopping", 5, code="stopping")
            if self.depth + len(items) > self._queue:
                raise busy(
                    f"{self.depth} items wait for the {self.name} tower, and {len(items)} more would be more than "
                    f"the {self._queue} that may",
                    self.seconds_for(self.depth),
                )
            self._jobs.append(job)
            self._waiting += len(items)
            self._changed.notify_all()
        try:
            return await job.done
        finally:
            self._forget(job)

    async def do(self, task: Callable[[], S]) -> S:
        """Run something in the tower's thread between two batches."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[S] = loop.create_future()

        def work() -> None:
            try:
                result = task()
            except BaseException as error:
                _tell(loop, done, None, error)
            else:
                _tell(loop, done, result, None)

        with self._changed:
            if self._closing:
                raise unavailable("the server is stopping", 5, code="stopping")
            self._tasks.append(work)
            self._changed.notify_all()
        return await done

    def close(self, seconds: float) -> None:
        """Finish what waits, for so long at most, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)

    # ---- in the event loop's thread ----

    def _forget(self, job: _Job[T, R]) -> None:
        with self._changed:
            job.dropped = True
            if job in self._jobs:
                self._jobs.remove(job)
                self._waiting -= len(job.items) - job.taken

    # ---- in the tower's thread ----

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._jobs or self._tasks or self._closing):
                    self._changed.wait()
                task = self._tasks.popleft() if self._tasks else None
                if task is None and not self._jobs:
                    return
            if task is not None:
                task()
                continue
            places = self._take()
            if places:
                self._compute(places)

    def _take(self) -> list[tuple[_Job[T, R], int]]:
        """The items of a batch: one of each job in turn."""
        wait = self._wait()
        with self._changed:
            if wait > 0 and not self._closing:
                end = time.monotonic() + wait
                while self._waiting < self._batch and (left := end - time.monotonic()) > 0:
                    self._changed.wait(left)
            places: list[tuple[_Job[T, R], int]] = []
            while self._jobs and len(places) < self._batch:
                job = self._jobs.popleft()
                places.append((job, job.taken))
                job.taken += 1
                if job.taken < len(job.items):
                    self._jobs.append(job)
            self._waiting -= len(places)
            self._computing = len(places)
        return places

    def _compute(self, places: list[tuple[_Job[T, R], int]]) -> None:
        begin = time.monotonic()
        failure: BaseException | None = None
        results: Sequence[R | SigrunError] = ()
        try:
            results = self._run([job.items[index] for job, index in places])
            assert len(results) == len(places)
        except BaseException as error:  # the tower as a whole failed: every request of the batch learns of it
            failure = error
        seconds = time.monotonic() - begin
        with self._changed:
            self._computing = 0
            self._seconds = 0.8 * self._seconds + 0.2 * seconds / len(places)
            for number, (job, index) in enumerate(places):
                if failure is None:
                    job.results[index] = results[number]
                    job.left -= 1
                if (failure is not None or job.left == 0) and not job.dropped:
                    whole = [result for result in job.results if result is not None]
                    _tell(job.loop, job.done, whole, failure)
        self._observe(len(places), seconds)


def _tell(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[S], result: S | None, error: BaseException | None
) -> None:
    """Give a future of another thread's loop its result."""

    def give() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
        loop.call_soon_threadsafe(give)
