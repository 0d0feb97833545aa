"""Models among threads and processes: shared, forked, spawned, pickled, given back."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sigrun import ArtifactError, ProviderError, Siglip, SpaceError, forking
from sigrun.sessions import TowerSession

GREY = np.full((40, 50, 3), 99, np.uint8)
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


@pytest.fixture
def model(emoji_q4: Path) -> Iterator[Siglip]:
    with Siglip.load(emoji_q4, threads=2) as loaded:
        yield loaded


def both(model: Siglip) -> bytes:
    """Embeddings of a picture and a text, bit for bit."""
    return model.embed_images([GREY]).vectors.tobytes() + model.embed_texts(["red apple"]).vectors.tobytes()


def both_with_settings(model: Siglip) -> tuple[bytes, str, int]:
    return both(model), model.info.compute, model.info.threads


@pytest.mark.parametrize("form", ["exact", "int8"])
def test_threads_get_the_same_bits(emoji_q4: Path, form: str) -> None:
    with Siglip.load(emoji_q4, threads=2, compute=form) as model, ThreadPoolExecutor(6) as pool:
        # The first use loads the towers, in six threads at once.
        found = list(pool.map(lambda _: both(model), range(24)))
        assert set(found) == {both(model)}


def test_several_models_do_not_mind_each_other(emoji_q4: Path, tiny_q4: Path) -> None:
    with Siglip.load(emoji_q4) as alone:
        expected = both(alone)
    with (
        Siglip.load(emoji_q4) as one,
        Siglip.load(emoji_q4, compute="exact") as two,
        Siglip.load(tiny_q4) as three,
    ):
        exact, other = both(two), both(three)
        assert both(one) == expected
        two.close()
        three.unload("image")
        assert both(one) == expected
        assert both(three) == other
    assert exact != expected


def in_child(action: Any, seconds: int = 60) -> bytes:
    """What a forked child's action gives; fails if it hangs or dies."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of forking with threads, which is the point here
        child = os.fork()
    if child == 0:
        signal.alarm(seconds)  # ends a child that hangs
        try:
            os.write(write, action())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the child hung or died"
    return found


@posix
@pytest.mark.parametrize("form", ["exact", "int8"])
def test_a_forked_child_embeds_and_so_does_its_parent(emoji_q4: Path, form: str) -> None:
    with Siglip.load(emoji_q4, threads=2, compute=form) as model:
        expected = both(model)
        assert in_child(lambda: both(model)) == expected
        assert in_child(lambda: in_child(lambda: both(model))) == expected, "a grandchild"
        assert both(model) == expected


@posix
def test_a_fork_while_another_thread_embeds(model: Siglip) -> None:
    """Its lock may be held, its session busy: neither matters to the child."""
    expected = both(model)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            model.unload("text")
            both(model)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(5):
            assert in_child(lambda: both(model)) == expected
    finally:
        stop.set()
        for worker in workers:
            worker.join()


@posix
def test_a_session_from_before_the_fork_says_so(model: Siglip) -> None:
    session = model._session("image")
    batch = np.zeros((1, 3, 60, 60), np.float32)
    assert np.isfinite(session.embed(batch)).all()
    said = in_child(lambda: session.embed(batch).tobytes())
    assert said.startswith(b"ProviderError: ")
    assert b"before this process was forked" in said


