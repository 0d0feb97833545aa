"""Runs every benchmark and writes BENCHMARKS.md.

    python -m benchmarks.report
    python -m benchmarks.report --only "What quantizing costs"

With ``--only`` the other sections stay as they are; each says where it was measured. It needs 26 GB of disk, most of
them for the files of other runtimes, which stay under benchmarks/work as the synthetic checkpoint does. Its times are
worth little on a machine that does other work beside.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.children import python
from sigrun_hwcheck.probe import cpu

ROOT = Path(__file__).parent.parent
SECTIONS = (
    (
        "Against what people use today",
        ("-m", "benchmarks.today", "--rounds", "2", "--plot", "docs/benchmark.svg"),
        "Random weights in the exact layout of google/siglip-so400m-patch14-384, by every runtime that takes them, "
        "from one run.",
    ),
    (
        "Where the time goes",
        ("-m", "benchmarks.profile"),
        "Random weights of the published size: seconds of the image tower in form int8 by what ONNX Runtime computes.",
    ),
    (
        "A thousand pictures",
        ("-m", "benchmarks.many_pictures"),
        "From JPEG files to embeddings by the bundled model, each way in a process of its own.",
    ),
    (
        "The local API under load",
        ("-m", "benchmarks.serving"),
        "`sigrun serve` with the bundled model, its clients on the same machine.",
    ),
    (
        "Indexing and searching",
        ("-m", "benchmarks.searching"),
        "`sigrun index` and `search`: pictures by the bundled model, vectors made up at the published size.",
    ),
    (
        "Data sets into Parquet",
        ("-m", "benchmarks.bulk"),
        "`sigrun embed-dataset` on tar shards of photographs, by the bundled model.",
    ),
    (
        "What quantizing costs",
        ("-m", "benchmarks.variants", "--model", "emoji"),
        "The bundled model, trained from scratch, on drawings by a vendor it never saw, every name a candidate. "
        "Cosines are with transformers' fp32 embeddings; texts with those of our f32 variant. The reference for "
        "probabilities is transformers' image embeddings with our f32 text embeddings.",
    ),
    (
        "Exports of the published size",
        ("-m", "benchmarks.variants", "--model", "synthetic"),
        "Random weights in the exact layout of google/siglip-so400m-patch14-384 (888 tensors, 3,511,950,624 bytes): "
        "size, time and memory are real, answers are not. Peak memory counts mapped file pages too.",
    ),
    (
        "The published size",
        ("-m", "benchmarks.true_size"),
        "The same random weights, exported without verification, each tower in a process of its own: loading, memory, "
        "batches, start-up.",
    ),
    (
        "Memory, predicted and measured",
        ("-m", "benchmarks.memory", "--plot", "docs/memory.svg", "--repeat", "6"),
        "Peak resident memory of each tower, compute form and batch in a process of its own, beside what hwcheck "
        "predicts of the file, in MiB: low, best and high. The constants were fitted on such runs of these files, so "
        "that the table shows how well one set of constants fits them all; `tests/test_hwcheck_proof.py` holds "
        "files that it makes anew against them. A batch beyond what runs at once takes no more. The best figure is "
        "meant to lie within 5 % of what is measured, and never more than 2 % below: that is the bar. Forms f16 "
        "and w4f16, which CPUs compute in float32 and which are never chosen there, vary more. In no form may a "
        "measured peak lie above the high end. The last table says how far the same run lies apart, repeated.",
    ),
    (
        "Quantizers against ggml's",
        ("-m", "benchmarks.quantizers"),
        "The same synthetic matrices through our quantizers and ggml's own. Ratios below 1 mean ours is nearer.",
    ),
)
TITLES = tuple(title for title, _, _ in SECTIONS)
HEAD = "# Benchmarks\n\nWritten by `make bench`.\n"


def machine() -> str:
    """The machine and the versions that the figures come from."""
    found = cpu.read()
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy", "pillow"))
    return (
        f"Measured on {found.name or platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}, "
        f"Python {platform.python_version()}, {packages}."
    )


def section(command: Sequence[str], about: str) -> str:
    """Run a benchmark, and what its section says."""
    return "\n\n".join([about, f"`python {' '.join(command)}`", machine(), python(*command).output.strip()])


def sections(page: str) -> dict[str, str]:
    """A page's sections, title → text."""
    _, *parts = re.split(r"^## (.*)\n", page, flags=re.MULTILINE)
    return {title: text.strip() for title, text in zip(parts[::2], parts[1::2], strict=True)}


def page(found: Mapping[str, str]) -> str:
    """The page, its sections in their order; one that is no longer known is dropped."""
    return "\n".join([HEAD, *(f"## {title}\n\n{found[title]}\n" for title in TITLES if title in found)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and write, section by section."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "BENCHMARKS.md")
    parser.add_argument("--only", action="append", choices=TITLES, help="may be repeated; default: all")
    chosen = parser.parse_args(arguments)
    for title, command, about in SECTIONS:
        if chosen.only and title not in chosen.only:
            continue
        print(f"{title} ...", file=sys.stderr, flush=True)
        text = section(command, about)
        found = sections(chosen.output.read_text("utf-8")) if chosen.output.exists() else {}
        chosen.output.write_text(page({**found, title: text}), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
