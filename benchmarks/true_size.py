"""Load and run a model of the published size: google/siglip-so400m-patch14-384 with random weights.

Writes the synthetic checkpoint once (3.5 GB under benchmarks/work/), exports it with the command users have, without
verification, and runs each tower in a process of its own. Prints a Markdown table; ``variants`` times exports.

    python -m benchmarks.true_size
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.children import MIB, Run, python
from benchmarks.exports import WORK, convert
from benchmarks.synthetic import checkpoint
from sigrun.artifact import Artifact
from sigrun.manifest import TOWERS, TowerName
from sigrun_hwcheck.memory import need
from sigrun_hwcheck.stored import from_file


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="q4_k_m")
    arguments = parser.parse_args()
    source = checkpoint()
    with tempfile.TemporaryDirectory(dir=WORK) as out:
        path = str(convert(source, arguments.variant, Path(out), "--no-verify").path)
        os.environ["SIGRUN_CACHE"] = str(Path(out) / "cache")  # empty at first, so that both loads are seen
        towers = {
            (tower, compute): python(
                "-m", "benchmarks.tower", path, tower, "--compute", compute.split(",")[0]
            )
            for compute in ("exact", "int8", "int8, again")
            for tower in TOWERS
        }
        os.environ["SIGRUN_CACHE"] = "off"
        demo = sorted((Path(__file__).parent.parent / "examples/emoji_siglip/heldout/demo").glob("*.png"))[0]
        labels = ("--label", "a cat", "--label", "a dog")
        classified = python("-m", "sigrun", "classify", path, str(demo), *labels)
        fits = python("-m", "sigrun_hwcheck", path)
        with Artifact.open(path) as artifact:
            rows = table(artifact, towers, classified, fits)
    print("\n".join(rows))
    return 0


def table(
    artifact: Artifact, towers: dict[tuple[TowerName, str], Run], classified: Run, fits: Run
) -> list[str]:
    """The Markdown table."""
    manifest = artifact.manifest
    bits = manifest.bits_per_weight
    rows = [
        f"| {manifest.variant}, synthetic SO400M/14-384 | |",
        "|---|---:|",
        f"| file | {artifact.nbytes:,} bytes |",
    ]
    for name in artifact.towers:
        size = artifact.tower_nbytes(name)
        rows.append(f"| {name} tower in the file | {size / MIB:.1f} MiB, {bits[name]:.2f} bits per weight |")
    for (tower, compute), run in towers.items():
        seen = json.loads(run.output)
        rows += [
            f"| {compute}: {tower} tower, load | {seen['load_s']:.2f} s |",
            f"| {compute}: {tower} tower, one item, {seen['threads']} threads | {seen['median_s']:.2f} s |",
            f"| {compute}: {tower} tower alone, peak memory of the process | {run.peak_bytes / MIB:,.0f} MiB |",
            f"| {compute}: {tower} tower, from process start to the first embedding | {seen['from_start_s']:.2f} s |",
        ]
        predicted = need(from_file(artifact.path), tower, 1) if compute == "exact" else None
        if predicted is not None:
            expected = predicted.resident_bytes
            rows.append(
                f"| the same, predicted by hwcheck: best, high end | {expected.best_bytes / MIB:,.0f}, "
                f"{expected.high_bytes / MIB:,.0f} MiB |"
            )
    rows += [
        f"| `sigrun classify`, one picture, two labels, from start to exit | {classified.seconds:.2f} s |",
        f"| `sigrun classify`, peak memory, both towers | {classified.peak_bytes / MIB:,.0f} MiB |",
        f"| `hwcheck` on the file | {fits.seconds:.2f} s |",
    ]
    return rows


if __name__ == "__main__":
    sys.exit(main())
