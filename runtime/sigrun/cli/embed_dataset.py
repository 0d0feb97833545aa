"""``sigrun embed-dataset``: a data set of pictures into Parquet, on this machine or on Ray."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from sigrun.cli.loading import add_model_options, max_pixels
from sigrun.cli.shell import FAILED, OK, UsageError, at_least_one, note, raw_help
from sigrun.progress import Progress

FORMATS = ("pictures", "tar", "parquet")
DEFAULT_ROWS = 1024


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "embed-dataset",
        help="embed a data set into Parquet, here or on Ray",
        description=(
            "Embed a data set: a folder of pictures, webdataset tar shards, or Parquet files with the bytes of\n"
            "pictures. Writes a folder of Parquet files with the columns source, row, item, embedding and error,\n"
            "and _manifest.json when all is done.\n"
            "\n"
            "A picture that cannot be read is a row with an error, and so is the place where a shard is damaged.\n"
            "However a job was stopped, the same command goes on with it: finished files are kept, and no row is\n"
            "lost or written twice."
        ),
        epilog="examples:\n"
        "  sigrun embed-dataset model.gguf photos vectors\n"
        "  sigrun embed-dataset model.gguf shards vectors --keep json,txt\n"
        "  RAY_ADDRESS=head:6379 sigrun embed-dataset model.gguf /nfs/data /nfs/vectors --engine ray --workers 8",
        formatter_class=raw_help,
    )
    parser.add_argument("artifact", help="a .gguf file made by sigrun-export")
    parser.add_argument("source", metavar="SRC", help="a folder, or one shard")
    parser.add_argument("output", metavar="DST", help="the folder to write")
    parser.add_argument("--format", choices=FORMATS, help="what to read from SRC (default: what it holds)")
    parser.add_argument(
        "--column",
        metavar="NAME",
        help="the column of pictures in Parquet (default: the only one of bytes), or their ending in tar shards",
    )
    parser.add_argument(
        "--keep",
        type=_names,
        default=[],
        metavar="COLUMNS",
        help="columns to pass through, with commas between; in tar shards endings, such as json,txt",
    )
    parser.add_argument(
        "--rows",
        type=at_least_one,
        default=DEFAULT_ROWS,
        metavar="N",
        help="rows in a file; a killed worker loses fewer (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: Ray Data, on the cluster that RAY_ADDRESS names or on this machine (default: local)",
    )
    parser.add_argument(
        "--workers", type=at_least_one, metavar="N", help="workers on Ray (default: one for each node)"
    )
    parser.add_argument("--restart", action="store_true", help="forget what an earlier job left in DST")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no notes on stderr")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do the job, or what is left of it."""
    from sigrun.bulk.job import Job
    from sigrun.bulk.loaded import How

    if arguments.workers is not None and arguments.engine != "ray":
        raise UsageError(
            "--workers is for --engine ray", hint="on this machine --threads says how many threads work"
        )
    how = How(
        os.path.abspath(arguments.artifact),  # noqa: PTH100  (links stay links)
        arguments.compute,
        arguments.provider,
        arguments.threads,
        max_pixels(arguments),
        arguments.decode,
    )
    job = Job.planned(
        how,
        Path(arguments.source),
        Path(arguments.output),
        kind=arguments.format,
        column=arguments.column,
        keep=arguments.keep,
        rows=arguments.rows,
    )
    with Progress("embedding", job.dataset.rows, "rows", lines=True, quiet=arguments.quiet) as bar:
        manifest = job.done(
            engine=arguments.engine,
            workers=arguments.workers,
            restart=arguments.restart,
            on_progress=bar.advance,
        )
    if not arguments.quiet:
        _report(manifest, arguments.output)
    return FAILED if manifest["errors"] else OK


def _report(manifest: Any, output: str) -> None:
    shards = len(manifest["shards"])
    note(
        "sigrun", f"{manifest['rows']:,} rows in {shards:,} {'file' if shards == 1 else 'files'} in {output}"
    )
    if manifest["errors"]:
        note("sigrun", f"{manifest['errors']:,} of them failed; column error says why")
    if len(manifest["compute"]) > 1:
        forms = ", ".join(manifest["compute"])
        note("sigrun", f"workers chose different compute forms ({forms}): name one with --compute")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be names with commas between, not {text!r}")
    return names
