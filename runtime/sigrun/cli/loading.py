"""Options that every command which runs a model has, and the model that they ask for."""

from __future__ import annotations

import argparse

from sigrun.cli.shell import at_least_one
from sigrun.model import Siglip
from sigrun.pixels import DEFAULT_MAX_PIXELS


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--compute``, ``--threads`` and ``--max-megapixels``."""
    parser.add_argument(
        "--compute",
        default="auto",
        choices=("auto", "exact", "int8"),
        help="exact: the stored numbers; int8: layers rounded to 8 bits, faster (default: auto, which is exact)",
    )
    parser.add_argument(
        "--threads", type=at_least_one, metavar="N", help="threads (default: one for each CPU)"
    )
    parser.add_argument(
        "--max-megapixels",
        type=at_least_one,
        default=DEFAULT_MAX_PIXELS // 1_000_000,
        metavar="N",
        help="refuse larger pictures before decoding them (default: %(default)s)",
    )


def load_model(arguments: argparse.Namespace) -> Siglip:
    """The model that the command line names."""
    return Siglip.load(
        arguments.artifact,
        compute=arguments.compute,
        threads=arguments.threads,
        max_pixels=arguments.max_megapixels * 1_000_000,
    )
