"""``sigrun embed-dataset``: what it prints, its exit codes, and damaged or foreign input in plain words."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sigrun.cli
from sigrun.cli import embed_dataset
from tests import bulk_data
from tests.bulk_data import picture

pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

from sigrun.bulk import job
from sigrun.bulk.loaded import How


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sigrun.cli.main(["embed-dataset", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    bulk_data.shard(tmp_path / "in" / "a.tar", range(5))
    return tmp_path / "in"


def test_what_is_said(
    tiny_q4: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said = (0, "", f"sigrun: note: 5 rows in 2 files in {out}\n")
    assert run(capsys, tiny_q4, shards, out, "--rows", 3, "--keep", "txt, json") == said
    assert run(capsys, tiny_q4, shards, out, "--rows", 3, "--keep", "txt,json") == said
    assert run(capsys, tiny_q4, shards, out, "--rows", 3, "--keep", "txt,json", "-q") == (0, "", "")
    table = pq.read_table(out)
    assert table["txt"].to_pylist() == [f"number {seed}" for seed in range(5)]
    assert table["json"].null_count == 5
    code, printed, err = run(capsys, tiny_q4, shards, out)
    assert (code, printed) == (1, "")
    assert "--rows, --keep" in err or "--keep, --rows" in err
    assert run(capsys, tiny_q4, shards, out, "--restart")[0] == 0
    assert pq.read_table(out).column_names == ["source", "row", "item", "embedding", "error"]


def test_the_default_is_the_jobs() -> None:
    assert embed_dataset.DEFAULT_ROWS == job.ROWS


def test_a_cut_tar_shard(
    tiny_q4: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its whole pictures are kept, its end is an error, and the shards after it are not touched by it."""
    bulk_data.shard(shards / "b.tar", range(5, 7))
    cut = shards / "a.tar"
    cut.write_bytes(cut.read_bytes()[: 3 * 2048 + 600])
    code, _, err = run(capsys, tiny_q4, shards, tmp_path / "out")
    assert code == 1
    assert "1 of them failed" in err
    table = pq.read_table(tmp_path / "out")
    assert table["item"].to_pylist() == ["0000", "0001", "0002", None, "0005", "0006"]
    assert "cut off" in table["error"][3].as_py()