@posix
def test_a_forked_child_ends_as_any_process(emoji_q4: Path) -> None:
    """Not only by ``os._exit``: what the interpreter destroys at its end must not wait for threads."""
    code = """
import os, signal, sys
import numpy as np
from sigrun import Siglip
model = Siglip.load(sys.argv[1], threads=2, towers="both")
model.embed_texts(["owl"])
if os.fork() == 0:
    signal.alarm(60)
    model.unload("image")
    if sys.argv[2] == "close":
        model.close()
    elif sys.argv[2] == "use":
        model.embed_texts(["owl"])
    del model
    sys.exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    for way in ("nothing", "use", "close"):
        command = [sys.executable, "-W", "ignore", "-c", code, str(emoji_q4), way]
        assert subprocess.run(command, check=False, timeout=120).returncode == 0, way


def test_what_is_gone_is_not_watched(emoji_q4: Path) -> None:
    gc.collect()
    before = len(forking._watched)
    with Siglip.load(emoji_q4, towers="both") as model:
        assert len(forking._watched) == before + 3
    del model
    gc.collect()
    assert len(forking._watched) == before


def test_a_pickled_model_opens_again_with_its_settings(
    emoji_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(emoji_q4.parent)
    settings: dict[str, Any] = {
        "compute": "exact",
        "provider": "cpu",
        "threads": 1,
        "max_pixels": 12345,
        "decode": "fast",
        "cache": str(tmp_path / "cache"),
    }
    with Siglip.load(emoji_q4.name, **settings) as model:
        expected = both(model)
        pickled = pickle.dumps(model)
    monkeypatch.chdir(tmp_path)
    with pickle.loads(pickled) as again:
        assert again.info.loaded == ()
        assert {name: getattr(again._settings, name) for name in settings} == settings
        assert both(again) == expected
        assert both(pickle.loads(pickle.dumps(again))) == expected
    assert len(pickled) < 1000, "weights do not travel"


def test_a_pickled_model_is_not_mistaken_for_another(emoji_q4: Path, tiny_q4: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(emoji_q4.read_bytes())
    with Siglip.load(path) as model:
        pickled = pickle.dumps(model)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"model\.gguf"):
        pickle.loads(pickled)
    path.write_bytes(tiny_q4.read_bytes())
    with pytest.raises(SpaceError):
        pickle.loads(pickled)


@pytest.mark.parametrize("method", ["spawn", pytest.param("fork", marks=posix)])
def test_process_pools(model: Siglip, method: str) -> None:
    """The model travels by pickle, whether it is loaded or not."""
    expected = (both(model), "int8", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            futures = [pool.submit(both_with_settings, model) for _ in range(4)]
            assert [future.result(timeout=120) for future in futures] == [expected] * 4


_of_initializer: dict[str, Siglip] = {}


def use_inherited(_: int) -> bytes:
    return both(_of_initializer["model"])


@posix
def test_workers_may_inherit_a_loaded_model(model: Siglip) -> None:
    expected = both(model)
    _of_initializer["model"] = model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
                assert [pool.submit(use_inherited, n).result(timeout=120) for n in range(4)] == [expected] * 4
    finally:
        _of_initializer.clear()


def test_a_closed_model_says_so(emoji_q4: Path) -> None:
    model = Siglip.load(emoji_q4, towers="both")
    labels = model.label_set(["owl"])
    model.close()
    model.close()
    assert model.info.loaded == ()
    for use in (
        lambda: model.embed_images([GREY]),
        lambda: model.embed_images([]),
        lambda: model.embed_texts(["owl"]),
        lambda: model.classify(GREY, labels),
        lambda: model.label_set(["owl"]),
    ):
        with pytest.raises(ArtifactError, match="the model is closed") as caught:
            use()
        assert caught.value.hint == "load it again with Siglip.load"
    model.unload("image")


def anonymous_bytes() -> int:
    """Memory of this process that is no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@linux
@pytest.mark.parametrize("form", ["exact", "int8"])
def test_unload_gives_the_memory_back(emoji_q4: Path, form: str) -> None:
    """Loading and unloading again and again must not add up to as much as a tower or two."""
    with Siglip.load(emoji_q4, compute=form, threads=1) as model:
        weights = sum(t.size for t in model._artifact.tensors.values() if t.tower == "image")

        def turn() -> None:
            model.embed_images([GREY])
            model.unload("image")
            gc.collect()

        for _ in range(3):
            turn()
        before = anonymous_bytes()
        for _ in range(12):
            turn()
        assert anonymous_bytes() - before < 2 * weights, "a tower of one byte a weight leaks each time"


@linux
def test_processes_share_the_mapped_file(emoji_q4: Path) -> None:
    """The token table, which is never unpacked, stays in the page cache: it is mapped, not copied."""
    with Siglip.load(emoji_q4, towers="text") as model:
        model.embed_texts(["owl"])
        maps = Path("/proc/self/smaps").read_text().split("\n")
    at = next(n for n, line in enumerate(maps) if line.endswith(emoji_q4.name))
    entry = {line.split(":")[0]: line.split()[1] for line in maps[at + 1 : at + 20] if ":" in line}
    assert entry["Anonymous"] == "0"  # no copy of a page


def test_sessions_of_others_are_safe_too(model: Siglip) -> None:
    """A session outlives the model's hold on it."""
    session = model._session("text")
    assert isinstance(session, TowerSession)
    batch = model._artifact.token_rows(np.zeros((1, 64), np.int64))
    expected = session.embed(batch)
    model.unload("text")
    gc.collect()
    np.testing.assert_array_equal(session.embed(batch), expected)
    with pytest.raises(ProviderError, match="cannot run the text tower"):
        session.embed(np.zeros((1, 2), np.float32))
    vectors: NDArray[np.float32] = model.embed_texts(["owl"]).vectors
    assert np.isfinite(vectors).all()


def test_onnxruntime_is_told_not_to_report() -> None:
    """Before it is imported, which is the only time that it listens; unless the user wants it to."""
    code = (
        "import os\nfrom sigrun.onnx_runtime import onnxruntime\nonnxruntime()\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    if sys.platform == "linux":
        code += "\nprint(len(os.listdir('/proc/self/task')))"
    rest = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    threads = []
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        command = [sys.executable, "-c", code]
        environment = {**rest, **given}
        said = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        assert said[0] == expected
        threads += [int(count) for count in said[1:]]
    assert threads == sorted(set(threads)), "its reporting thread runs only where it was asked for"
