"""Options that every command which runs a model has, and the model that they ask for."""

from __future__ import annotations

import argparse
from typing import Any

from sigrun.choice import FORMS
from sigrun.cli.shell import at_least_one
from sigrun.model import Siglip
from sigrun.pixels import DEFAULT_MAX_PIXELS


def add_model_options(parser: argparse.ArgumentParser, *, pictures: bool = True) -> None:
    """Add ``--compute``, ``--provider`` and ``--threads``, and those for reading pictures."""
    group = parser.add_argument_group("how to run the model")
    group.add_argument(
        "--compute",
        default="auto",
        choices=("auto", *FORMS),
        help="exact: the stored numbers; int8: layers rounded to 8 bits, faster on CPUs; f16, w4f16: for GPUs "
        "(default: auto, what `sigrun info` shows)",
    )
    group.add_argument(
        "--provider", default="auto", metavar="NAME", help="where to run, such as cpu or cuda (default: auto)"
    )
    group.add_argument(
        "--threads", type=at_least_one, metavar="N", help="threads (default: one for each core)"
    )
    if pictures:
        group.add_argument(
            "--decode",
            default="exact",
            choices=("exact", "fast"),
            help="fast: large JPEGs are decoded at a fraction of their size; vectors differ a little "
            "(default: exact)",
        )
        group.add_argument(
            "--max-megapixels",
            type=at_least_one,
            default=DEFAULT_MAX_PIXELS // 1_000_000,
            metavar="N",
            help="refuse larger pictures before decoding them (default: %(default)s)",
        )


def load_model(arguments: argparse.Namespace) -> Siglip:
    """The model that the command line names."""
    options: dict[str, Any] = {
        "compute": arguments.compute,
        "provider": arguments.provider,
        "threads": arguments.threads,
    }
    if "max_megapixels" in arguments:
        options["max_pixels"] = arguments.max_megapixels * 1_000_000
        options["decode"] = arguments.decode
    return Siglip.load(arguments.artifact, **options)
