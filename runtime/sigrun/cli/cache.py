"""``sigrun cache``: what is kept between runs, and a way to be rid of it."""

from __future__ import annotations

import argparse
import time
from typing import Any

from sigrun.cli.shell import FAILED, OK, complain, json_line, plain, raw_help
from sigrun.errors import OutputError
from sigrun.gather import safe
from sigrun.prepared import TEMPORARY, TESTED, CacheEntry, cache_entries, cache_folder, clear

WORDS = {
    "matrices": "int8 matrices of one tower",
    "tested": "a self-test that was passed",
    "unfinished": "half made, or left by a run that did not end",
}


def add_to(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = commands.add_parser(
        "cache",
        help="list or clear what is kept between runs",
        description="List what is kept between runs: the matrices of form int8, so that the next run need not round\n"
        "them again, and which self-tests were passed. All of it may be deleted at any time.\n"
        "\n"
        "It lies in the folder that the environment variable SIGRUN_CACHE names (off: nothing is kept), by default\n"
        "in `sigrun` among the user's caches.",
        formatter_class=raw_help,
    )
    parser.add_argument("--clear", action="store_true", help="delete all of it")
    parser.add_argument("--json", action="store_true", help="one JSON object an entry")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the entries, or delete them."""
    folder = cache_folder("auto")
    if folder is None:
        if not arguments.json:
            print("nothing is kept: SIGRUN_CACHE is off, or there is no folder for caches")
        return OK
    shown = plain(safe(str(folder)))
    try:
        found = cache_entries(folder)
        gone = clear(folder) if arguments.clear else found
    except OSError as error:
        raise OutputError(f"{shown}: cannot read the cache: {error.strerror or error}") from error
    for entry in gone:
        print(json_line(_record(entry)) if arguments.json else _line(entry))
    if not arguments.json:
        total = sum(entry.nbytes for entry in gone) / 2**20
        what = "deleted" if arguments.clear else "kept"
        print(f"{shown}: {len(gone)} entries, {total:,.1f} MiB {what}")
    left = {entry.path for entry in found} - {entry.path for entry in gone}
    for path in sorted(left):
        complain("sigrun", OutputError(f"{safe(str(path))}: cannot be deleted", hint="it may be in use"))
    return FAILED if left else OK


def _kind(entry: CacheEntry) -> str:
    if entry.path.name.startswith(TEMPORARY):
        return "unfinished"
    return "tested" if entry.path.name.endswith(TESTED) else "matrices"


def _line(entry: CacheEntry) -> str:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    size = f"{entry.nbytes / 2**20:8.1f} MiB"
    return f"  {entry.path.name[:12]}  {size}  last used {used}  {WORDS[_kind(entry)]}"


def _record(entry: CacheEntry) -> dict[str, object]:
    return {"path": str(entry.path), "kind": _kind(entry), "bytes": entry.nbytes, "used": entry.used}
