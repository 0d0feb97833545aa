"""``sigrun-export recipes``: the variants and what they would weigh."""

from __future__ import annotations

import argparse
import json
from typing import Any

from sigrun.cli.shell import OK, raw_help
from sigrun_recipes import Architecture, RecipeFileError, default_model, load, names, plan

MIB = 2**20


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "recipes",
        help="list the variants with their sizes",
        description=f"List the variants and what each would weigh, before anything is exported.\n"
        f"Without MODEL: {default_model().repo}, known by heart.",
        formatter_class=raw_help,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a local checkpoint folder or a hub id")
    parser.add_argument("--json", action="store_true", help="print JSON; sizes in bytes")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    name, architecture = _model(arguments.model)
    rows: list[dict[str, Any]] = []
    for variant in names():
        recipe = load(variant)
        try:
            planned = plan(recipe, architecture)
        except RecipeFileError as error:
            rows.append({"variant": variant, "summary": recipe.summary, "refused": str(error)})
            continue
        towers = {
            tower: {"bytes": planned.nbytes(tower), "bits_per_weight": planned.bits_per_weight(tower)}
            for tower in ("image", "text")
        }
        rows.append({"variant": variant, "summary": recipe.summary, "towers": towers})
    if arguments.json:
        print(json.dumps({"model": name, "variants": rows}, indent=2))
        return OK
    print(f"{name}: size of the weights, in MiB, and bits per weight")
    print(f"{'variant':8}  {'image':>16}  {'text':>16}  {'both':>7}  recipe")
    for row in rows:
        print(_line(row))
    return OK


def _line(row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"{row['variant']:8}  not for this model: {row['refused']}"
    cells = [
        f"{tower['bytes'] / MIB:8.1f}" + f"({tower['bits_per_weight']:.2f})".rjust(8)
        for tower in row["towers"].values()
    ]
    both = sum(tower["bytes"] for tower in row["towers"].values()) / MIB
    return f"{row['variant']:8}  {cells[0]:>16}  {cells[1]:>16}  {both:7.1f}  {row['summary']}"


def _model(model: str | None) -> tuple[str, Architecture]:
    if model is None:
        known = default_model()
        return known.repo, known.architecture
    from sigrun_exporters.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(model)
    return checkpoint.name, checkpoint.architecture
