"""Engines among processes and threads: ends with the interpreter, closed streams, forks, spawns, many at once."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sigrun import Engine, Siglip
from tests.checkpoints import ROOT
from tests.engine_model import PATIENCE, SlowEngine, soon

GREY = np.full((40, 50, 3), 99, np.uint8)
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")


def run(code: str, *words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *words]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, cwd=ROOT, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    "work",
    [
        "engine.images(itertools.repeat(grey), on_row=rows.append); first()",
        "engine.images(itertools.repeat(grey)); first(engine.texts(['a']))",
        "held = []; engine = Engine(path, call=held.append); engine.images(itertools.repeat(grey), on_row=print)"
        "; [time.sleep(0.01) for _ in iter(lambda: len(held) < 5, False)]",
        "engine.texts(['a'] * 100_000); first(engine.texts(['a']))",
        "engine.load()",
        "engine.texts(['a']).result()",
        "raise_later = engine.images(itertools.repeat(grey), on_row=rows.append); first(); sys.exit(0)",
        "engine.images(itertools.repeat(grey), on_row=lambda row: time.sleep(0.001)); engine.close(wait=False)",
    ],
)
def test_the_interpreter_ends_with_a_job_under_way(work: str, emoji_q4: Path) -> None:
    code = f"""
        import itertools, sys, time
        import numpy as np
        from sigrun import Engine
        path = sys.argv[1]
        grey = np.full((40, 50, 3), 99, np.uint8)
        engine = Engine(path)
        rows = []
        def first(job=None):
            if job is not None:
                job.result()
            while job is None and not rows:
                time.sleep(0.01)
        {work}
    """
    done = run(code, str(emoji_q4))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@posix
def test_an_interrupt_ends_a_program_that_waits(emoji_q4: Path) -> None:
    code = """
        import itertools, os, signal, sys, threading
        import numpy as np
        from sigrun import Engine
        signal.signal(signal.SIGINT, signal.default_int_handler)
        before = {number: signal.getsignal(number) for number in signal.valid_signals()}
        engine = Engine(sys.argv[1])
        grey = np.full((40, 50, 3), 99, np.uint8)
        def row(done):
            if done.row == 3:
                os.kill(os.getpid(), signal.SIGINT)
        job = engine.images(itertools.repeat(grey), on_row=row)
        try:
            job.result()
        except KeyboardInterrupt:
            assert before == {number: signal.getsignal(number) for number in signal.valid_signals()}
            sys.exit(7)
    """
    assert run(code, str(emoji_q4)).returncode == 7


@pytest.mark.parametrize("streams", ["none", "closed"])
def test_it_works_without_streams_and_at_any_path(streams: str, tmp_path: Path, emoji_q4: Path) -> None:
    folder = tmp_path / "мои фото и модели – 写真 ü"
    folder.mkdir()
    artifact, picture = folder / "das Modell №1.gguf", folder / "ein Bild – 写真.png"
    shutil.copy(emoji_q4, artifact)
    shutil.copy(ROOT / "examples" / "emoji_siglip" / "heldout" / "demo" / "owl.png", picture)
    code = """
        import os, sys
        if sys.argv[4] == "none":  # as pythonw has it
            sys.stdin = sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None
        else:
            for number in (0, 1, 2):
                os.close(number)
        import json
        from sigrun import Engine
        with Engine(sys.argv[1], cache=None) as engine:
            rows = []
            engine.images([sys.argv[2], sys.argv[2] + ".gone"], on_row=rows.append).result(30)
            scores = engine.classify(sys.argv[2], ["owl", "key"]).result(30)
            failed = str(engine.texts([""]).exception(30))
        with open(sys.argv[3], "w", encoding="utf-8") as out:
            json.dump([scores[0].label, scores[0].logit, rows[1].error.message, failed], out)
    """
    out = tmp_path / "out.json"
    done = run(code, str(artifact), str(picture), str(out), streams)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    with Siglip.load(artifact, cache=None) as model:
        best = model.classify(picture, ["owl", "key"])[0]
    said = out.read_text("utf-8")
    import json

    label, logit, gone, failed = json.loads(said)
    assert (label, logit) == (best.label, best.logit)
    assert "ein Bild – 写真.png.gone" in gone
    assert "empty" in failed


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_an_engine_and_no_jobs(emoji_q4: Path) -> None:
    with Engine(emoji_q4) as engine:
        expected = engine.texts(["red apple"]).result(PATIENCE).vectors.tobytes()
        run_on = engine.images(itertools.repeat(GREY), on_row=lambda row: None)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(60)
                assert run_on.cancelled()
                assert engine.texts(["red apple"]).result(PATIENCE).vectors.tobytes() == expected
                rows: list[object] = []
                assert engine.images([GREY] * 3, on_row=rows.append).result(PATIENCE) == 3
                engine.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not run_on.done(), "the parent's goes on"


def vectors(path: Path) -> bytes:
    with Engine(path, threads=1) as engine:
        return engine.texts(["red apple"]).result(PATIENCE).vectors.tobytes()


def test_in_a_spawned_process(emoji_q4: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(vectors, (emoji_q4,)) == vectors(emoji_q4)


def test_many_at_once_from_many_threads(emoji_q4: Path, tiny_q4: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        engines = [Engine(emoji_q4, threads=1) for _ in range(4)] + [Engine(tiny_q4, threads=1)]

        def use(number: int) -> bytes:
            engine = engines[number % 5]
            assert len(engine.images([GREY, GREY]).result(PATIENCE)) == 2
            return engine.texts(["red apple"]).result(PATIENCE).vectors.tobytes()

        found = list(pool.map(use, range(40)))
        assert len({found[number] for number in range(40) if number % 5 != 4}) == 1
        assert len({found[number] for number in range(4, 40, 5)}) == 1
        for engine in engines:
            engine.close()


def test_one_thread_at_a_time_does_the_work() -> None:
    """However the threads that ask and those that cancel come together."""
    with SlowEngine() as engine:
        engine.model.let(None)
        inside = threading.Lock()

        def row(done: object) -> None:
            assert inside.acquire(blocking=False), "two threads at once"
            inside.release()

        def ask(number: int) -> None:
            job = engine.images(range(20), on_row=row)
            engine.texts(["a"])
            if number % 3 == 0:
                job.cancel()
            else:
                assert job.result(PATIENCE) == 20

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(60)))
        soon(lambda: len(engine._turns) == 0)
