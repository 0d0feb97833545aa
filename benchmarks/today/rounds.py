"""Runs every peer in rounds, each tower in a process of its own, one process at a time."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.children import run
from benchmarks.exports import say
from benchmarks.today.catalogue import TORCH, Peer, tower_path
from benchmarks.today.environments import ROOT
from benchmarks.today.given import Tower


@dataclass(frozen=True)
class Seen:
    """What one process did.

    Attributes:
        seconds: of each item after the first, one at a time.
        batch_s: of the batch; none if it ran none.
        load_s: reading the weights, the library already imported.
        start_s: from the start of the process to the first embedding.
        peak_bytes: largest resident memory up to the last single item.
        vectors: float32 [items, width], the embeddings of all single items, unit length.
    """

    seconds: tuple[float, ...]
    batch_s: float | None
    load_s: float
    start_s: float
    peak_bytes: int
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class Placed:
    """A peer that can run here.

    Attributes:
        peer: who.
        path: its file or folder.
        python: the interpreter it needs.
    """

    peer: Peer
    path: Path
    python: Path = Path(sys.executable)


@dataclass
class Results:
    """What was seen, by peer and tower, in the order of rounds; and why some peers have nothing to show."""

    seen: dict[tuple[str, Tower], list[Seen]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How peers are run.

    Attributes:
        inputs: the pictures and texts, as ``given`` writes them.
        work: a folder for caches and embeddings, empty at first.
        rounds: how often everyone has a turn.
        threads: threads within one run, the same for all.
        batch: items of the batch; 0: none.
        towers: which.
    """

    inputs: Path
    work: Path
    rounds: int
    threads: int
    batch: int
    towers: Sequence[Tower]


def measure(placed: Sequence[Placed], plan: Plan) -> Results:
    """Run all peers in turn, and again, every second round backwards, so that a machine that grows slower or faster
    does so for all of them. The batch is run in the first and the last round. A peer that fails has no more turns."""
    results = Results()
    for each in placed:
        for tower in plan.towers if each.peer.cache == "filled" else ():
            say(f"filling the cache: {each.peer.name}, {tower}")
            _child(each, tower, plan, 0)
    for turn in range(plan.rounds):
        batch = plan.batch if turn in (0, plan.rounds - 1) else 0
        for each in placed if turn % 2 == 0 else reversed(placed):
            for tower in plan.towers:
                if each.peer.name in results.failed:
                    continue
                say(f"round {turn + 1} of {plan.rounds}: {each.peer.name}, {tower}")
                try:
                    seen = _child(each, tower, plan, batch)
                except SystemExit as failed:
                    results.failed[each.peer.name] = f"failed ({str(failed).rsplit(': ', 1)[-1]})"
                    continue
                results.seen.setdefault((each.peer.name, tower), []).append(seen)
    return results


def reference(checkpoint: Path, plan: Plan, tower: Tower) -> NDArray[np.float32]:
    """Transformers' own embeddings in float32 of all items, unit length."""
    say(f"reference: {TORCH}, {tower}")
    return _child(Placed(Peer(TORCH, "transformers", "float32"), checkpoint), tower, plan, 0).vectors


def _child(placed: Placed, tower: Tower, plan: Plan, batch: int) -> Seen:
    """One process."""
    peer, path = placed.peer, tower_path(placed.peer, placed.path, tower)
    _into_page_cache(path)
    vectors = plan.work / "vectors.npy"
    command = [str(placed.python), "-m", "benchmarks.today.child", peer.runtime, str(path), tower]
    command += [str(plan.inputs), str(vectors), "--option", peer.option]
    done = run(
        [*command, "--threads", str(plan.threads), "--batch", str(batch)],
        {"PYTHONPATH": str(ROOT), "SIGRUN_CACHE": _cache(peer, plan.work)},
    )
    found = json.loads(done.output.splitlines()[-1])
    rows = np.load(vectors)
    return Seen(
        tuple(found["seconds"]),
        found["batch_s"],
        found["load_s"],
        found["first_at"] - done.started,
        found["peak_bytes"],
        rows / np.linalg.norm(rows, axis=1, keepdims=True),
    )


def _cache(peer: Peer, work: Path) -> str:
    """The cache folder that a child of ours is to use, or ``off``."""
    if peer.cache == "off":
        return "off"
    folder = cache_folder(peer, work)
    if peer.cache == "empty" and folder.exists():
        shutil.rmtree(folder)
    return str(folder)


def cache_folder(peer: Peer, work: Path) -> Path:
    """Where a peer of ours keeps its prepared matrices."""
    return work / f"cache-{peer.files}-{peer.cache}"


def _into_page_cache(path: Path) -> None:
    """Read a peer's files once, so that none waits for the disk where another did not."""
    if path.is_dir():
        files = [path / "model.safetensors"]
    else:
        files = [path, *path.parent.glob(f"{path.stem}.bin"), *path.parent.glob(f"{path.name}.data")]
    for file in files:
        with file.open("rb") as opened:
            while opened.read(1 << 24):
                pass
