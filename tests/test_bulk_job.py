"""Data sets into Parquet on this machine: every row, equal to the plain runtime, whatever stopped the job before."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sigrun import OutputError, Siglip, SigrunError
from sigrun.bulk import folder as folders
from sigrun.bulk import parquet_source, parts, sources
from sigrun.bulk.job import Job
from sigrun.bulk.loaded import How
from sigrun.bulk.ray_engine import share_of
from tests import bulk_data
from tests.bulk_data import picture

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

COUNT, ROWS = 10, 4


def planned(model: Path, source: Path, out: Path, **options: Any) -> Job:
    return Job.planned(How(str(model)), source, out, **{"rows": ROWS, **options})


def table(out: Path) -> Any:
    """All rows, as any reader of Parquet folders sees them."""
    return pq.read_table(out).sort_by([("source", "ascending"), ("row", "ascending")])


def vectors(rows: Any) -> np.ndarray:
    """float32 [rows that did not fail, width]."""
    return np.array(rows.filter(pa.compute.is_valid(rows["embedding"]))["embedding"].to_pylist(), np.float32)


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(scope="module")
def expected(tiny_q4: Path) -> np.ndarray:
    """The vectors of the first pictures from the plain runtime, handed over as many at a time as go into a part."""
    with Siglip.load(tiny_q4) as model:
        parts = [range(first, min(first + ROWS, COUNT)) for first in range(0, COUNT, ROWS)]
        return np.concatenate([model.embed_images([*map(picture, part)]).vectors for part in parts])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tar shards, the first of which makes three parts."""
    top = tmp_path_factory.mktemp("shards")
    bulk_data.shard(top / "a.tar", range(COUNT))
    bulk_data.shard(top / "deep" / "b.tar", range(3))
    return top


def test_tar_shards(tiny_q4: Path, shards: Path, expected: np.ndarray, tmp_path: Path) -> None:
    seen: list[int] = []
    job = planned(tiny_q4, shards, tmp_path / "out", keep=["txt"])
    manifest = job.done(on_progress=seen.append)
    rows = table(tmp_path / "out")
    assert rows.column_names == ["source", "row", "item", "embedding", "error", "txt"]
    assert rows["source"].to_pylist() == ["a.tar"] * COUNT + ["deep/b.tar"] * 3
    assert rows["row"].to_pylist() == [*range(COUNT), *range(3)]
    assert rows["item"].to_pylist() == [f"{seed:04d}" for seed in [*range(COUNT), *range(3)]]
    assert rows["txt"].to_pylist() == [f"number {seed}" for seed in [*range(COUNT), *range(3)]]
    assert rows["error"].null_count == rows.num_rows == COUNT + 3 == sum(seen)
    assert (vectors(rows)[:COUNT] == expected).all()
    with Siglip.load(tiny_q4) as model:
        assert (manifest["space"], manifest["compute"], manifest["provider"]) == (
            model.space,
            [model.info.compute],
            ["cpu"],
        )
    assert [(s["file"], s["source"], s["first"], s["rows"]) for s in manifest["shards"]] == [
        ("part-000000-00000.parquet", "a.tar", 0, 4),
        ("part-000000-00001.parquet", "a.tar", 4, 4),
        ("part-000000-00002.parquet", "a.tar", 8, 2),
        ("part-000001-00000.parquet", "deep/b.tar", 0, 3),
    ]
    files = {*(shard["file"] for shard in manifest["shards"]), "_manifest.json"}
    assert set(content(tmp_path / "out")) == files
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text("utf-8")) == manifest
    assert pyarrow.dataset.dataset(tmp_path / "out").count_rows() == COUNT + 3


