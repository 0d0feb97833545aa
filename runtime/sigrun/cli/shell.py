"""What every command of ours does alike: plain errors, exit codes, one way to print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sigrun import __version__
from sigrun.errors import SigrunError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Command(Protocol):
    """A module that adds one subcommand, with ``run`` among its defaults."""

    def add_to(self, commands: Any) -> None:
        """Add the command to a parser's subcommands."""


def command_line(program: str, description: str, commands: Sequence[Command]) -> argparse.ArgumentParser:
    """The parser of a program with subcommands."""
    root = argparse.ArgumentParser(
        program,
        description=description,
        epilog="exit codes: 0 done; 1 something failed, the message says what; 2 wrong usage; 130 interrupted",
        formatter_class=raw_help,
    )
    root.add_argument("--version", action="version", version=f"{program} {__version__}")
    subparsers = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands:
        command.add_to(subparsers)
    return root


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parse a command line and run the subcommand it names; the result is the exit code."""
    arguments = parser.parse_args(argv)
    return guarded(parser.prog, lambda: arguments.run(arguments))


def guarded(program: str, action: Callable[[], int]) -> int:
    """Run a command: an error of ours becomes one plain message on stderr, never a traceback.

    Returns:
        The exit code: what ``action`` returned, 1 after an error, 130 after Ctrl-C.
    """
    try:
        code = action()
        sys.stdout.flush()
        return code
    except SigrunError as error:
        complain(program, error)
        return FAILED
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away; point stdout elsewhere so that the exit is silent too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def complain(program: str, error: SigrunError) -> None:
    """Print an error and its hint on stderr."""
    print(f"{program}: error: {error.message}", file=sys.stderr)
    if error.hint is not None:
        print(f"  hint: {error.hint}", file=sys.stderr)


def at_least_one(text: str) -> int:
    """An argparse type: a whole number of 1 or more."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text!r}")
    return value


def add_compute(parser: argparse.ArgumentParser) -> None:
    """Add ``--compute`` to a command that runs a model."""
    parser.add_argument(
        "--compute",
        default="auto",
        choices=("auto", "exact", "int8"),
        help="exact: the stored numbers; int8: layers rounded to 8 bits, faster (default: auto, which is exact)",
    )


def raw_help(prog: str) -> argparse.HelpFormatter:
    """A help formatter that keeps the lines of descriptions and examples and never depends on the terminal."""
    return argparse.RawDescriptionHelpFormatter(prog, width=96)
