"""``sigrun-export convert``: checkpoint to artifact."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigrun.choice import FORMS
from sigrun.cli.shell import OK, UsageError, raw_help
from sigrun.errors import RecipeError
from sigrun_recipes import RecipeFileError, load, load_file, names

if TYPE_CHECKING:
    from sigrun_exporters.export import Exported


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "convert",
        help="convert a checkpoint",
        description="Convert a checkpoint to files under OUT/<model>/:\n"
        "  <model>-<variant>.gguf       everything in one file, for this runtime\n"
        "  <model>-<variant>.onnx/      with --format onnx: for hosts that have ONNX Runtime only\n"
        "  <model>-<variant>.hub/       with --layout hub: as transformers.js and optimum expect it\n"
        "  <model>-<variant>.report.*   what was measured, as Markdown, JSON and a picture\n"
        "Every export is compared with the checkpoint's own float32 function before it gets its name.",
        epilog="examples:\n"
        "  sigrun-export convert google/siglip-so400m-patch14-384 --variant q4_k_m -o models\n"
        "  sigrun-export convert MODEL --variant q4_k_s --calibration my_photos --captions captions.txt\n"
        "  sigrun-export convert MODEL --format gguf --format onnx --compute int8\n"
        "  sigrun-export convert MODEL --format onnx --layout hub\n"
        "\n"
        "exit codes: 0 written; 1 refused, failed its gate, or cannot be written; 2 wrong usage",
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
    parser.add_argument("--force", action="store_true", help="replace what exists")
    onnx = parser.add_argument_group("formats")
    onnx.add_argument(
        "--format",
        action="append",
        choices=("gguf", "onnx"),
        help="what to write; may be given twice (default: gguf)",
    )
    onnx.add_argument(
        "--layout",
        choices=("bundle", "hub"),
        help="layout of the ONNX files: our bundle, or the hub's (default: bundle)",
    )
    onnx.add_argument(
        "--compute",
        choices=FORMS,
        help="compute form of the ONNX files; a GGUF holds all of them (default: exact)",
    )
    better = parser.add_argument_group("calibration")
    better.add_argument(
        "--calibration",
        metavar="DIR",
        help="pictures like yours: bits go where they matter for them, and they join the verification",
    )
    better.add_argument("--captions", metavar="FILE", help="texts like yours, one a line")
    better.add_argument(
        "--importance", metavar="FILE.gguf", help="an importance matrix from an earlier run, instead"
    )
    better.add_argument(
        "--refit",
        action="store_true",
        help="fit the scoring constants to the variant, if that lowers the error on pictures held back\n"
        "(needs --calibration and --captions)",
    )
    check = parser.add_argument_group("verification")
    check.add_argument(
        "--allow-failing", action="store_true", help="write a variant that fails its gate; it says so"
    )
    check.add_argument("--no-verify", action="store_true", help="do not measure; the artifact says so")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and say what came out."""
    start = time.monotonic()
    formats = tuple(dict.fromkeys(arguments.format or ["gguf"]))
    for option in ("layout", "compute"):
        if getattr(arguments, option) is not None and "onnx" not in formats:
            raise UsageError(f"--{option} is about ONNX files", hint="add --format onnx")
    try:
        recipe = load_file(Path(arguments.recipe)) if arguments.recipe else load(arguments.variant)
    except RecipeFileError as error:
        raise RecipeError(str(error)) from error
    # Imported here so that --help does not wait for onnx.
    from sigrun_exporters.checkpoint import open_checkpoint
    from sigrun_exporters.export import Settings, export

    settings = Settings(
        formats=formats,
        layout=arguments.layout or "bundle",
        compute=arguments.compute or "exact",
        calibration=Path(arguments.calibration) if arguments.calibration else None,
        captions=Path(arguments.captions) if arguments.captions else None,
        importance=Path(arguments.importance) if arguments.importance else None,
        refit=arguments.refit,
        verify=not arguments.no_verify,
        allow_failing=arguments.allow_failing,
        force=arguments.force,
    )
    checkpoint = open_checkpoint(arguments.model, arguments.revision)
    exported = export(checkpoint, recipe, Path(arguments.out), settings)
    _summary(exported, checkpoint.nbytes, time.monotonic() - start)
    for path in exported.paths:
        print(path)
    return OK


def _summary(exported: Exported, source_nbytes: int, seconds: float) -> None:
    """Say on stderr what came out, what was measured, and what did not go as the recipe asked."""
    planned, manifest = exported.plan, exported.manifest
    sizes = ", ".join(f"{suffix} {size / 2**20:,.1f} MiB" for suffix, size in exported.nbytes.items())
    lines = [f"{planned.recipe.name}: {source_nbytes / 2**20:,.1f} MiB -> {sizes} in {seconds:.1f} s"]
    if ".gguf" not in exported.nbytes:
        lines.append("  as stored in a GGUF file, which the ONNX files hold the same numbers as:")
    lines += [
        f"  {tower:5} tower  {planned.nbytes(tower) / 2**20:8.1f} MiB  "
        f"{planned.bits_per_weight(tower):.2f} bits per weight"
        for tower in exported.towers
    ]
    lines += [
        f"  not as asked: {tensor.spec.name} is {tensor.encoding.name}, the recipe asked for {tensor.target}"
        for tensor in planned.substitutions()
    ]
    if manifest.verification is None:
        lines.append("  not verified")
    else:
        lines.append(f"  against the float32 checkpoint ({manifest.verification.described()}):")
        lines += [f"    {line}" for line in manifest.verification.lines()]
    print("\n".join(lines), file=sys.stderr)
