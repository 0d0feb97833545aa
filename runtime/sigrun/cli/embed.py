"""``sigrun embed``: unit vectors of pictures or texts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sigrun.cli.shell import FAILED, OK, add_compute, at_least_one, raw_help
from sigrun.embeddings import Embeddings
from sigrun.errors import SigrunError, TextError
from sigrun.model import Siglip
from sigrun.progress import Progress


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "embed",
        help="embed pictures or texts",
        description=(
            "Embed pictures or texts as unit vectors. Prints one JSON object an item, or writes a NumPy file\n"
            "(float32 [items, width]; a row that failed is NaN) with -o."
        ),
        epilog="examples:\n  sigrun embed model.gguf photos/*.jpg -o photos.npy\n"
        '  sigrun embed model.gguf --text "red car"',
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="picture files")
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text; repeat for more")
    parser.add_argument("-o", "--output", metavar="FILE.npy", help="write the vectors as a NumPy file")
    add_compute(parser)
    parser.add_argument(
        "--threads", type=at_least_one, metavar="N", help="threads (default: one for each CPU)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Embed either pictures or texts."""
    if bool(arguments.pictures) == bool(arguments.text):
        raise TextError("give either pictures or --text, and at least one of them")
    failed = False
    rows = []
    with Siglip.load(arguments.artifact, compute=arguments.compute, threads=arguments.threads) as model:
        items = arguments.pictures or arguments.text
        with Progress("embedding", len(items), "items") as bar:
            for item in items:
                embedded = model.embed_images([item]) if arguments.pictures else model.embed_texts([item])
                failed |= _report(item, embedded)
                if arguments.output:
                    rows.append(embedded.vectors[0])
                else:
                    print(json.dumps(_record(item, embedded), ensure_ascii=False), flush=True)
                bar.advance()
    if arguments.output:
        _save(Path(arguments.output), np.stack(rows))
    return FAILED if failed else OK


def _report(item: str, embedded: Embeddings) -> bool:
    if embedded.cut:
        print(
            f"sigrun: note: longer than the model reads; its end is ignored: {item[:60]!r}", file=sys.stderr
        )
    if 0 in embedded.errors:
        print(f"sigrun: error: {embedded.errors[0]}", file=sys.stderr)
        return True
    return False


def _record(item: str, embedded: Embeddings) -> dict[str, object]:
    if 0 in embedded.errors:
        return {"item": item, "error": embedded.errors[0]}
    return {
        "item": item,
        "space": embedded.space,
        "embedding": [float(f"{v:.7g}") for v in embedded.vectors[0]],
    }


def _save(path: Path, vectors: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            np.save(file, vectors)
        partial.replace(path)
    except OSError as error:
        raise SigrunError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