def test_a_folder_of_pictures(tiny_q4: Path, tmp_path: Path, expected: np.ndarray) -> None:
    """Named by their path in the folder, in the order in which folders are searched."""
    source = bulk_data.folder(tmp_path / "photos", COUNT)
    (source / "0001.png").write_bytes(b"broken")
    manifest = planned(tiny_q4, source, tmp_path / "out").done()
    rows = table(tmp_path / "out")
    seeds = [*(s for s in range(COUNT) if s % 3), *(s for s in range(COUNT) if s % 3 == 0)]
    items = [f"{'' if seed % 3 else 'deep/'}{seed:04d}.png" for seed in seeds]
    assert rows["item"].to_pylist() == items
    assert rows["row"].to_pylist() == [*range(COUNT)]
    assert set(rows["source"].to_pylist()) == {"photos"}
    assert [row for row, why in enumerate(rows["error"].to_pylist()) if why] == [0]
    assert rows["embedding"].null_count == manifest["errors"] == 1
    assert manifest["rows"] == COUNT


@pytest.mark.parametrize("cells", ["bytes", "structs"])
def test_parquet(tiny_q4: Path, expected: np.ndarray, tmp_path: Path, cells: str) -> None:
    """Kept columns come out as they went in, whatever their type; empty cells are errors."""
    import datetime

    pictures = bulk_data.structs(range(COUNT)) if cells == "structs" else [*map(picture, range(COUNT))]
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901)
    columns = {
        "id": pa.array([*range(COUNT), None], pa.int16()),
        "photo": pa.array([*pictures, None]),
        "when": pa.array([moment] * COUNT + [None], pa.timestamp("ns")),
        "tags": pa.array([["a", None]] * COUNT + [None]),
    }
    path = bulk_data.parquet(tmp_path / "in" / "a.parquet", columns, row_group_size=3)
    manifest = planned(tiny_q4, path, tmp_path / "out", keep=["when", "id", "tags"]).done()
    rows = table(tmp_path / "out")
    for name in ("id", "when", "tags"):
        assert rows.schema.field(name).type == columns[name].type
        assert rows[name].combine_chunks() == columns[name]
    assert (vectors(rows) == expected).all()
    assert rows["error"].to_pylist() == [None] * COUNT + ["there are no picture bytes in this row"]
    named = [f"{seed:04d}.png" for seed in range(COUNT)] if cells == "structs" else [None] * COUNT
    assert rows["item"].to_pylist() == [*named, None]
    assert manifest["errors"] == 1


def test_a_name_that_is_no_text_takes_nothing_down(tmp_path: Path) -> None:
    """Beside the bytes of a picture; Parquet does not look at what its strings hold."""
    names = pa.array([b"a.png", b"\xff\xfe.png", b"c.png"]).view(pa.string())
    cells = pa.StructArray.from_arrays([pa.array([*map(picture, range(3))]), names], ["bytes", "path"])
    path = bulk_data.parquet(tmp_path / "a.parquet", {"photo": cells})
    found = list(parquet_source.samples(path, "photo", (), 0))
    assert [sample.picture for sample in found] == [*map(picture, range(3))]
    assert [(sample.item, sample.error) for sample in found] == [
        ("a.png", None),
        (None, None),
        ("c.png", None),
    ]


