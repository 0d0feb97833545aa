"""Where the time of one tower goes: seconds by kind of work and by operator, from ONNX Runtime's own profile.

The model is the synthetic checkpoint of the published size, exported without verification, or an artifact given with
--artifact. The first picture is left out; the others are averaged.

    python -m benchmarks.profile
    python -m benchmarks.profile --artifact model.gguf --tower text --compute exact
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.exports import WORK, convert, need_room, say
from benchmarks.markdown import table
from benchmarks.synthetic import checkpoint
from sigrun import sessions
from sigrun.artifact import Artifact
from sigrun.cpus import default_threads
from sigrun.manifest import TOWERS, TowerName

ROOM = 2_000_000_000
KINDS: Mapping[str, tuple[str, ...]] = {
    "linear layers": (
        "MatMulNBits",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "MatMulInteger",
        "Gemm",
    ),
    "rounding to 8 bits": ("DynamicQuantizeLinear", "QuantizeLinear"),
    "attention": ("MultiHeadAttention", "Attention", "Softmax"),
    "GELU": ("FastGelu", "Gelu", "BiasGelu", "QuickGelu"),
    "LayerNorm": ("LayerNormalization", "SkipLayerNormalization"),
    "additions": ("Add", "Sum"),
    "moving data": ("Transpose", "Reshape", "Concat", "Split", "Slice", "Gather", "Cast"),
}
"""Kind of work → the operators that do it."""
PRODUCTS = ("MatMul", "FusedMatMul")
"""A linear layer where the node is named after a weight, attention where two activations are multiplied."""


@dataclass(frozen=True)
class Node:
    """One operator of the graph as it ran.

    Attributes:
        name: its name in the graph; of nodes that multiply by a weight, that of the weight.
        operator: its type.
        seconds: of each run.
    """

    name: str
    operator: str
    seconds: tuple[float, ...]

    @property
    def kind(self) -> str:
        """What work it does."""
        if self.operator in PRODUCTS:
            return "linear layers" if self.name.startswith(("v.", "t.")) else "attention"
        return next((kind for kind, operators in KINDS.items() if self.operator in operators), "the rest")


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile and print Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--variant", default="q4_k_m", help="what the synthetic checkpoint is exported to")
    parser.add_argument("--tower", choices=TOWERS, default="image")
    parser.add_argument("--compute", default="int8")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args(arguments)
    with ExitStack() as stack:
        path: Path | None = chosen.artifact
        if path is None:
            need_room(ROOM)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=WORK)))
            path = convert(checkpoint(), chosen.variant, folder, "--no-verify").path
        say(f"profile: {chosen.tower} tower, {chosen.compute}, {chosen.threads} threads")
        nodes, whole = profile(path, chosen.tower, chosen.compute, chosen.threads, chosen.repeat)
    print(markdown(nodes, whole, f"{chosen.tower} tower, {chosen.compute}, {chosen.threads} threads"))
    return 0


def profile(
    path: Path, tower: TowerName, compute: str, threads: int, repeat: int
) -> tuple[list[Node], float]:
    """What each operator took in ``repeat`` runs after the first, and the median seconds of a whole run."""
    options = sessions.session_options

    def profiled(threads: int) -> Any:
        made = options(threads)
        made.enable_profiling = True
        made.profile_file_prefix = str(Path(folder) / "profile")
        return made

    with (
        tempfile.TemporaryDirectory() as folder,
        Artifact.open(path) as artifact,
        mock.patch.object(sessions, "session_options", profiled),
    ):
        session = sessions.TowerSession(artifact, tower, compute, threads)
        batch = _item(session)
        session.embed(batch)
        seconds = []
        for _ in range(repeat):
            start = time.perf_counter()
            session.embed(batch)
            seconds.append(time.perf_counter() - start)
        written = Path(session._session.end_profiling())
        events = json.loads(written.read_text("utf-8"))
        return nodes_of(events, runs=repeat + 1, first=1), statistics.median(seconds)


def _item(session: sessions.TowerSession) -> NDArray[Any]:
    """One input of the shape that a tower takes, the same every time."""
    first = session._session.get_inputs()[0]
    shape = [1 if not isinstance(n, int) else n for n in first.shape]
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def nodes_of(events: Iterable[Mapping[str, Any]], *, runs: int, first: int) -> list[Node]:
    """Operators from the events of a profile of several runs, without the ``first`` ones.

    Raises:
        ValueError: a node did not run as often in every run.
    """
    seen: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seen[event["name"].removesuffix("_kernel_time")].append(event)
    nodes = []
    for name, found in seen.items():
        if len(found) != runs:
            raise ValueError(f"{name} ran {len(found)} times in {runs} runs")
        kept = found[first:]
        nodes.append(Node(name, kept[0]["args"]["op_name"], tuple(e["dur"] / 1e6 for e in kept)))
    return nodes


def markdown(nodes: Sequence[Node], whole: float, what: str) -> str:
    """Two tables, by kind of work and by operator, the most expensive first."""
    spent = sum(map(_median, nodes))
    parts = [
        f"{what}: {whole:.3f} s an item, of which operators {spent:.3f} s, with the profile being written.",
        _shares("kind of work", {node: node.kind for node in nodes}, spent),
        _shares("operator", {node: node.operator for node in nodes}, spent),
    ]
    return "\n\n".join(parts)


def _shares(head: str, group: Mapping[Node, str], spent: float) -> str:
    seconds: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for node, name in group.items():
        seconds[name] += _median(node)
        count[name] += 1
    ranked = sorted(seconds, key=lambda name: -seconds[name])
    return table(
        [head, "nodes", "seconds an item", "share"],
        [[name, str(count[name]), f"{seconds[name]:.4f}", f"{seconds[name] / spent:.1%}"] for name in ranked],
    )


def _median(node: Node) -> float:
    return statistics.median(node.seconds)


if __name__ == "__main__":
    sys.exit(main())
