"""How fast a folder is indexed and an index searched, and how much memory that takes.

Pictures are indexed by the bundled model, with the commands that users run. Searching is measured on made-up vectors of
the published size; each row of a table has a process of its own.

    python -m benchmarks.searching
    python -m benchmarks.searching --photos 40 --small 200 --vectors 1000 10000
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.children import MIB, Run, python
from benchmarks.clock import peak_bytes, timed
from benchmarks.exports import WORK, convert, need_room, say
from benchmarks.many_pictures import EMOJI, SIZE, make_photos
from benchmarks.markdown import table
from sigrun.search import SearchIndex, approximate
from sigrun.search.about import About, Encoding
from sigrun.search.store import Store
from sigrun.search.vectors import Rows, encoded, stride

WIDTH = 1152  # of SO400M
DIFFERENT = 20  # photographs; their names are links to the same files
SIDE = 96  # pixels of a small picture
QUERIES = 11
TOP = 10
ABOVE = 0.95
PIECE = 10_000  # vectors made at once
ROOM = 5_000_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print Markdown; with ``--part`` measure one, in this process, and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=500, help="photographs of two megapixels")
    parser.add_argument("--small", type=int, default=1000, help="small pictures, and ten times as many")
    parser.add_argument("--vectors", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--graph", type=int, default=50_000, help="vectors of the approximate index")
    parser.add_argument("--duplicates", type=int, default=100_000, help="vectors compared with each other")
    parser.add_argument("--part", choices=PARTS, help="only this one; needs --index, --count and --encoding")
    parser.add_argument("--index", type=Path)
    parser.add_argument("--count", type=int)
    parser.add_argument("--encoding", choices=("float16", "int8"))
    chosen = parser.parse_args(arguments)
    if chosen.part is not None:
        print(json.dumps(PARTS[chosen.part](chosen.index, chosen.count, chosen.encoding)))
        return 0
    need_room(int(ROOM * max(chosen.vectors) / 1_000_000) + 500_000_000)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        pages = [
            indexing(Path(folder), chosen.photos, chosen.small),
            exact(Path(folder), chosen.vectors),
            graph(Path(folder), chosen.graph),
            duplicates(Path(folder), chosen.duplicates),
        ]
    print("\n\n".join(pages))
    return 0


# ---- indexing ----


def indexing(folder: Path, photos: int, small: int) -> str:
    """The table of rates and memory of ``sigrun index``."""
    artifact = convert(EMOJI, "q4_k_m", folder, "--no-verify").path
    make_photos(folder / "made", DIFFERENT)
    large = linked(sorted((folder / "made").iterdir()), folder / "photos", photos)
    made = small_pictures(folder / "small", min(100, small))
    few, many = (linked(made, folder / f"small-{count}", count) for count in (small, 10 * small))
    rows = []
    megapixels = SIZE[0] * SIZE[1] / 1e6
    for pictures, count, what in (
        (large, photos, f"{photos:,} JPEG files of {megapixels:.0f} megapixels, new"),
        (few, small, f"{small:,} PNG files of {SIDE} × {SIDE}, new"),
        (many, 10 * small, f"{10 * small:,} such files, new"),
    ):
        rows.append(_indexed(what, count, artifact, pictures))
    rows.append(_indexed("nothing changed", 10 * small, artifact, many))
    moved = many.rename(many.with_name("renamed"))
    index = many.with_name(f"{many.name}.sigrun")
    command = (str(artifact), str(moved), "-o", str(index))
    rows.append(_indexed("the folder renamed", 10 * small, *command))
    (moved / "00").rename(moved / "elsewhere")
    rows.append(_indexed("a folder in it renamed, a tenth of the pictures", 10 * small, *command))
    return "\n\n".join(
        [
            "Indexing a folder by the bundled model, whole commands from start to exit. All files are in the page "
            "cache; to see that nothing changed, each file's size and time are asked for.",
            table(["", "seconds", "pictures per second", "peak memory"], rows),
        ]
    )


def _indexed(what: str, count: int, *words: object) -> list[str]:
    say(f"sigrun index: {what}")
    found: Run = python("-m", "sigrun", "index", *map(str, words), "-q")
    return [
        what,
        f"{found.seconds:.1f}",
        f"{count / found.seconds:,.0f}",
        f"{found.peak_bytes / MIB:,.0f} MiB",
    ]


def linked(files: Sequence[Path], folder: Path, count: int) -> Path:
    """A folder of folders with so many names of some files, ten folders in all."""
    for number in range(count):
        file = files[number % len(files)]
        inside = folder / f"{number % 10:02}"
        inside.mkdir(parents=True, exist_ok=True)
        (inside / f"{number:08}{file.suffix}").hardlink_to(file)
    return folder


def small_pictures(folder: Path, count: int) -> list[Path]:
    """PNG files of large squares."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        colours = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
        Image.fromarray(colours).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


