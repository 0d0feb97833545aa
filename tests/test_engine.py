"""An engine's jobs: what they give, turns, errors, and closing."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigrun import ArtifactError, EmbeddedPicture, Engine, PictureError, Siglip, SigrunError, TextError
from sigrun.engine import FEW
from sigrun.jobs import Job
from tests.engine_model import PATIENCE, SlowEngine, soon
from tests.picture_files import stored

GREY = np.full((40, 50, 3), 99, np.uint8)
TEXTS = [f"text {number}" for number in range(FEW + 1)]  # too many to go first


@pytest.fixture
def engine() -> Iterator[SlowEngine]:
    with SlowEngine() as made:
        yield made
        made.model.let(None)


def test_it_gives_what_the_model_gives(emoji_q4: Path) -> None:
    pictures = [GREY, b"no picture", stored(), GREY[:9]]
    rows: list[EmbeddedPicture] = []
    told: list[tuple[int, int | None]] = []
    with Siglip.load(emoji_q4) as model, Engine(emoji_q4) as engine:
        expected = model.embed_images(pictures)
        job = engine.images(pictures, on_row=rows.append, on_progress=lambda *done: told.append(done))
        assert job.result(PATIENCE) == 4
        assert [row.row for row in rows] == [0, 1, 2, 3]
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
        for row in (0, 2, 3):
            assert rows[row].vector is not None
            assert np.array_equal(rows[row].vector, expected.vectors[row])  # type: ignore[arg-type]
        assert rows[1].vector is None
        assert isinstance(rows[1].error, PictureError)

        whole = engine.images(pictures, features=True).result(PATIENCE)
        assert np.array_equal(whole.vectors, expected.vectors, equal_nan=True)
        assert list(whole.errors) == [1]
        assert whole.features is not None
        assert np.array_equal(
            engine.texts(["red apple"]).result().vectors, model.embed_texts(["red apple"]).vectors
        )
        labels = engine.label_set(["owl", "red apple"], template="a {}").result(PATIENCE)
        assert labels.templates == ("a {}",)
        assert engine.classify(GREY, labels).result(PATIENCE) == model.classify(GREY, labels)
        assert engine.classify(GREY, ["owl", "key"], top=1).result() == model.classify(
            GREY, ["owl", "key"], top=1
        )
        assert engine.do(lambda own: own.self_test()).result(PATIENCE).passed
        assert set(engine.load(["image"]).result(PATIENCE).loaded) == {"image", "text"}


def test_making_one_loads_nothing_and_starts_nothing(emoji_q4: Path) -> None:
    code = (
        "import sys, threading; from sigrun import Engine; engine = Engine(sys.argv[1]); "
        "print(sorted({'numpy', 'PIL', 'onnxruntime', 'asyncio'} & set(sys.modules)), threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(emoji_q4)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "[] 1"


def test_nothing_of_it_is_left_when_there_is_nothing_to_do(emoji_q4: Path) -> None:
    before = set(threading.enumerate())
    with Engine(emoji_q4) as engine:
        engine.images([GREY, GREY]).result(PATIENCE)
        soon(lambda: set(threading.enumerate()) <= before)


# ---- turns ----


def test_short_jobs_go_before_the_next_picture(engine: SlowEngine) -> None:
    run = engine.images(itertools.count(), on_row=lambda row: None)
    soon(lambda: engine.model.begun)
    text = engine.texts(["a"])
    one = engine.images(["one picture"])
    engine.model.let(3)
    text.result(PATIENCE)
    one.result(PATIENCE)
    assert engine.model.log == [0, "a", "one picture"]
    assert not run.done()


def test_long_jobs_go_on_side_by_side(engine: SlowEngine) -> None:
    one = engine.images("abc", on_row=lambda row: None)
    other = engine.images("xyz", on_row=lambda row: None)
    many = engine.texts(TEXTS)
    soon(lambda: engine.model.begun)
    few = engine.texts(["few"])
    engine.model.let(None)
    assert (one.result(PATIENCE), other.result(PATIENCE)) == (3, 3)
    many.result(PATIENCE)
    few.result(PATIENCE)
    log = engine.model.log
    assert log[:2] == ["a", "few"]
    assert [item for item in log if item in TEXTS] == TEXTS
    for letters in ("abc", "xyz"):
        assert [item for item in log if str(item) in letters] == list(letters)
    assert log.index("z") < log.index(TEXTS[3]), "pictures waited for all of the texts"
    assert log.index("text 1") < log.index("c"), "texts waited for all of the pictures"
    assert log.index("x") < log.index("c"), "one run waited for all of the other"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["run", "all", "texts", "do"]), st.integers(0, 25)), max_size=8))
def test_every_job_ends_with_all_of_its_items(plan: list[tuple[str, int]]) -> None:
    with SlowEngine() as engine:
        engine.model.let(None)
        jobs = []
        rows: dict[int, list[int]] = {}
        for number, (kind, count) in enumerate(plan):
            if kind == "run":
                rows[number] = []
                jobs.append(
                    engine.images(iter(range(count)), on_row=lambda row, n=number: rows[n].append(row.row))
                )
            elif kind == "all":
                jobs.append(engine.images(range(count)))
            elif kind == "texts":
                jobs.append(engine.texts(["t"] * count))
            else:
                jobs.append(engine.do(lambda model, n=count: range(n)))
        for job, (kind, count) in zip(jobs, plan, strict=True):
            result = job.result(PATIENCE)
            assert (result if kind == "run" else len(result)) == count  # type: ignore[arg-type]
        assert all(rows[number] == list(range(plan[number][1])) for number in rows)
        assert engine.model.ended == len(rows)


# ---- errors ----


def test_what_pictures_raise_comes_after_the_rows_before(emoji_q4: Path) -> None:
    def pictures() -> Iterator[object]:
        yield GREY
        yield GREY
        raise OSError("the camera is gone")

    rows: list[int] = []
    with Engine(emoji_q4) as engine:
        job = engine.images(pictures(), on_row=lambda row: rows.append(row.row))  # type: ignore[arg-type]
        with pytest.raises(OSError, match="the camera is gone"):
            job.result(PATIENCE)
        assert rows == [0, 1]
        with pytest.raises(TextError):
            engine.texts([""]).result(PATIENCE)
        with pytest.raises(PictureError, match="must be a list"):
            engine.images("a.png", on_row=rows.append).result(PATIENCE)  # type: ignore[arg-type]


def test_a_model_that_cannot_be_opened_fails_its_jobs_until_it_can(tmp_path: Path, emoji_q4: Path) -> None:
    path = tmp_path / "später.gguf"
    with Engine(path) as engine:
        one, two = engine.load(), engine.images([GREY], on_row=print)
        assert isinstance(one.exception(PATIENCE), ArtifactError)
        assert isinstance(two.exception(PATIENCE), ArtifactError)
        path.write_bytes(emoji_q4.read_bytes())
        assert engine.load().result(PATIENCE).path == str(path)
    with Engine(emoji_q4, threads=0) as engine, pytest.raises(SigrunError, match="threads must be"):
        engine.load().result(PATIENCE)


def test_the_thread_does_not_wait_for_itself(engine: SlowEngine) -> None:
    engine.model.let(None)
    seen: list[BaseException] = []

    def row(done: EmbeddedPicture) -> None:
        with pytest.raises(RuntimeError, match="wait for itself") as error:
            engine.texts(["a"]).result()
        seen.append(error.value)

    assert engine.images(["a"], on_row=row).result(PATIENCE) == 1
    assert len(seen) == 1


def test_where_no_thread_can_be_had_jobs_fail_and_later_ones_do_not(
    engine: SlowEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    engine.model.let(None)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for ask in (
            lambda: engine.texts(["a"]),
            lambda: engine.images("bc", on_row=print),
            lambda: engine.texts(TEXTS),
        ):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                ask().result(PATIENCE)
        assert len(engine._turns) == 0
    assert len(engine.texts(["later"]).result(PATIENCE)) == 1
    assert engine.model.log == ["later"], "what failed is not done after all"


@pytest.mark.parametrize("first", ["succeed", "fail"])
@pytest.mark.parametrize("second", ["succeed", "fail"])
def test_two_threads_that_end_a_job_at_once_do_not_collide(
    first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is held just before it sets the result, while the other tries."""
    job: Job[str] = Job(lambda function: function(), lambda _: None, lambda: False)
    inside, go = threading.Event(), threading.Event()

    def end(kind: str) -> object:
        return job.succeed(kind) if kind == "succeed" else job.fail(ValueError(kind))

    def held(name: str) -> Callable[[Future[object], object], None]:
        real = getattr(Future, name)

        def set_it(self: Future[object], value: object) -> None:
            inside.set()
            assert go.wait(PATIENCE)
            real(self, value)

        return set_it

    for name in ("set_result", "set_exception"):
        monkeypatch.setattr(Future, name, held(name))
    thread = threading.Thread(target=end, args=[first])
    thread.start()
    try:
        assert inside.wait(PATIENCE)
        assert not end(second)
        assert not job.done()
    finally:
        go.set()
        thread.join()
    if first == "succeed":
        assert job.result(0) == "succeed"
    else:
        assert isinstance(job.exception(0), ValueError)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # SystemExit ends threads silently
