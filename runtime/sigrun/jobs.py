"""Something that an engine was asked to do: wait for it, await it, cancel it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from sigrun.embeddings import EmbeddedPicture

T = TypeVar("T")
Call = Callable[[Callable[[], object]], object]
"""Has a function called, now or later, on whatever thread it belongs to."""


class Job(Generic[T]):
    """What becomes of a request to an engine. Safe to use from several threads.

    Cancelled, it is over at once for those who wait for it, and none of its callbacks is called any more; the engine
    drops what it was computing within one picture.
    """

    def __init__(self, call: Call, finished: Callable[[Job[Any]], object], here: Callable[[], bool]) -> None:
        self._future: Future[T] = Future()
        self._call = call
        self._here = here  # whether this thread is the one that would do the job
        self._claimed = False  # a thread is about to end it
        self._claiming = threading.Lock()
        self._future.add_done_callback(lambda _: finished(self))

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled() else "done" if self.done() else "under way"
        return f"<Job {state}>"

    def cancel(self) -> bool:
        """Stop it. False if it was done before."""
        return self._future.cancel()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._future.cancelled()

    def done(self) -> bool:
        """Whether it has a result, failed or was cancelled."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result. Not for threads that must not wait, such as that of a user interface.

        Raises:
            SigrunError: the job failed. What a callback raised is raised as it is.
            concurrent.futures.CancelledError: it was cancelled, or the engine closed.
            TimeoutError: it takes longer.
            RuntimeError: this is the engine's own thread, which would wait for itself.
        """
        self._refuse_to_wait()
        return self._future.result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait, and tell what it failed with, if it did; otherwise as :meth:`result`."""
        self._refuse_to_wait()
        return self._future.exception(timeout)

    def add_done_callback(self, function: Callable[[Job[T]], object]) -> None:
        """Have ``function(job)`` called when it is done, however that came; at once if it is already.

        It is called through the engine's ``call``, and without one on whatever thread ended the job.
        """
        self._future.add_done_callback(lambda _: self._call(lambda: function(self)))

    def __await__(self) -> Generator[Any, None, T]:
        """Await it in asyncio. Cancelling the task that awaits cancels the job."""
        import asyncio

        return asyncio.wrap_future(self._future).__await__()

    # ---- for the engine ----

    def void(self) -> bool:
        """Whether it was cancelled or failed, so that nobody wants to hear of it any more."""
        future = self._future
        return future.done() and (future.cancelled() or future.exception() is not None)

    def succeed(self, value: T) -> None:
        """Give it its result, unless it was cancelled meanwhile."""
        if self._claim():
            self._future.set_result(value)

    def fail(self, error: BaseException) -> bool:
        """Give it what it failed with; false if it is done already."""
        if not self._claim():
            return False
        self._future.set_exception(error)
        return True

    def _claim(self) -> bool:
        """Whether this thread is the one to end it. A future complains if two threads try at once."""
        with self._claiming:
            if self._claimed or self._future.done():
                return False
            self._claimed = True
        return self._future.set_running_or_notify_cancel()

    def drop(self) -> None:
        """In a forked child, where nobody does it any more: cancel it without a lock that may be held for ever."""
        self._claiming = threading.Lock()
        self._future = Future()
        self._future.cancel()

    def _refuse_to_wait(self) -> None:
        if not self.done() and self._here():
            raise RuntimeError("the engine's own thread cannot wait for a job: it would wait for itself")


class Progress:
    """Tells how far a job is, leaving out what was overtaken before it could be told.

    Args:
        job: the job, which fails if the callback does.
        call: how callbacks are called.
        function: called with the number done and the number there is; the latter may be unknown.
        total: the number there is.
    """

    def __init__(
        self,
        job: Job[Any],
        call: Call,
        function: Callable[[int, int | None], object] | None,
        total: int | None,
    ) -> None:
        self._job, self._call, self._function, self._total = job, call, function, total
        self._done = 0
        self._due = False
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Note that so many more are done, and tell."""
        if self._function is None:
            return
        with self._lock:
            self._done += count
            due, self._due = self._due, True
        if not due:
            self._call(self._tell)

    def _tell(self) -> None:
        with self._lock:
            self._due, done = False, self._done
        function = self._function
        if function is not None:
            guarded(self._job, lambda: function(done, self._total))


class Outbox:
    """Rows on their way to a callback, of which only so many wait at a time.

    Args:
        job: the job, which fails if the callback does, and ends when the last row is out of the way.
        call: how callbacks are called.
        function: called with each row.
        room: most rows that wait.
        freed: called when there is room again.
        counted: a row is out of the way when it was given to ``function``; otherwise when :meth:`taken` says so.
    """

    def __init__(
        self,
        job: Job[int],
        call: Call,
        function: Callable[[EmbeddedPicture], object],
        *,
        room: int,
        freed: Callable[[], object],
        counted: bool = True,
    ) -> None:
        self._job, self._call, self._function = job, call, function
        self._room, self._freed, self._counted = room, freed, counted
        self._count = 0  # rows that were put in
        self._held = 0  # of those, rows that are not out of the way
        self._complete = False
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether there is no room."""
        return self._held >= self._room

    def put(self, row: EmbeddedPicture) -> None:
        """Send a row."""
        with self._lock:
            self._count += 1
            self._held += 1
        self._call(lambda: self._give(row))

    def complete(self, error: BaseException | None = None) -> None:
        """Note that there are no more rows, and what the job fails with after the last, if it does."""
        with self._lock:
            self._complete, self._error = True, error
            over = self._held == 0
        if over:
            self._end()

    def taken(self) -> None:
        """Note that a row is out of the way."""
        with self._lock:
            self._held -= 1
            freed = self._held == self._room - 1
            over = self._complete and self._held == 0
        if over:
            self._end()
        elif freed:
            self._freed()

    def _end(self) -> None:
        if self._error is None:
            self._job.succeed(self._count)
        else:
            self._job.fail(self._error)

    def _give(self, row: EmbeddedPicture) -> None:
        guarded(self._job, lambda: self._function(row))
        if self._counted:
            self.taken()


def guarded(job: Job[Any], function: Callable[[], object]) -> None:
    """Call a callback, unless its job was cancelled or failed. What it raises fails the job."""
    if job.void():
        return
    try:
        function()
    except BaseException as error:
        if not job.fail(error):
            raise
