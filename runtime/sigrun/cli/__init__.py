"""The ``sigrun`` command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sigrun.cli.shell import command_line, run_program

PROGRAM = "sigrun"
DESCRIPTION = "Run a SigLIP model on this machine: score pictures against labels, embed pictures and texts."


def parser() -> argparse.ArgumentParser:
    """The command line, complete; the commands are loaded by this, not with the module."""
    from sigrun.cli import (
        cache,
        classify,
        embed,
        embed_dataset,
        evaluate,
        index,
        info,
        labels,
        search,
        self_test,
        serve,
        sort,
    )

    return command_line(
        PROGRAM,
        DESCRIPTION,
        (
            classify,
            embed,
            embed_dataset,
            labels,
            index,
            search,
            sort,
            evaluate,
            info,
            self_test,
            serve,
            cache,
        ),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_program(PROGRAM, parser, argv)