@pytest.mark.parametrize("kind", ["rows", "text", "texts"])
def test_a_done_callback_that_ends_the_thread_ends_no_other_job(kind: str, engine: SlowEngine) -> None:
    ended: list[threading.Thread] = []

    def leave(_: object) -> None:
        ended.append(threading.current_thread())
        raise SystemExit

    ask: dict[str, Callable[[], Job[Any]]] = {
        "rows": lambda: engine.images("ab", on_row=lambda row: None),
        "text": lambda: engine.texts(["a"]),
        "texts": lambda: engine.texts(TEXTS),
    }
    job = ask[kind]()
    job.add_done_callback(leave)
    waiting = engine.images("xyz", on_row=lambda row: None)
    engine.model.let(None)
    job.result(PATIENCE)
    assert waiting.result(PATIENCE) == 3
    assert len(engine.texts(["later"]).result(PATIENCE)) == 1
    (thread,) = ended
    thread.join()


# ---- closing ----


def test_closing_under_load_cancels_all_and_gives_the_model_back() -> None:
    engine = SlowEngine()
    first = engine.images(itertools.count(), on_row=lambda row: None)
    soon(lambda: engine.model.begun)
    jobs = [
        first,
        engine.images(itertools.count(), on_row=lambda row: None),
        engine.texts(TEXTS),
        engine.images(range(50)),
        engine.texts(["a"]),
    ]
    engine.close(wait=False)
    assert all(job.cancelled() for job in jobs)
    assert not engine.model.closed, "a picture is being computed"
    engine.model.let(1)
    engine.close()
    assert engine.model.closed
    assert len(engine.model.log) == 1
    assert engine.model.ended == 1
    for ask in (lambda: engine.texts(["a"]), lambda: engine.images([], on_row=print), engine.load):
        with pytest.raises(SigrunError, match="closed"):
            ask()
    engine.close()
    assert "closed" in repr(engine)


def test_it_can_be_closed_in_a_callback() -> None:
    engine = SlowEngine()
    engine.model.let(None)
    job = engine.images(itertools.count(), on_row=lambda row: engine.close())
    with pytest.raises(CancelledError):
        job.result(PATIENCE)
    soon(lambda: engine.model.closed)


def test_closed_before_it_was_used() -> None:
    engine = SlowEngine()
    engine.close()
    assert engine.model.begun == []


def test_it_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Engine("x.gguf"))
