"""How far the example hosts are from the Python runtime, and how much each installs.

``python -m tests.hosts_table`` prints both tables of docs/hosts.md.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from sigrun import Siglip
from tests import hosts
from tests.hosts import DEMO, HOSTS, LABELS, Scores

APART = {"tall.png": "tall", "16-bit-grey.png": "16-bit grey", "profile.png": "colour profile"}
"""Kinds of pictures that some host is further away on, and their headings."""
PACKAGES = HOSTS / "node_modules"
INSTALLED: Mapping[str, Sequence[tuple[str, tuple[str, ...]]]] = {
    "Node": [
        ("ONNX Runtime, this system's part", ("onnxruntime-node/bin/napi-v6/linux/x64",)),
        ("ONNX Runtime, its JavaScript", ("onnxruntime-node/dist", "onnxruntime-common/dist/cjs")),
        ("sharp with libvips", ("sharp", "@img")),
        ("tokenizers", ("@huggingface/tokenizers/dist/tokenizers.min.mjs",)),
    ],
    "browser": [
        (
            "ONNX Runtime as WebAssembly",
            tuple(
                f"onnxruntime-web/dist/{name}"
                for name in (
                    "ort.wasm.min.mjs",
                    "ort-wasm-simd-threaded.mjs",
                    "ort-wasm-simd-threaded.wasm",
                )
            ),
        ),
        ("tokenizers", ("@huggingface/tokenizers/dist/tokenizers.mjs",)),
    ],
}
"""Host → what it needs of the installed packages at run time."""


@dataclass(frozen=True)
class Difference:
    """How far answers are apart, over all pictures and labels.

    Attributes:
        probability, logit: the largest; a host without logits has NaN.
        pictures: picture → the largest of each there.
        first: pictures with another label first.
    """

    probability: float
    logit: float
    pictures: Mapping[str, tuple[float, float]]
    first: tuple[str, ...]


def difference(theirs: Scores, ours: Scores) -> Difference:
    """Of the same pictures and labels."""
    assert theirs.keys() == ours.keys()
    apart: dict[str, tuple[float, float]] = {}
    for picture, scores in ours.items():
        assert theirs[picture].keys() == scores.keys()
        pairs = np.array([(theirs[picture][label], both) for label, both in scores.items()])  # [labels, 2, 2]
        probability, logit = np.abs(pairs[:, 0] - pairs[:, 1]).max(axis=0)
        apart[picture] = float(probability), float(logit)
    probability, logit = np.array(list(apart.values())).max(axis=0)
    first = tuple(name for name in ours if next(iter(theirs[name])) != next(iter(ours[name])))
    return Difference(float(probability), float(logit), apart, first)


def drawings(folder: Path, size: int | None = None) -> list[Path]:
    """The drawings of ``make demo``; with ``size``, made that large in ``folder`` as the runtime would make them."""
    names = sorted(path.stem for path in DEMO.glob("*.png"))
    if size is None:
        return [DEMO / f"{name}.png" for name in names]
    folder.mkdir()
    for name in names:
        with Image.open(DEMO / f"{name}.png") as opened:
            small = opened.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        small.save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in names]


def drawn_labels() -> list[str]:
    """What the drawings show."""
    return (DEMO / "labels.txt").read_text("utf-8").split("\n")[:-1]


def answers() -> str:
    """Every host beside the Python runtime, as a table: largest differences of a probability and of a logit."""
    lines = [
        f"| host | drawings | {len(hosts.KINDS) - len(APART)} other kinds | {' | '.join(APART.values())} |",
        f"|---{'|---:' * (2 + len(APART))}|",
    ]

    def cell(theirs: Scores, ours: Scores) -> str:
        found = difference(theirs, ours)
        assert found.first == ()
        return f"{found.probability:.0e}" + ("" if np.isnan(found.logit) else f", {found.logit:.0e}")

    def add(host: str, drawn: Scores, every: Scores) -> None:
        cells = [
            cell(drawn, own),
            cell(*({k: v for k, v in s.items() if k not in APART} for s in (every, kinds))),
        ]
        cells += [cell({kind: every[kind]}, {kind: kinds[kind]}) for kind in APART]
        lines.append(f"| {host} | {' | '.join(cells)} |")

    with tempfile.TemporaryDirectory() as name, hosts.files(Path(name)) as model:
        folder = Path(name)
        paths, drawn, labels = hosts.pictures(folder / "kinds"), drawings(folder), drawn_labels()
        small, drawn_set = drawings(folder / "small", hosts.SIDE), folder / "drawn.labels.safetensors"
        with Siglip.load(model.gguf, compute="exact") as opened:
            opened.label_set(labels).save(drawn_set)
        own = hosts.python_scores(model.gguf, drawn, labels)
        kinds = hosts.python_scores(model.gguf, paths, LABELS)
        add("Node", hosts.node_scores(model, drawn, labels), hosts.node_scores(model, paths))
        for threads in (1, 2):
            with hosts.opened_page(model.bundle, folder / f"profile-{threads}", threads) as page:
                host = f"browser, {threads} thread{'s' * (threads > 1)}"
                add(host, hosts.page_scores(page, drawn, labels), hosts.page_scores(page, paths))
        add("C++", hosts.cpp_scores(model, drawn, drawn_set), hosts.cpp_scores(model, paths))
        empty = " | ".join("–" for _ in range(1 + len(APART)))
        lines.append(
            f"| transformers.js | {cell(hosts.transformers_js_scores(model, drawn, labels), own)} | {empty} |"
        )
        resized = hosts.transformers_js_scores(model, small, labels)
        near = cell(resized, hosts.python_scores(model.gguf, small, labels))
        lines.append(
            f"| transformers.js, drawings made {hosts.SIDE} × {hosts.SIDE} before | {near} | {empty} |"
        )
    return "\n".join(lines)


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum((Path(place) / name).stat().st_size for place, _, names in os.walk(path) for name in names)


def sizes() -> str:
    """What each host needs beside the model, as a table."""
    lines = ["| host | part | MB |", "|---|---|---:|"]

    def add(host: str, part: str, count: float) -> None:
        lines.append(f"| {host} | {part} | {count / 1e6:.1f} |")

    for host, parts in INSTALLED.items():
        found = [sum(size(PACKAGES / name) for name in names) for _, names in parts]
        for (part, _), count in zip(parts, found, strict=True):
            add(host, part, count)
        add(host, "**together**", sum(found))
    add("Node", "as npm installs it: ONNX Runtime for every system", size(PACKAGES / "onnxruntime-node"))
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    add("C++", "the program", size(hosts.cpp_program()))
    add("C++", "ONNX Runtime", size(library))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{answers()}\n\n{sizes()}\n")
