"""Runs every benchmark and writes BENCHMARKS.md.

python -m benchmarks.report
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.children import python
from sigrun_hwcheck.probe import cpu

ROOT = Path(__file__).parent.parent
SECTIONS = (
    (
        "What quantizing costs",
        ("-m", "benchmarks.emoji_accuracy"),
        "The bundled model, trained from scratch, on drawings by a vendor it never saw, every name a candidate. "
        "Cosines are with transformers' fp32 embeddings; texts with those of our f32 variant. The reference for "
        "probabilities is transformers' image embeddings with our f32 text embeddings.",
    ),
    (
        "The published size",
        ("-m", "benchmarks.true_size"),
        "Random weights in the exact layout of google/siglip-so400m-patch14-384 (888 tensors, 3,511,950,624 bytes): "
        "size, time and memory are real, answers are not. Peak memory counts mapped file pages too.",
    ),
    (
        "Quantizers against ggml's",
        ("-m", "benchmarks.quantizers"),
        "The same synthetic matrices through our quantizers and ggml's own. Ratios below 1 mean ours is nearer.",
    ),
)


def machine() -> str:
    """The machine and the versions that the figures come from."""
    found = cpu.read()
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy", "pillow"))
    return (
        f"Measured on {found.name or platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}, "
        f"Python {platform.python_version()}, {packages}."
    )


def main() -> int:
    """Run and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "BENCHMARKS.md")
    output = parser.parse_args().output
    pages = ["# Benchmarks", "", f"Written by `make bench`. {machine()}", ""]
    for title, command, about in SECTIONS:
        print(f"{title} ...", file=sys.stderr)
        run = python(*command)
        pages += [f"## {title}", "", about, "", f"`python {' '.join(command)}`", "", run.output.strip(), ""]
    output.write_text("\n".join(pages), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
