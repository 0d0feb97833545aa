"""Pictures on a command line: the options that name them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from sigrun.gather import Found, gather


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """Add the pictures as the last positional argument, ``--from`` and ``-0``."""
    parser.add_argument(
        "pictures",
        nargs="*",
        metavar="PICTURE",
        help="a picture file; a folder, searched with all folders in it; a quoted pattern such as "
        "'photos/**/*.jpg'; @FILE, a list with a path a line",
    )
    parser.add_argument(
        "--from",
        dest="lists",
        action="append",
        default=[],
        metavar="FILE",
        help="a list of pictures, a path a line; - for standard input; repeat for more",
    )
    parser.add_argument(
        "-0", "--null", action="store_true", help="paths in lists end in a zero byte, as after find -print0"
    )
    parser.set_defaults(more="pictures")


def names_pictures(arguments: argparse.Namespace) -> bool:
    """Whether the command line names pictures at all."""
    return bool(arguments.pictures or arguments.lists)


def named_pictures(arguments: argparse.Namespace) -> tuple[Iterable[Found], int | None]:
    """The pictures that a command line names, and how many; standard input is read as it arrives, uncounted."""
    found = gather(arguments.pictures, arguments.lists, null=arguments.null)
    if {"-", "@-"} & {*arguments.lists, *arguments.pictures}:
        return found, None
    listed = list(found)
    return listed, len(listed)
