"""``sigrun-export recipes``: the variants and what they would weigh."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sigrun.cli.shell import OK, raw_help
from sigrun.errors import RecipeError
from sigrun_recipes import (
    KnownModel,
    Recipe,
    RecipeFileError,
    default_model,
    known,
    load,
    load_file,
    names,
    plan,
)

MIB = 2**20


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "recipes",
        help="list the variants with their sizes",
        description="List the variants and what their files would weigh, before anything is exported:\n"
        "each tower in the GGUF file, that file, and an ONNX bundle's models (its tokenizer and manifest\n"
        "not counted). A '?' stands where the size of a tokenizer is not known without its files.\n"
        f"Without MODEL: {default_model().repo}. Published SigLIP models are known by heart\n"
        "and need no download.",
        epilog="examples:\n"
        "  sigrun-export recipes\n"
        "  sigrun-export recipes google/siglip2-base-patch16-256\n"
        "  sigrun-export recipes path/to/checkpoint --recipe mine.toml",
        formatter_class=raw_help,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a local checkpoint folder or a hub id")
    parser.add_argument("--recipe", metavar="FILE.toml", help="a recipe of your own instead of the variants")
    parser.add_argument("--revision", help="commit, tag or branch of the hub repository")
    parser.add_argument("--json", action="store_true", help="print JSON; sizes in bytes")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    from sigrun_exporters.checkpoint import open_checkpoint
    from sigrun_exporters.sizes import predict, unseen

    model = _known(arguments.model)
    checkpoint = unseen(model) if model is not None else open_checkpoint(arguments.model, arguments.revision)
    tokenizer_bytes = model.tokenizer_bytes if model is not None else 0
    rows: list[dict[str, Any]] = []
    for recipe in _recipes(arguments.recipe):
        row: dict[str, Any] = {"variant": recipe.name, "summary": recipe.summary}
        rows.append(row)
        try:
            planned = plan(recipe, checkpoint.architecture)
        except RecipeFileError as error:
            row["refused"] = str(error)
            continue
        sizes = predict(checkpoint, planned, tokenizer_bytes=tokenizer_bytes or 0)
        row["towers"] = {
            tower: {"bytes": nbytes, "bits_per_weight": planned.bits_per_weight(tower)}
            for tower, nbytes in sizes.towers.items()
        }
        row["gguf_bytes"] = sizes.gguf if tokenizer_bytes is not None else None
        row["onnx_bytes"] = sizes.onnx
    if arguments.json:
        print(json.dumps({"model": checkpoint.name, "variants": rows}, indent=2))
        return OK
    print(f"{checkpoint.name}: bytes of the files, in MiB, and true bits per weight")
    print(f"{'variant':8}  {'image':>16}  {'text':>16}  {'.gguf':>7}  {'.onnx':>7}  recipe")
    for row in rows:
        print(_line(row))
    return OK


def _line(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"{row['variant']:8}  not for this model: {row['refused']}"
    cells = {
        tower: f"{found['bytes'] / MIB:8.1f}" + f"({found['bits_per_weight']:.2f})".rjust(8)
        for tower, found in row["towers"].items()
    }
    gguf = f"{row['gguf_bytes'] / MIB:7.1f}" if row["gguf_bytes"] is not None else "?"
    onnx = sum(row["onnx_bytes"].values()) / MIB
    return (
        f"{row['variant']:8}  {cells.get('image', '-'):>16}  {cells.get('text', '-'):>16}  {gguf:>7}  {onnx:7.1f}  "
        f"{row['summary']}"
    )


def _known(model: str | None) -> KnownModel | None:
    """A published checkpoint that need not be here; none where files are to be read."""
    if model is None:
        return default_model()
    if Path(model).exists():
        return None
    return next((m for m in known() if m.repo == model), None)


def _recipes(own: str | None) -> list[Recipe]:
    try:
        return [load_file(Path(own))] if own is not None else [load(name) for name in names()]
    except RecipeFileError as error:
        raise RecipeError(str(error)) from error
