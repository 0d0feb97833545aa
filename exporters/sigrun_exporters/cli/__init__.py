"""The ``sigrun-export`` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sigrun.cli.shell import command_line, run_program

PROGRAM = "sigrun-export"
DESCRIPTION = "Export SigLIP checkpoints as quantized GGUF artifacts."


def parser() -> argparse.ArgumentParser:
    """The command line, complete; the commands are loaded by this, not with the module."""
    from sigrun_exporters.cli import convert, inspect, recipes, verify

    return command_line(PROGRAM, DESCRIPTION, (convert, verify, recipes, inspect))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_program(PROGRAM, parser, argv)
