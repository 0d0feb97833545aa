"""``sigrun embed``: unit vectors of pictures or texts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.cli.loading import add_model_options, load_model
from sigrun.cli.shell import FAILED, OK, UsageError, complain, json_line, raw_help
from sigrun.embeddings import Embeddings
from sigrun.errors import OutputError
from sigrun.output import finished, refuse_existing
from sigrun.progress import Progress


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "embed",
        help="embed pictures or texts",
        description=(
            "Embed pictures or texts as unit vectors. Prints one JSON object an item, or with -o writes a NumPy\n"
            "archive: vectors (float32 [items, width]; a row that failed is NaN), items, and the id of the space."
        ),
        epilog="examples:\n  sigrun embed model.gguf photos/*.jpg -o photos.npz\n"
        '  sigrun embed model.gguf --text "red car"',
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="picture files")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text; repeat for more")
    parser.add_argument("-o", "--output", metavar="FILE.npz", help="write a NumPy archive")
    parser.add_argument("--force", action="store_true", help="replace an existing archive")
    add_model_options(parser)
    parser.set_defaults(run=run, more="pictures")


def run(arguments: argparse.Namespace) -> int:
    """Embed either pictures or texts."""
    if bool(arguments.pictures) == bool(arguments.text):
        raise UsageError("give either pictures or --text, and at least one of them")
    output = Path(arguments.output) if arguments.output else None
    if output is not None:
        refuse_existing(output, force=arguments.force)
        if not output.parent.is_dir():
            raise OutputError(f"{output}: cannot write: there is no folder {output.parent}")
    failed = False
    rows = []
    with load_model(arguments) as model:
        items = arguments.pictures or arguments.text
        with Progress("embedding", len(items), "items") as bar:
            for item in items:
                embedded = model.embed_images([item]) if arguments.pictures else model.embed_texts([item])
                failed |= _report(item, embedded)
                if output is not None:
                    rows.append(embedded.vectors[0])
                else:
                    print(json_line(_record(item, embedded)), flush=True)
                bar.advance()
        if output is not None:
            _save(output, np.stack(rows), items, model.space, arguments.force)
    return FAILED if failed else OK


def _report(item: str, embedded: Embeddings) -> bool:
    if embedded.cut:
        print(
            f"sigrun: note: longer than the model reads; its end is ignored: {item[:60]!r}", file=sys.stderr
        )
    if 0 in embedded.errors:
        complain("sigrun", embedded.errors[0])
        return True
    return False


def _record(item: str, embedded: Embeddings) -> dict[str, object]:
    if 0 in embedded.errors:
        return {"item": item, "error": embedded.errors[0].message, "hint": embedded.errors[0].hint}
    return {
        "item": item,
        "space": embedded.space,
        "embedding": [float(f"{v:.7g}") for v in embedded.vectors[0]],
    }


def _save(path: Path, vectors: NDArray[np.float32], items: list[str], space: str, force: bool) -> None:
    with finished(path, force=force) as partial, partial.open("wb") as file:
        np.savez(file, vectors=vectors, items=np.array(items), space=np.array(space))
