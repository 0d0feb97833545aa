"""``sigrun-export convert``: checkpoint to artifact."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigrun.cli.shell import OK, raw_help
from sigrun.errors import RecipeError
from sigrun_recipes import RecipeFileError, load, load_file, names

if TYPE_CHECKING:
    from sigrun_exporters.export import Exported


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "convert",
        help="convert a checkpoint",
        description="Convert a checkpoint to OUT/<model>/<model>-<variant>.gguf, which holds both towers,\n"
        "the tokenizer, preprocessing and scoring constants, and the graphs that run it.",
        epilog="example:\n  sigrun-export convert google/siglip-so400m-patch14-384 --variant q4_k_m -o models",
        formatter_class=raw_help,
    )
    parser.add_argument("model", metavar="MODEL", help="a local checkpoint folder or a hub id")
    variant = parser.add_mutually_exclusive_group()
    variant.add_argument(
        "--variant",
        type=str.lower,
        default="q4_k_m",
        help=f"one of: {', '.join(names())} (default: %(default)s)",
    )
    variant.add_argument("--recipe", metavar="FILE.toml", help="a recipe of your own instead of a variant")
    parser.add_argument("--revision", help="commit, tag or branch of the hub repository")
    parser.add_argument(
        "-o", "--out", default="models", metavar="OUT", help="output folder (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing artifact")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    try:
        recipe = load_file(Path(arguments.recipe)) if arguments.recipe else load(arguments.variant)
    except RecipeFileError as error:
        raise RecipeError(str(error)) from error
    # Imported here so that --help does not wait for onnx.
    from sigrun_exporters.checkpoint import open_checkpoint
    from sigrun_exporters.export import export

    checkpoint = open_checkpoint(arguments.model, arguments.revision)
    exported = export(checkpoint, recipe, Path(arguments.out), force=arguments.force)
    _summary(exported, checkpoint.nbytes, time.monotonic() - start)
    print(exported.path)
    return OK


def _summary(exported: Exported, source_nbytes: int, seconds: float) -> None:
    """Say on stderr what came out and what did not go as the recipe asked."""
    size = exported.path.stat().st_size
    planned = exported.plan
    lines = [
        f"{planned.recipe.name}: {source_nbytes / 2**20:,.1f} MiB -> {size / 2**20:,.1f} MiB in {seconds:.1f} s"
    ]
    lines += [
        f"  {tower:5} tower  {planned.nbytes(tower) / 2**20:8.1f} MiB  "
        f"{planned.bits_per_weight(tower):.2f} bits per weight"
        for tower in exported.towers
    ]
    lines += [
        f"  not as asked: {tensor.spec.name} is {tensor.encoding.name}, the recipe asked for {tensor.target}"
        for tensor in planned.substitutions()
    ]
    print("\n".join(lines), file=sys.stderr)