@pytest.mark.parametrize("when", ["opening", "reading"])
def test_a_drive_that_fails_ends_a_job_that_then_goes_on(
    tiny_q4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """No row says that a shard is damaged; a shard that is goes on to be a row that says so."""
    source, out = tmp_path / "in", tmp_path / "out"
    for name, count in (("a", COUNT), ("b", 1)):
        path = source / f"{name}.parquet"
        bulk_data.parquet(path, {"photo": [*map(picture, range(count))]}, row_group_size=5)
    job = planned(tiny_q4, source, out)

    class Failing(pq.ParquetFile):  # type: ignore[misc]
        code: tuple[int, ...] = (errno.ESTALE,)

        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            if when == "opening" and self.metadata.num_rows == COUNT:
                raise OSError(*self.code, "Stale file handle")

        def iter_batches(self, *given: Any, row_groups: list[int], **options: Any) -> Any:
            if row_groups == [1]:
                raise OSError(*self.code, "Stale file handle")
            return super().iter_batches(*given, row_groups=row_groups, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pq, "ParquetFile", Failing)
        with pytest.raises(SigrunError, match=r"a\.parquet: cannot be read: Stale file handle") as caught:
            job.done()
        assert "goes on" in str(caught.value.hint)
        assert not (out / "_manifest.json").exists()
        patched.setattr(Failing, "code", ())  # as Arrow says that data are damaged
        assert planned(tiny_q4, source, tmp_path / "other").done()["errors"] == (
            5 if when == "reading" else 1
        )
    assert job.done()["errors"] == 0
    assert table(out).num_rows == COUNT + 1


KILLED = """
import os, pathlib, signal, sys
from sigrun.bulk import parts
from sigrun.bulk.job import Job
from sigrun.bulk.loaded import How
from sigrun.bulk.ray_engine import share_of
real, left = getattr(parts, sys.argv[4]), [int(sys.argv[5])]
def stop(*a, **k):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*a, **k)
setattr(parts, sys.argv[4], stop)
Job.planned(How(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), rows=4).done()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
@pytest.mark.parametrize(("step", "after"), [("_table", 1), ("_hash", 2)])
def test_kill_9_loses_and_doubles_nothing(
    tiny_q4: Path, shards: Path, tmp_path: Path, step: str, after: int
) -> None:
    """Killed before a part is written, and between its last byte and its name."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    planned(tiny_q4, shards, whole).done()
    code = [sys.executable, "-c", KILLED, str(tiny_q4), str(shards), str(out), step, str(after)]
    assert subprocess.run(code, capture_output=True, check=False).returncode == -signal.SIGKILL
    there = sorted(path.name for path in out.glob("part-*"))
    assert there == [f"part-000000-{n:05d}.parquet" for n in range(after)]
    assert len([*out.glob(".part-*.partial")]) == (step == "_hash")
    stamps = {name: (out / name).stat().st_mtime_ns for name in there}
    planned(tiny_q4, shards, out).done()
    assert content(out) == content(whole)
    assert {name: (out / name).stat().st_mtime_ns for name in there} == stamps  # not written again


def test_what_a_killed_worker_was_writing_is_cleared_away(
    tiny_q4: Path, shards: Path, tmp_path: Path
) -> None:
    """Ray replaces such a worker while the job goes on; what it wrote last bears no final name."""
    out = tmp_path / "out"

    def leave(_: int) -> None:
        (out / ".part-000001-00000.parquet.0123456789ab.partial").write_bytes(b"half")

    manifest = planned(tiny_q4, shards, out).done(on_progress=leave)
    assert {*content(out)} == {*(shard["file"] for shard in manifest["shards"]), "_manifest.json"}


@pytest.mark.parametrize(
    "lost", ["part-000000-00000", "part-000000-00001", "part-000000-00002", "part-000001-00000"]
)
@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
def test_a_part_that_is_lost_is_made_again(
    tiny_q4: Path, shards: Path, tmp_path: Path, lost: str, how: str
) -> None:
    out = tmp_path / "out"
    planned(tiny_q4, shards, out).done()
    before = content(out)
    part = out / f"{lost}.parquet"
    data = bytearray(part.read_bytes())
    if how == "gone":
        part.unlink()
    elif how == "cut":
        part.write_bytes(data[:-7])
    else:
        data[len(data) // 3] ^= 1
        part.write_bytes(data)
        (out / "_manifest.json").rename(tmp_path / "kept.json")  # of a job that was not finished yet
    planned(tiny_q4, shards, out).done()
    assert content(out) == before


def test_a_finished_job_is_left_alone(
    tiny_q4: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    manifest = planned(tiny_q4, shards, out).done()
    monkeypatch.setattr(Siglip, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    before = content(out)
    assert planned(tiny_q4, shards, out).done() == manifest
    assert content(out) == before


def test_another_job_is_not_gone_on_with(tiny_q4: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned(tiny_q4, shards, out).done()
    before = content(out)
    other = bulk_data.shard(tmp_path / "other" / "a.tar", range(3)).parent
    for words, source, options in (
        ("the data set", other, {}),
        ("--rows", shards, {"rows": 5}),
        ("--keep", shards, {"keep": ["txt"]}),
        ("--column", shards, {"column": "png"}),
    ):
        with pytest.raises(OutputError, match=f"{words} changed") as caught:
            planned(tiny_q4, source, out, **options).done()
        assert "--restart" in str(caught.value.hint)
        assert content(out) == before
    manifest = planned(tiny_q4, other, out).done(restart=True)
    assert manifest["rows"] == table(out).num_rows == 3


def test_a_full_disk_keeps_what_is_finished(
    tiny_q4: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(tiny_q4, shards, tmp_path / "whole").done()
    out, synced = tmp_path / "out", os.fsync
    left = 2

    def full(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(parts, "os", SimpleNamespace(fsync=full))
        with pytest.raises(OutputError, match=r"No space left on device; the files .* are kept") as caught:
            planned(tiny_q4, shards, out).done()
    assert "goes on" in str(caught.value.hint)
    assert len([*out.glob("part-*")]) == 2
    assert not [*out.glob(".part*")]
    planned(tiny_q4, shards, out).done()
    assert content(out) == content(tmp_path / "whole")


def test_a_folder_with_a_changed_picture_is_another_data_set(tiny_q4: Path, tmp_path: Path) -> None:
    source = bulk_data.folder(tmp_path / "photos", 3)
    planned(tiny_q4, source, tmp_path / "out").done()
    (source / "0001.png").write_bytes(bulk_data.picture(1) + b"more")
    with pytest.raises(OutputError, match="the data set changed"):
        planned(tiny_q4, source, tmp_path / "out").done()


def test_one_job_at_a_time_and_no_foreign_folder(tiny_q4: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = planned(tiny_q4, shards, out)
    with (
        folders.opened(out, job.settings, restart=False),
        pytest.raises(OutputError, match="another process is writing there"),
    ):
        job.done()
    (out / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(OutputError, match=r"files that are not Sigrun's, such as notes\.txt"):
        job.done(restart=True)
    (tmp_path / "plain").write_text("a file", "utf-8")
    with pytest.raises(OutputError, match="plain"):
        planned(tiny_q4, shards, tmp_path / "plain").done()
    with pytest.raises(OutputError, match="would be read as part of it"):
        planned(tiny_q4, shards, shards / "out")


def test_the_model_must_be_the_jobs(tiny_q4: Path, emoji_q4: Path, shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.gguf"
    copy.write_bytes(tiny_q4.read_bytes())
    job = planned(copy, shards, tmp_path / "out")
    copy.unlink()
    os.link(emoji_q4, copy)
    with pytest.raises(SigrunError, match="not the model that the job began with"):
        job.done()
    assert not [*(tmp_path / "out").glob("part-*")]


def test_what_a_source_holds_is_asked_for_where_it_is_not_clear(tiny_q4: Path, tmp_path: Path) -> None:
    source = bulk_data.folder(tmp_path / "in", 3)
    bulk_data.shard(source / "a.tar", range(2))
    with pytest.raises(SigrunError, match="holds pictures and tar shards") as caught:
        planned(tiny_q4, source, tmp_path / "out")
    assert "--format pictures|tar" in str(caught.value.hint)
    assert sources.open_dataset(source, "tar", None, (), ROWS).kind == "tar"
    assert sources.open_dataset(source, "pictures", None, (), ROWS).rows == 3
    with pytest.raises(SigrunError, match="there are no Parquet files"):
        planned(tiny_q4, source, tmp_path / "out", kind="parquet")
    for name, words in (("none", "does not exist"), ("in/0001.png", "neither a folder nor a shard")):
        with pytest.raises(SigrunError, match=words):
            planned(tiny_q4, tmp_path / name, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SigrunError, match="no pictures"):
        planned(tiny_q4, tmp_path / "empty", tmp_path / "out")


def test_workers_on_ray_find_room() -> None:
    assert share_of([2], 2) == 1
    assert share_of([16], 4) == 4
    assert share_of([3, 3], 3) == 1  # two of two CPUs would leave no room for the third
    assert share_of([3, 3], 2) == 3
    assert 0 < share_of([2], 8) <= 0.25
