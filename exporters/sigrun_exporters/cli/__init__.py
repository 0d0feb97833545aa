"""The ``sigrun-export`` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sigrun import __version__
from sigrun.cli.shell import guarded, raw_help
from sigrun_exporters.cli import convert, inspect, recipes

PROGRAM = "sigrun-export"
_COMMANDS = (convert, recipes, inspect)


def parser() -> argparse.ArgumentParser:
    """The command line, complete."""
    root = argparse.ArgumentParser(
        PROGRAM,
        description="Export SigLIP checkpoints as quantized GGUF artifacts.",
        epilog="exit codes: 0 done; 1 something failed, the message says what; 2 wrong usage; 130 interrupted",
        formatter_class=raw_help,
    )
    root.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_to(commands)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = parser().parse_args(argv)
    return guarded(PROGRAM, lambda: arguments.run(arguments))
