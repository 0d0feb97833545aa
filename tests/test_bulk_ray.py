"""A data set on Ray Data with two workers, killed and resumed, and the plain class inside ``map_batches``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sigrun import Siglip, SigrunError
from sigrun.bulk import Embedder
from sigrun.bulk.job import Job
from sigrun.bulk.loaded import How
from tests import bulk_data
from tests.bulk_data import picture

SHARDS, EACH, ROWS = 6, 60, 4


ray = pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")

pytestmark = [pytest.mark.bulk, pytest.mark.filterwarnings("ignore")]  # Ray's own


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster of this machine with two CPUs; its address."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_BACKEND_LOG_LEVEL="fatal")
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tar shards, one of which is cut."""
    top = tmp_path_factory.mktemp("shards")
    for number in range(SHARDS):
        path = bulk_data.shard(top / f"{number}.tar", range(number * EACH, (number + 1) * EACH))
    path.write_bytes(path.read_bytes()[:-20_000])
    return top


@pytest.fixture(scope="module")
def whole(tiny_q4: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data set from an uninterrupted job without Ray, with as many threads as a worker has.

    In form ``exact``, which this model runs in, the number of threads counts for the last bits.
    """
    out = tmp_path_factory.mktemp("whole") / "out"
    planned(tiny_q4, source, out).done()
    return out


def planned(model: Path, source: Path, out: Path) -> Job:
    return Job.planned(How(str(model), threads=1), source, out, rows=ROWS, keep=["txt"])


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_two_workers_write_what_one_process_writes(
    cluster: str, tiny_q4: Path, source: Path, whole: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    manifest = planned(tiny_q4, source, tmp_path / "out").done(
        engine="ray", workers=2, on_progress=seen.append
    )
    assert content(tmp_path / "out") == content(whole)
    assert sum(seen) == manifest["rows"] == pq.read_table(whole).num_rows
    assert manifest["errors"] == 1


def test_a_killed_job_goes_on(cluster: str, tiny_q4: Path, source: Path, whole: Path, tmp_path: Path) -> None:
    """kill -9 of the command while two workers of the cluster write; then again on the cluster."""
    out = tmp_path / "out"
    arguments = [
        tiny_q4,
        source,
        out,
        "--rows",
        ROWS,
        "--keep",
        "txt",
        "-q",
        "--engine",
        "ray",
        "--workers",
        2,
    ]
    command = [sys.executable, "-m", "sigrun", "embed-dataset", *map(str, arguments)]
    environment = {**os.environ, "RAY_ADDRESS": cluster}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while len([*out.glob("part-*")]) < 8:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    parts = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert 8 <= len(parts) < len(content(whole)) - 1
    assert not (out / "_manifest.json").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")  # 1: a shard is cut
    assert "sigrun:" not in done.stderr
    assert "Traceback" not in done.stderr
    assert content(out) == content(whole)
    assert {name: (out / name).stat().st_mtime_ns for name in parts} == parts  # not written again


def workers_here() -> list[int]:
    """The processes of this cluster's workers that hold a model."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name = (place / "cmdline").read_bytes()
            parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
            above = Path("/proc", parent, "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has ended
            continue
        if name.startswith(b"ray::MapWorker") and int(above) == os.getpid():
            found.append(int(place.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_a_killed_worker_is_replaced(
    cluster: str, tiny_q4: Path, source: Path, whole: Path, tmp_path: Path
) -> None:
    """kill -9 of one of two workers: the job ends as if nothing had happened."""
    out = tmp_path / "out"
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            if len([*out.glob("part-*")]) >= 8 and (found := workers_here()):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.005)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    manifest = planned(tiny_q4, source, out).done(engine="ray", workers=2)
    assert killed
    assert content(out) == content(whole)
    assert manifest["rows"] == pq.read_table(whole).num_rows


def test_what_a_worker_cannot_do_is_said_plainly(
    cluster: str, tiny_q4: Path, source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model.gguf"
    copy.write_bytes(tiny_q4.read_bytes())
    job = planned(copy, source, tmp_path / "out")
    copy.unlink()
    with pytest.raises(SigrunError, match=r"model\.gguf") as caught:
        job.done(engine="ray", workers=1)
    assert "\n" not in caught.value.message


def test_the_class_in_map_batches(cluster: str, emoji_q4: Path) -> None:
    """As the documentation has it, with arrays and with Arrow tables; blocks without an error beside one with it."""
    pictures: list[Any] = [*map(picture, range(8))]
    pictures[6] = b"broken"
    with Siglip.load(emoji_q4) as model:
        expected = model.embed_images(pictures).vectors
    for batch_format in ("numpy", "pyarrow"):
        rows = [{"id": at, "image": data} for at, data in enumerate(pictures)]
        results = ray.data.from_items(rows, override_num_blocks=4).map_batches(
            Embedder,
            fn_constructor_args=(emoji_q4,),
            fn_constructor_kwargs={"threads": 1},
            batch_format=batch_format,
            batch_size=2,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        found = {row["id"]: row for row in results.iter_rows()}
        assert sorted(found) == [*range(8)]
        for at in range(8):
            if at == 6:
                assert "cannot be read" in found[at]["error"] or "not a picture" in found[at]["error"]
            else:
                assert found[at]["error"] is None
                assert (np.asarray(found[at]["embedding"], np.float32) == expected[at]).all()
