"""Every variant of a model: bytes, bits, weight error beside ggml's, agreement in each compute form, time and memory.

``emoji`` is the bundled trained model, for what variants cost in accuracy; ``synthetic`` has random weights in the
layout of google/siglip-so400m-patch14-384, for what they cost in time and memory. Needs the extra ``reference``.

    python -m benchmarks.variants --model emoji
    python -m benchmarks.variants --model synthetic --variants q4_k_m --verify q4_k_m
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.variants_emoji import measure_emoji
from benchmarks.variants_synthetic import VERIFIED, measure_synthetic
from sigrun_recipes import names


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print Markdown or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("emoji", "synthetic"), default="emoji")
    parser.add_argument(
        "--variants", type=_variants, default=names(), help="separated by commas; default: all"
    )
    parser.add_argument(
        "--verify",
        type=_variants,
        default=VERIFIED,
        help=f"those of synthetic to verify, minutes each (default: {','.join(VERIFIED)})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    chosen = parser.parse_args(arguments)
    if chosen.model == "emoji":
        emoji = measure_emoji(chosen.variants)
        print(json.dumps(asdict(emoji), indent=1) if chosen.json else emoji.markdown())
    else:
        synthetic = measure_synthetic(chosen.variants, chosen.verify)
        print(json.dumps(asdict(synthetic), indent=1) if chosen.json else synthetic.markdown())
    return 0


def _variants(value: str) -> tuple[str, ...]:
    """Variants from a list, in the order of their size, largest first."""
    given = value.split(",") if value else []
    unknown = sorted(set(given) - set(names()))
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no variant is called '{unknown[0]}'; there are {', '.join(names())}"
        )
    return tuple(name for name in names() if name in given)


if __name__ == "__main__":
    raise SystemExit(main())
