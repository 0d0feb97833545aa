"""The thread of an engine: a model, and the jobs that take turns with it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sigrun import forking
from sigrun.jobs import Call, Job, Outbox, Progress

if TYPE_CHECKING:
    from sigrun.embeddings import EmbeddedPicture
    from sigrun.model import Siglip
    from sigrun.pictures import Picture

T = TypeVar("T")


@dataclass(eq=False)
class Task(Generic[T]):
    """A call of the model that tells of its progress.

    Attributes:
        job: the job.
        function: is given the model, and what to call with the number of items done since the last call.
        progress: tells the user.
        short: it is done before anything long goes on.
    """

    job: Job[T]
    function: Callable[[Siglip, Callable[[int], object]], T]
    progress: Progress
    short: bool


@dataclass(eq=False)
class Run:
    """Pictures that are embedded one after the other.

    Attributes:
        job: the job.
        pictures: asked for on the engine's thread.
        features: give the last hidden state, too.
        outbox: where rows go; while it is full, the run waits.
        progress: tells the user.
    """

    job: Job[int]
    pictures: Iterable[Picture]
    features: bool
    outbox: Outbox
    progress: Progress
    rows: Iterator[EmbeddedPicture] | None = None

    @property
    def ready(self) -> bool:
        """Whether there is something to do for it now."""
        return self.job.done() or not self.outbox.full

    def next(self, model: Siglip) -> EmbeddedPicture | None:
        """The next row, none after the last."""
        if self.rows is None:
            self.rows = model.iter_images(self.pictures, features=self.features)
        return next(self.rows, None)

    def close(self) -> None:
        """End the threads that decode."""
        if self.rows is not None:
            self.rows.close()  # type: ignore[attr-defined]  # it is a generator


class Turns:
    """Does what it is given, on one thread at a time, which is there while there is something to do.

    A thread that waited for work would have to be woken when the interpreter ends; this one is never found waiting.

    Args:
        open_model: opens the model; called when it is first needed, and again if that failed.
    """

    def __init__(self, open_model: Callable[[], Siglip]) -> None:
        self._open = open_model
        self._model: Siglip | None = None
        self.closed = False
        self._lock = threading.RLock()
        self._jobs: set[Job[Any]] = set()  # that are not done
        self._short: deque[Task[Any]] = deque()
        self._long: deque[Task[Any]] = deque()
        self._runs: deque[Run] = deque()
        self._worker: threading.Thread | None = None
        forking.watch(self)

    def __len__(self) -> int:
        return len(self._jobs)

    def job(self, call: Call) -> Job[Any]:
        """A job that is yet to be given work."""
        return Job(call, self._finished, lambda: threading.current_thread() is self._worker)

    def add(self, work: Task[Any] | Run) -> bool:
        """Take work on; false if there will be none any more."""
        with self._lock:
            if self.closed:
                return False
            self._jobs.add(work.job)
            if isinstance(work, Run):
                self._runs.append(work)
            else:
                (self._short if work.short else self._long).append(work)
        self.wake()
        return True

    def wake(self) -> None:
        """See to it that there is a thread if there is anything to do. Where none can be had, all jobs fail."""
        with self._lock:
            if self._worker is not None or not self._due():
                return
            self._worker = threading.Thread(target=self._work, name="sigrun-engine")
            try:
                self._worker.start()
                return
            except RuntimeError as error:  # too many threads, or the interpreter is about to end
                self._worker, problem = None, error
                jobs, self._jobs = self._jobs, set()
        for job in jobs:
            job.fail(problem)

    def close(self, wait: bool) -> None:
        """Cancel all jobs and give the model back."""
        with self._lock:
            self.closed = True
            jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        self.wake()
        with self._lock:
            worker = self._worker
        if wait and worker is not None and worker is not threading.current_thread():
            worker.join()

    def after_fork(self) -> None:
        """In a forked child: the thread and those that it started are not there."""
        self._lock = threading.RLock()
        forking.keep_for_ever(
            (self._runs, self._long, self._short)
        )  # to destroy them would be to wait for threads
        self._short, self._long, self._runs = deque(), deque(), deque()
        self._worker = None
        jobs, self._jobs = self._jobs, set()
        for job in jobs:
            job.drop()

    def _finished(self, job: Job[Any]) -> None:
        with self._lock:
            self._jobs.discard(job)
        self.wake()

    def _due(self) -> bool:
        waiting = self._short or self._long or any(run.ready for run in self._runs)
        return bool(waiting) or (self.closed and self._model is not None)

    # ---- on the thread ----

    def _work(self) -> None:
        try:
            self._work_on()
        except BaseException:  # a callback on this thread raised what ends threads, such as SystemExit
            with self._lock:
                self._worker = None
            self.wake()
            raise

    def _work_on(self) -> None:
        while True:
            self._end_with_the_interpreter()
            with self._lock:
                if not self._due():
                    self._worker = None
                    return
            self._turn(within=False)
            with self._lock:
                over = self.closed and not (self._short or self._long or self._runs)
                model = self._model if over else None
                if over:
                    self._model = None
            if model is not None:
                model.close()

    def _end_with_the_interpreter(self) -> None:
        """Close when the main thread has ended: the interpreter is about to end, and waits for this thread."""
        if not threading.main_thread().is_alive():
            self.close(wait=False)

    def _turn(self, *, within: bool) -> None:
        """Do what is short, then a picture of every run, then a long task, unless this is ``within`` one."""
        self._do_short()
        for _ in range(len(self._runs)):
            run = self._runs[0]
            self._runs.rotate(-1)
            if run.ready:
                if not self._step(run):
                    with self._lock:
                        self._runs.remove(run)
                self._do_short()
        if self._long and not within:
            self._do(self._long.popleft())

    def _do_short(self) -> None:
        while self._short:
            self._do(self._short.popleft())

    def _do(self, task: Task[Any]) -> None:
        def progress(count: int) -> None:
            self._end_with_the_interpreter()
            if not task.job.done():
                task.progress.advance(count)
                if not task.short:
                    self._turn(within=True)
            if task.job.done():
                raise _Stopped

        if task.job.done():
            return
        try:
            task.job.succeed(task.function(self._opened(), progress))
        except BaseException as error:
            task.job.fail(error)

    def _step(self, run: Run) -> bool:
        """Embed a picture of a run; false if it has come to its end."""
        if run.job.done():
            with contextlib.suppress(Exception):
                run.close()
            return False
        try:
            row = run.next(self._opened())
        except BaseException as error:
            run.outbox.complete(error)
            return False
        if row is None:
            run.outbox.complete()
            return False
        try:
            run.outbox.put(row)
            run.progress.advance(1)
        except BaseException as error:  # callbacks cannot be called
            run.job.fail(error)
        return True

    def _opened(self) -> Siglip:
        if self._model is None:
            self._model = self._open()
        return self._model


class _Stopped(BaseException):
    """Ends a task whose job is over."""