# ---- searching ----


def vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors, float32 [count, WIDTH], that lie as those of pictures do: a few directions hold most of their
    length, and one picture in fifty is nearly another."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, WIDTH + 1, dtype=np.float32) ** np.float32(-0.5)
    found = rng.standard_normal((count, WIDTH), np.float32) * scale
    again = count // 50
    found[:again] = found[-again - 1 : -1] + rng.standard_normal((again, WIDTH), np.float32) * scale * 0.1
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def make_index(folder: Path, count: int, encoding: Encoding, *, different: bool) -> Path:
    """An index of made-up vectors; unless ``different``, the same ten thousand again and again, which takes as long to
    search."""
    say(f"making an index of {count:,} vectors, {encoding}")
    index = folder / f"{encoding}-{count}"
    about = About(
        folder=str(folder), artifact="", space="", model="", variant="", weights="", compute="", provider="",
        decode="exact", max_pixels=1, preprocessing={}, width=WIDTH, encoding=encoding, logit_scale=4.0,
        logit_bias=-10.0, generator="",
    )  # fmt: skip
    store = Store.create(index, about)
    size = stride(WIDTH, encoding)
    data = b""
    try:
        with store.vectors(0).open("wb") as file, store.writing():
            for first in range(0, count, PIECE):
                if different or not data:
                    data = encoded(vectors(min(PIECE, count), first), encoding)
                here = min(PIECE, count - first)
                file.write(data[: here * size])
                store.db.executemany(
                    "INSERT INTO pictures (path, size, mtime, row, crc) VALUES (?, 0, 0, ?, ?)",
                    (
                        (
                            b"%08d.jpg" % (first + row),
                            first + row,
                            zlib.crc32(data[row * size : (row + 1) * size]),
                        )
                        for row in range(here)
                    ),
                )
            store.set_meta("rows", count)
    finally:
        store.close()
    return index


def queries(count: int) -> NDArray[np.float32]:
    """Unit vectors to search for, float32 [count, WIDTH]."""
    return vectors(50 + count, 10**6)[50:]


def exact(folder: Path, counts: Sequence[int]) -> str:
    """The table of exact search."""
    rows = []
    for count in counts:
        for encoding in ("float16", "int8"):
            index = make_index(folder, count, encoding, different=False)
            found = _child("exact", index, count, encoding)
            rows.append(
                [
                    f"{count:,}, {encoding}",
                    f"{found['open'] * 1e3:,.0f}",
                    f"{found['search'] * 1e3:,.1f}",
                    f"{found['own_bytes'] / MIB:,.0f} MiB" if found["own_bytes"] else "?",
                    f"{found['peak_bytes'] / MIB:,.0f} MiB",
                    f"{found['file_bytes'] / MIB:,.0f} MiB",
                ]
            )
            shutil.rmtree(index)
    heads = [
        "vectors",
        "open, ms",
        "search, ms, median",
        "own memory, peak",
        "with mapped file",
        "index on disk",
    ]
    return "\n\n".join(
        [
            f"Exact search for the {TOP} nearest of a unit vector of {WIDTH} numbers, {QUERIES} times. Own memory is "
            "the process's without pages of the mapped file, which the system takes back when it needs them.",
            table(heads, rows),
        ]
    )


def measure_exact(index: Path, count: int, _: str) -> Mapping[str, float]:
    """Open and search in this process."""
    wanted = queries(QUERIES + 1)
    with _Own() as own:
        opened: list[SearchIndex] = []
        opening = timed(lambda: opened.append(SearchIndex.open(index)))
        with opened[0] as searched:
            searched.search(wanted[-1], top=TOP)
            seconds = [timed(lambda q=q: searched.search(q, top=TOP)) for q in wanted[:-1]]  # type: ignore[misc]
            assert len(searched) == count
    nbytes = sum(path.stat().st_size for path in index.iterdir())
    return {
        "open": opening,
        "search": float(np.median(seconds)),
        "own_bytes": own.peak,
        "peak_bytes": peak_bytes(),
        "file_bytes": nbytes,
    }


