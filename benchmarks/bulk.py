"""A data set into Parquet: the plain loop against Ray, and jobs that are killed and gone on with.

The data set are tar shards of photographs made by code, forty different ones taken again and again, embedded by the
bundled model. Each job has a process of its own and is timed from start to exit. What it costs to start is the time
until the first file is there; rows per second count from then on.

    python -m benchmarks.bulk
    python -m benchmarks.bulk --count 64
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.children import MIB, python
from benchmarks.exports import WORK, convert, need_room, say
from benchmarks.many_pictures import EMOJI, SIZE, make_photos
from benchmarks.markdown import table

DIFFERENT = 40
SHARDS = 8
ROWS = 16  # in a file, so that the job can be killed between two
ROOM = 2_000_000_000
WAYS = {
    "the plain loop": (),
    "Ray, 1 worker": ("--engine", "ray", "--workers", "1"),
    "Ray, 2 workers": ("--engine", "ray", "--workers", "2"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=400, help="photographs in all")
    chosen = parser.parse_args(arguments)
    missing = [name for name in ("pyarrow", "ray") if importlib.util.find_spec(name) is None]
    if "pyarrow" in missing:
        print("pyarrow is not installed: nothing could be measured.")
        return 0
    need_room(ROOM)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        print(measured(Path(folder), chosen.count, ray="ray" not in missing))
    return 0


def measured(folder: Path, count: int, *, ray: bool) -> str:
    """Both tables."""
    artifact = convert(EMOJI, "q4_k_m", folder, "--no-verify").path
    make_photos(folder / "photos", min(DIFFERENT, count))
    photos = sorted((folder / "photos").iterdir())
    shards(folder / "shards", photos, count, SHARDS)
    rows, hashes = [], []
    for way, options in WAYS.items():
        if options and not ray:
            rows.append([way, "ray is not installed", "", "", ""])
            continue
        say(f"{count} photographs: {way}")
        out = folder / f"out-{len(rows)}"
        command = ("-m", "sigrun", "embed-dataset", str(artifact), str(folder / "shards"), str(out), "-q")
        began = time.time()
        done = python(*command, "--rows", str(ROWS), *options)
        times = sorted(path.stat().st_mtime for path in out.glob("part-*"))
        rate = count * (1 - 1 / len(times)) / max(times[-1] - times[0], 1e-3)
        hashes.append(content(out))
        rows.append(
            [
                way,
                f"{done.seconds:.1f}",
                f"{times[0] - began:.1f}",
                f"{rate:.1f}",
                f"{done.peak_bytes / MIB:,.0f} MiB",
            ]
        )
    width, height = SIZE
    return "\n\n".join(
        [
            f"{count:,} JPEG files of {width} × {height} pixels in {SHARDS} tar shards, {ROWS} rows in a file, on "
            f"{os.cpu_count()} CPUs. Memory is the command's own process; Ray's workers have theirs.",
            table(
                ["", "seconds", "until the first file", "rows per second from then on", "peak memory"], rows
            ),
            f"Files of all jobs are {'the same' if len(set(hashes)) == 1 else 'NOT the same'}, byte for byte.",
            killed(folder, artifact, hashes[0], ray=ray),
        ]
    )


def killed(folder: Path, artifact: Path, expected: str, *, ray: bool) -> str:
    """The table of jobs that are killed (SIGKILL) when a third of their files are there, and gone on with."""
    files = len([*(folder / "out-0").glob("part-*")])
    rows = []
    for way in ("the plain loop", "Ray, 2 workers"):
        if WAYS[way] and not ray:
            rows.append([way, "ray is not installed", "", "", ""])
            continue
        say(f"killing: {way}")
        out = folder / f"killed-{len(rows)}"
        command = ("-m", "sigrun", "embed-dataset", str(artifact), str(folder / "shards"), str(out), "-q")
        command += ("--rows", str(ROWS), *WAYS[way])
        kept = _kill(command, out, files // 3)
        again = python(*command)
        whole = [path for path, seen in kept.items() if path.stat().st_mtime_ns == seen]
        same = "the same" if content(out) == expected else "NOT the same"
        rows.append(
            [way, f"{len(kept)} of {files}", f"{len(whole)} of {len(kept)}", f"{again.seconds:.1f}", same]
        )
        shutil.rmtree(out)
    heads = ["killed", "files that were there", "of these kept", "seconds to go on", "files in the end"]
    return table(heads, rows)


def _kill(command: Sequence[str], out: Path, files: int) -> dict[Path, int]:
    """Start a job and kill it with all of its workers; the files that it leaves, and their times."""
    process = subprocess.Popen([sys.executable, *command], start_new_session=True)
    while len([*out.glob("part-*")]) < files:
        if process.poll() is not None:
            sys.exit(f"{' '.join(command)}: ended before it could be killed")
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)  # until workers in other sessions have noticed
    return {path: path.stat().st_mtime_ns for path in out.glob("part-*")}


def shards(folder: Path, photos: Sequence[Path], count: int, number: int) -> None:
    """So many photographs in tar shards."""
    folder.mkdir()
    for shard in range(number):
        with tarfile.open(folder / f"{shard:03}.tar", "w") as archive:
            for at in range(shard, count, number):
                archive.add(photos[at % len(photos)], f"{at:08}.jpg")


def content(out: Path) -> str:
    """A hash over names and bytes of the Parquet files."""
    digest = hashlib.sha256()
    for path in sorted(out.glob("part-*")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
