"""The ``sigrun-export`` command."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sigrun import __version__
from sigrun.cli.shell import OK, guarded, raw_help
from sigrun.errors import RecipeError
from sigrun_recipes import RecipeFileError, load, names

if TYPE_CHECKING:
    from sigrun_exporters.export import Exported

PROGRAM = "sigrun-export"


def parser() -> argparse.ArgumentParser:
    """The command line, complete."""
    root = argparse.ArgumentParser(
        PROGRAM,
        description="Export SigLIP checkpoints as quantized GGUF artifacts.",
        epilog="exit codes: 0 done; 1 something failed, the message says what; 2 wrong usage; 130 interrupted",
        formatter_class=raw_help,
    )
    root.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    convert = commands.add_parser(
        "convert",
        help="convert a checkpoint",
        description="Convert a checkpoint to OUT/<model>/<model>-<variant>.gguf, which holds both towers,\n"
        "the tokenizer, preprocessing and scoring constants, and the graphs that run it.",
        epilog="example:\n  sigrun-export convert google/siglip-so400m-patch14-384 --variant q4_k_m -o models",
        formatter_class=raw_help,
    )
    convert.add_argument("model", metavar="MODEL", help="a local checkpoint folder or a hub id")
    convert.add_argument(
        "--variant", default="q4_k_m", help=f"one of: {', '.join(names())} (default: %(default)s)"
    )
    convert.add_argument("--revision", help="commit, tag or branch of the hub repository")
    convert.add_argument(
        "-o", "--out", default="models", metavar="OUT", help="output folder (default: %(default)s)"
    )
    convert.add_argument("--force", action="store_true", help="replace an existing artifact")
    convert.set_defaults(run=_convert)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = parser().parse_args(argv)
    return guarded(PROGRAM, lambda: arguments.run(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    try:
        recipe = load(arguments.variant)
    except RecipeFileError as error:
        raise RecipeError(str(error)) from error
    # Imported here so that --help does not wait for onnx and numba.
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