def graph(folder: Path, count: int) -> str:
    """The table of the approximate index."""
    heads = ["", "build, s", "search, ms, median", f"recall@{TOP}, mean / least", "file"]
    what = f"{count:,} vectors, float16"
    if importlib.util.find_spec("usearch") is None:
        rows = [[what, "usearch is not installed", "", "", ""]]
    else:
        index = make_index(folder, count, "float16", different=True)
        found = _child("graph", index, count, "float16")
        rows = [
            [f"{what}, exact", "", f"{found['exact'] * 1e3:,.1f}", "1.000 / 1.000", ""],
            [
                f"{what}, usearch",
                f"{found['build']:,.0f}",
                f"{found['search'] * 1e3:,.1f}",
                f"{found['mean']:.3f} / {found['least']:.3f}",
                f"{found['file_bytes'] / MIB:,.0f} MiB",
            ],
        ]
        shutil.rmtree(index)
    return "\n\n".join([f"`--approximate` against exact search, {10 * QUERIES} queries.", table(heads, rows)])


def measure_graph(index: Path, count: int, encoding: Encoding) -> Mapping[str, float]:
    """Build a graph in this process, and search by it and without it."""
    rows = Rows(index / "vectors.0", count, WIDTH, encoding, str(index))
    building = timed(lambda: approximate.build(index, (0, count), rows))
    quick, slow, recall = [], [], []
    with SearchIndex.open(index) as searched:
        for query in queries(10 * QUERIES):
            start = time.perf_counter()
            near = searched.search(query, top=TOP, quick=True)
            middle = time.perf_counter()
            true = searched.search(query, top=TOP)
            slow.append(time.perf_counter() - middle)
            quick.append(middle - start)
            recall.append(len({hit.path for hit in near} & {hit.path for hit in true}) / len(true))
    return {
        "build": building,
        "search": float(np.median(quick)),
        "exact": float(np.median(slow)),
        "mean": float(np.mean(recall)),
        "least": min(recall),
        "file_bytes": approximate.graph(index, (0, count)).stat().st_size,
    }


def duplicates(folder: Path, count: int) -> str:
    """The table of near-duplicates."""
    index = make_index(folder, count, "float16", different=True)
    found = _child("duplicates", index, count, "float16")
    shutil.rmtree(index)
    own = f"{found['own_bytes'] / MIB:,.0f} MiB" if found["own_bytes"] else "?"
    row = [f"{count:,} vectors", f"{found['seconds']:,.1f}", f"{found['groups']:,.0f}", own]
    return "\n\n".join(
        [
            f"`--duplicates --above {ABOVE}`: all pairs.",
            table(["", "seconds", "groups found", "own memory, peak"], [row]),
        ]
    )


def measure_duplicates(index: Path, _: int, __: str) -> Mapping[str, float]:
    """Find near-duplicates in this process."""
    found: list[int] = []
    with _Own() as own, SearchIndex.open(index) as searched:
        seconds = timed(lambda: found.append(len(searched.duplicates(ABOVE))))
    return {"seconds": seconds, "groups": found[0], "own_bytes": own.peak}


PARTS: Mapping[str, Callable[..., Mapping[str, float]]] = {
    "exact": measure_exact,
    "graph": measure_graph,
    "duplicates": measure_duplicates,
}


def _child(part: str, index: Path, count: int, encoding: str) -> Mapping[str, float]:
    say(f"{part}: {count:,} vectors, {encoding}")
    options = ("--index", str(index), "--count", str(count), "--encoding", encoding)
    done = python("-m", "benchmarks.searching", "--part", part, *options)
    found: dict[str, float] = json.loads(done.output.splitlines()[-1])
    return found


class _Own:
    """The most memory of this process without file pages, looked at every few milliseconds; 0 where none can tell."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Own:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists():
            line = next(
                line for line in status.read_text("utf-8").splitlines() if line.startswith("RssAnon:")
            )
            self.peak = max(self.peak, int(line.split()[1]) * 1024)
            if self._ended.wait(0.005):
                return


if __name__ == "__main__":
    sys.exit(main())
