"""``sigrun embed``: unit vectors of pictures or texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from sigrun.cli.lines import read_lines
from sigrun.cli.loading import add_model_options, load_model
from sigrun.cli.pictures import add_picture_options, named_pictures, names_pictures
from sigrun.cli.rows import Row, embedded_pictures, embedded_texts, failure, remark, report
from sigrun.cli.saving import prepared_output, save
from sigrun.cli.shell import FAILED, OK, UsageError, json_line, raw_help
from sigrun.errors import SigrunError
from sigrun.gather import Found
from sigrun.model import Siglip
from sigrun.progress import Progress


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "embed",
        help="embed pictures or texts",
        description=(
            "Embed pictures or texts as unit vectors. Prints one JSON object an item as it comes, or with -o writes\n"
            "a file. What fails is reported and the others go on; its row is NaN, in Parquet null.\n"
            "\n"
            "  .npz      vectors (float32 [items, width]), items, errors, space, model, variant\n"
            "  .npy      vectors alone, which can be mapped into memory; the rest beside it in FILE.npy.json\n"
            "  .parquet  columns item, embedding, error; space, model and variant in the metadata (needs pyarrow)\n"
            "\n"
            "While a file is in the making, finished rows lie in FILE.partial. After an interrupt, a crash or a\n"
            "full disk the same command goes on from there, with the same result as in one run."
        ),
        epilog="examples:\n"
        "  sigrun embed model.gguf photos -o photos.npz\n"
        "  find . -name '*.jpg' -print0 | sigrun embed model.gguf --from - -0 -o photos.parquet\n"
        '  sigrun embed model.gguf --text "red car"',
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    add_picture_options(parser)
    parser.add_argument("--text", action="append", default=[], metavar="TEXT", help="a text; repeat for more")
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help="a text file with one text a line, empty lines left out; - for standard input",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write a file: .npz, .npy or .parquet; without, JSON lines"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument("--restart", action="store_true", help="forget what an unfinished run left")
    parser.add_argument(
        "--features",
        action="store_true",
        help="also write what the image tower says of each patch, float32 [items, tokens, width] "
        "(.npz, or .npy as FILE.features.npy)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Embed either pictures or texts."""
    given = arguments.text + (read_lines(arguments.texts, "texts") if arguments.texts else [])
    texts = bool(arguments.text or arguments.texts)
    if names_pictures(arguments) == texts:
        raise UsageError("give either pictures or texts, and at least one of them")
    if arguments.features and (texts or not arguments.output):
        raise UsageError("--features is for pictures and a file", hint="name the file with -o")
    if arguments.restart and not arguments.output:
        raise UsageError("--restart is for runs that write a file", hint="name the file with -o")
    write = prepared_output(arguments) if arguments.output else None
    pictures, count = ([], len(given)) if texts else named_pictures(arguments)

    def embed(items: Iterable[Found]) -> Iterator[Row]:
        if texts:
            return embedded_texts(model, (item.name for item in items))
        return embedded_pictures(model, items, features=arguments.features)

    items: Iterable[Found] = [Found(text) for text in given] if texts else pictures
    with load_model(arguments) as model:
        if write is not None:
            return save(arguments, model, list(items), embed, write)
        return _print(arguments, model, embed(items), count)


def _print(arguments: argparse.Namespace, model: Siglip, rows: Iterator[Row], count: int | None) -> int:
    """One JSON object a row on stdout."""
    failed, empty = False, True
    quiet = arguments.quiet or sys.stdout.isatty()  # what is printed there shows the progress
    with Progress("embedding", count, "items", lines=True, quiet=quiet) as bar:
        for row in rows:
            empty = False
            failed |= report(row, bar, quiet=arguments.quiet)
            print(json_line(_record(row, model.space)), flush=True)
            bar.advance()
    if empty:
        raise SigrunError("there is nothing to embed: the list is empty")
    return FAILED if failed else OK


def _record(row: Row, space: str) -> dict[str, object]:
    if row.error is not None or row.vector is None:
        return {"item": row.name, **failure(row)}
    # The shortest digits that give the very number back.
    numbers = [float(str(v)) for v in row.vector]
    return {"item": row.name, "space": space, "embedding": numbers, **remark(row)}
