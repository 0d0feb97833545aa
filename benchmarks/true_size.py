"""Load and run a model of the published size: google/siglip-so400m-patch14-384 with random weights.

Writes the synthetic checkpoint once (3.5 GB under benchmarks/work/), exports it with the command users have, without
verification, and runs each tower in a process of its own. Prints Markdown tables; ``variants`` times exports.

    python -m benchmarks.true_size
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.children import MIB, Run, python
from benchmarks.exports import WORK, convert, say
from benchmarks.markdown import table
from benchmarks.synthetic import checkpoint
from sigrun.artifact import Artifact
from sigrun.manifest import TOWERS, TowerName
from sigrun_hwcheck.memory import need
from sigrun_hwcheck.stored import from_file

FORMS = ("exact", "int8", "int8, again")
"""Compute forms; the last finds in the cache what the one before it left there."""
BATCHES = (1, 2, 4, 8)
IMPORTS = ("pass", "import sigrun", "from sigrun import Siglip", "import sigrun.cli")
DEMO = Path(__file__).parent.parent / "examples" / "emoji_siglip" / "heldout" / "demo"


@dataclass(frozen=True)
class Commands:
    """Commands as users give them.

    Attributes:
        classified: ``sigrun classify``, one picture and two labels.
        fits: ``hwcheck`` on the file.
        imports: statement → median seconds of an interpreter that does nothing else.
    """

    classified: Run
    fits: Run
    imports: Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", default="q4_k_m")
    parser.add_argument("--artifact", type=Path, help="a file to measure instead of exporting one")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=WORK) as out:
        path = chosen.artifact or convert(checkpoint(), chosen.variant, Path(out), "--no-verify").path
        cache = Path(out) / "cache"  # empty at first, so that both loads are seen
        towers = {(tower, form): _tower(path, tower, form, cache) for form in FORMS for tower in TOWERS}
        picture = sorted(DEMO.glob("*.png"))[0]
        labels = ("--label", "a cat", "--label", "a dog")
        commands = Commands(
            python("-m", "sigrun", "classify", str(path), str(picture), *labels),
            python("-m", "sigrun_hwcheck", str(path)),
            {statement: _import(statement) for statement in IMPORTS},
        )
        with Artifact.open(path) as artifact:
            predicted = {key: _predicted(path, *key) for key in towers}
            print(markdown(artifact, towers, predicted, commands))
    return 0


def _tower(path: Path, tower: TowerName, form: str, cache: Path) -> dict[str, Any]:
    """What ``tower`` prints."""
    say(f"{form}: {tower} tower")
    # What is cached was measured without it already; batches take as long either way.
    batches = ("--batches", ",".join(map(str, BATCHES))) if form in FORMS[:2] else ()
    compute = form.split(",")[0]
    found: dict[str, Any] = json.loads(
        python(
            *("-m", "benchmarks.tower", str(path), tower, "--compute", compute, *batches),
            environment={"SIGRUN_CACHE": str(cache)},
        ).output
    )
    return found


def _import(statement: str) -> float:
    """Seconds from start to exit of an interpreter that runs one statement."""
    return statistics.median(python("-c", statement).seconds for _ in range(7))


def _predicted(path: Path, tower: TowerName, form: str) -> tuple[int, int] | None:
    """Resident bytes that hwcheck expects: the likeliest, and the most."""
    compute: Literal["exact", "int8"] = "exact" if form == "exact" else "int8"
    found = need(from_file(str(path)), tower, compute, 1, cached=form == FORMS[-1])
    return (found.resident_bytes.best_bytes, found.resident_bytes.high_bytes) if found else None


def markdown(
    artifact: Artifact,
    towers: Mapping[tuple[TowerName, str], Mapping[str, Any]],
    predicted: Mapping[tuple[TowerName, str], tuple[int, int] | None],
    commands: Commands,
) -> str:
    """All tables."""
    manifest = artifact.manifest
    bits = manifest.bits_per_weight
    sizes = "; ".join(
        f"{name} tower {artifact.tower_nbytes(name) / MIB:.1f} MiB, {bits[name]:.2f} bits per weight"
        for name in artifact.towers
    )
    threads = next(iter(towers.values()))["threads"]
    return "\n\n".join(
        [
            f"{manifest.variant}: {artifact.nbytes:,} bytes; {sizes}. {threads} threads.",
            _loads(towers, predicted),
            "'Again' finds the 8-bit matrices in the cache that the process before it filled. Peak memory is that of "
            "the process with the one tower, one item at a time, mapped file pages included; after that, what hwcheck "
            "predicts: most likely, at most.",
            "### Batches\n\nSeconds an item, pictures of 640 × 480 included from their pixels on; sizes take turns.",
            table(
                ["", *(f"{size} at once" for size in BATCHES)],
                [
                    [f"{tower}, {form}", *(f"{s:.3f}" for s in found["batch_item_s"])]
                    for (tower, form), found in towers.items()
                    if found["batch_item_s"]
                ],
            ),
            "### Commands and imports",
            _commands(commands),
        ]
    )


def _loads(
    towers: Mapping[tuple[TowerName, str], Mapping[str, Any]],
    predicted: Mapping[tuple[TowerName, str], tuple[int, int] | None],
) -> str:
    def row(tower: TowerName, form: str, found: Mapping[str, Any]) -> list[str]:
        expected = predicted[tower, form]
        return [
            f"{tower}, {form}",
            f"{found['load_s']:.2f} s",
            f"{found['median_s']:.3f} s",
            f"{found['from_start_s']:.2f} s",
            f"{found['peak_bytes'] / MIB:,.0f} MiB",
            " / ".join(f"{n / MIB:,.0f}" for n in expected) + " MiB" if expected else "–",
        ]

    heads = ["", "load", "one item", "process start to first embedding", "peak memory", "predicted"]
    return table(heads, [row(*key, found) for key, found in towers.items()])


def _commands(commands: Commands) -> str:
    idle = commands.imports["pass"]
    rows = [
        [
            "`sigrun classify`, one picture, two labels",
            f"{commands.classified.seconds:.2f} s",
            f"{commands.classified.peak_bytes / MIB:,.0f} MiB",
        ],
        [
            "`hwcheck` on the file",
            f"{commands.fits.seconds:.2f} s",
            f"{commands.fits.peak_bytes / MIB:,.0f} MiB",
        ],
        ["`python -c pass`", f"{idle * 1000:.0f} ms", "–"],
        *(
            [f"`{statement}`, beyond that", f"{(seconds - idle) * 1000:.0f} ms", "–"]
            for statement, seconds in commands.imports.items()
            if statement != "pass"
        ),
    ]
    return table(["", "from start to exit", "peak memory"], rows)


if __name__ == "__main__":
    sys.exit(main())