@pytest.mark.parametrize("where", ["footer", "page"])
def test_damaged_parquet(
    tiny_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    """A file without its end is one bad row; a damaged page costs the rows of its row group only."""
    columns = {"photo": [picture(seed) for seed in range(6)], "id": [*range(6)]}
    options = {
        "row_group_size": 2,
        "compression": "none",
        "use_dictionary": False,
        "write_statistics": False,  # they would hold pictures, too
        "write_page_checksum": True,
    }
    for name in ("a", "b"):
        path = bulk_data.parquet(tmp_path / "in" / f"{name}.parquet", columns, **options)
    data = bytearray(path.read_bytes())
    if where == "footer":
        path.write_bytes(data[:-100])
    else:
        data[data.index(picture(3)) + 20] ^= 1
        path.write_bytes(data)
    assert run(capsys, tiny_q4, tmp_path / "in", tmp_path / "out", "--keep", "id")[0] == 1
    table = pq.read_table(tmp_path / "out").to_pylist()
    bad = [(row["source"], row["row"]) for row in table if row["error"]]
    assert bad == ([("b.parquet", 0)] if where == "footer" else [("b.parquet", 2), ("b.parquet", 3)])
    assert [row["id"] for row in table if not row["error"]][:6] == [*range(6)]
    assert len(table) == (7 if where == "footer" else 12)


def test_wrong_columns(tiny_q4: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [picture(0), picture(1)]
    path = bulk_data.parquet(
        tmp_path / "in" / "a.parquet", {"left": pictures, "right": pictures, "id": [1, 2], "row": [1, 2]}
    )

    def refused(*arguments: object) -> str:
        code, printed, err = run(capsys, tiny_q4, path.parent, tmp_path / "out", *arguments)
        assert (code, printed) == (1, "")
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists()
        return err

    assert "more than one column that may hold pictures" in (err := refused())
    assert "name one with --column: left, right" in err
    assert "has no column 'none'; its columns are: left, right, id, row" in refused("--column", "none")
    assert "column 'id' holds int64, not the bytes of pictures" in refused("--column", "id")
    assert "has no column 'x'" in refused("--column", "left", "--keep", "id,x")
    assert "there is a column of that name already" in refused("--column", "left", "--keep", "row")
    bulk_data.parquet(path.parent / "b.parquet", {"left": pictures, "id": ["a", "b"]})
    assert "other types" in refused("--column", "left", "--keep", "id")
    for file in path.parent.iterdir():
        file.write_bytes(b"PAR1 nothing PAR1")
    assert "none of the Parquet files can be read" in refused()


@pytest.mark.parametrize(
    ("arguments", "words", "expected"),
    [
        (["--workers", "2"], "--workers is for --engine ray", 2),
        (["--column", "png"], "a folder of pictures has no columns", 1),
        (["--format", "tar"], "there are no tar shards", 1),
        (["--compute", "f16", "--provider", "nowhere"], "nowhere", 1),
    ],
)
def test_what_cannot_be_meant(
    tiny_q4: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
    expected: int,
) -> None:
    source = bulk_data.folder(tmp_path / "in", 2)
    code, _, err = run(capsys, tiny_q4, source, tmp_path / "out", *arguments)
    assert code == expected
    assert words in err
    assert not [*tmp_path.glob("out/part-*")]


@pytest.mark.parametrize(("package", "extra"), [("pyarrow.parquet", "parquet"), ("ray.data", "ray")])
def test_a_missing_package_is_named(
    tiny_q4: Path,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = run(capsys, tiny_q4, shards, tmp_path / "out", "--engine", "ray")
    assert code == 1
    assert f"hint: pip install 'sigrun[{extra}]'" in err


def test_a_job_of_python_is_the_commands(
    tiny_q4: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What neither names is the same, to the pixel of the largest picture."""
    out = tmp_path / "out"
    job.Job.planned(How(str(tiny_q4)), shards, out, rows=2).done()
    parts = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    next(iter(parts)).unlink()
    assert run(capsys, tiny_q4, shards, out, "--rows", 2)[0] == 0
    assert sorted(parts) == sorted(out.glob("part-*"))
    assert sum(path.stat().st_mtime_ns != time for path, time in parts.items()) == 1
    code, _, err = run(capsys, tiny_q4, shards, out, "--rows", 2, "--max-megapixels", 89)
    assert (code, "--max-megapixels changed since then" in err) == (1, True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT"])
def test_a_stopped_command_goes_on(tiny_q4: Path, tmp_path: Path, kind: str) -> None:
    """Stopped from outside at whatever place it is, as soon as some of its parts are there."""
    source = bulk_data.shard(tmp_path / "in" / "a.tar", range(400)).parent
    out, whole = tmp_path / "out", tmp_path / "whole"

    def command(folder: Path) -> list[Any]:
        arguments = [tiny_q4, source, folder, "--rows", "2", "-q"]
        return [sys.executable, "-m", "sigrun", "embed-dataset", *map(str, arguments)]

    process = subprocess.Popen(command(out), stderr=subprocess.PIPE, text=True)
    while len([*out.glob("part-*")]) < 5:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(getattr(signal, kind))
    _, err = process.communicate()
    assert process.returncode == (130 if kind == "SIGINT" else -signal.SIGKILL)
    assert "Traceback" not in err
    assert 5 <= len([*out.glob("part-*")]) < 200
    assert not (out / "_manifest.json").exists()
    for folder in (out, whole):
        assert subprocess.run(command(folder), check=False).returncode == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }
    assert pq.read_table(out)["row"].to_pylist() == [*range(400)]
