"""An engine's callbacks: where they are called, slow consumers, cancelling."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from sigrun.engine import FEW, ROOM
from tests.engine_model import PATIENCE, SlowEngine, Window, soon

TEXTS = [f"text {number}" for number in range(FEW + 1)]  # too many to go first


@pytest.fixture
def engine() -> Iterator[SlowEngine]:
    with SlowEngine() as made:
        yield made
        made.model.let(None)


# ---- callbacks ----


def test_callbacks_come_through_call_and_in_order() -> None:
    window = Window()
    here = threading.get_ident()
    said: list[object] = []

    def say(what: object) -> None:
        assert threading.get_ident() == here
        said.append(what)

    with SlowEngine(call=window.call) as engine:
        engine.model.let(None)
        job = engine.images("abc", on_row=lambda row: say(row.row), on_progress=lambda *done: say(done))
        job.add_done_callback(lambda done: say(str(done)))
        window.run(lambda: "<Job done>" in said)
        assert [what for what in said if not isinstance(what, tuple)] == [0, 1, 2, "<Job done>"]
        assert (3, 3) in said
        job.add_done_callback(lambda done: say("again"))
        window.run(lambda: "again" in said)


def test_progress_is_told_as_it_is_now_and_does_not_pile_up() -> None:
    window = Window()
    said: list[tuple[int, int | None]] = []
    with SlowEngine(call=window.call) as engine:
        engine.model.let(None)
        engine.texts(TEXTS, on_progress=lambda *done: said.append(done)).result(PATIENCE)
        assert len(window.waiting) == 1
        window.run(lambda: bool(said))
        assert said == [(len(TEXTS), len(TEXTS))]


@pytest.mark.parametrize("through", ["call", "thread"])
def test_a_callback_that_raises_fails_its_job_alone(through: str) -> None:
    window = Window()
    with SlowEngine(call=window.call if through == "call" else None) as engine:
        engine.model.let(None)
        good: list[int] = []
        one = engine.images(itertools.count(), on_row=lambda row: 1 // (3 - row.row))
        two = engine.images(range(5), on_row=lambda row: good.append(row.row))
        if through == "call":
            window.run(lambda: one.done() and two.done())
        assert isinstance(one.exception(PATIENCE), ZeroDivisionError)
        assert two.result(PATIENCE) == 5
        assert good == [0, 1, 2, 3, 4]
        if through == "thread":
            three = engine.texts(TEXTS, on_progress=lambda done, total: [][done])
            assert isinstance(three.exception(PATIENCE), IndexError)
        soon(lambda: engine.model.ended == 2)


def test_where_callbacks_cannot_be_called_the_job_fails() -> None:
    def gone(function: object) -> None:
        raise RuntimeError("the window is gone")

    with SlowEngine(call=gone) as engine:
        engine.model.let(None)
        job = engine.images(itertools.count(), on_row=lambda row: None)
        with pytest.raises(RuntimeError, match="the window is gone"):
            job.result(PATIENCE)
        assert len(engine.texts(["a"]).result(PATIENCE)) == 1


# ---- slow consumers ----


def test_computing_waits_for_a_slow_consumer() -> None:
    window = Window()
    asked = itertools.count()
    with SlowEngine(call=window.call) as engine:
        engine.model.let(None)
        rows: list[int] = []
        job = engine.images(asked, on_row=lambda row: rows.append(row.row))
        soon(lambda: len(engine.model.log) == ROOM)
        assert len(engine.texts(["a"]).result(PATIENCE)) == 1, "others need not wait"
        assert len(window.waiting) == ROOM
        assert next(asked) == ROOM, "no more pictures were asked for"
        soon(lambda: engine._turns._worker is None)  # nothing spins
        window.run(lambda: len(rows) == 1)
        soon(lambda: len(window.waiting) == ROOM)
        assert len(engine.model.log) == ROOM + 2  # and the text
        assert not job.done()
        assert job.cancel()
        soon(lambda: engine.model.ended == 1)


def test_a_slow_consumer_still_gets_the_rows_before_an_error() -> None:
    window = Window()
    rows: list[int] = []

    def pictures() -> Iterator[int]:
        yield from (0, 1, 2)
        raise OSError("the camera is gone")

    with SlowEngine(call=window.call) as engine:
        engine.model.let(None)
        job = engine.images(pictures(), on_row=lambda row: rows.append(row.row))  # type: ignore[arg-type]
        soon(lambda: engine.model.ended == 1)
        assert not job.done()
        window.run(job.done)
        assert rows == [0, 1, 2]
        assert isinstance(job.exception(), OSError)


# ---- cancelling ----


def test_cancelled_within_a_picture_and_silent_at_once() -> None:
    window = Window()
    rows: list[int] = []
    with SlowEngine(call=window.call) as engine:
        job = engine.images(itertools.count(), on_row=lambda row: rows.append(row.row), on_progress=print)
        engine.model.let(3)
        soon(lambda: len(engine.model.begun) == 4)
        window.run(lambda: len(rows) == 2)
        assert job.cancel()
        assert job.cancelled()
        assert job.done()
        with pytest.raises(CancelledError):
            job.result(0)
        engine.model.let(None)
        soon(lambda: engine.model.ended == 1)
        assert engine.model.log == [0, 1, 2, 3]
        while window.waiting:
            window.waiting.popleft()()
        assert rows == [0, 1]
        assert job.cancel(), "cancelled is cancelled"


@pytest.mark.parametrize("kind", ["texts", "all"])
def test_long_tasks_end_within_an_item(engine: SlowEngine, kind: str) -> None:
    job = engine.images(range(100)) if kind == "all" else engine.texts(TEXTS)
    engine.model.let(2)
    soon(lambda: len(engine.model.begun) == 3)
    assert job.cancel()
    engine.model.let(1)
    engine.do(lambda model: None).result(PATIENCE)
    assert len(engine.model.log) == 3


def test_what_has_not_begun_never_begins(engine: SlowEngine) -> None:
    engine.images(itertools.count(), on_row=lambda row: None)
    soon(lambda: engine.model.begun == [0])
    jobs = [engine.texts(["a"]), engine.images(["b"], on_row=print), engine.images("cd")]
    assert all(job.cancel() for job in jobs)
    engine.model.let(4)
    soon(lambda: len(engine.model.log) == 4)
    assert engine.model.log == [0, 1, 2, 3]


def test_a_job_that_is_done_cannot_be_cancelled(engine: SlowEngine) -> None:
    engine.model.let(None)
    job = engine.texts(["a"])
    job.result(PATIENCE)
    assert not job.cancel()
    assert not job.cancelled()
    assert job.exception() is None
