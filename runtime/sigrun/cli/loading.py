"""Options that every command which runs a model has, and the model that they ask for."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
from typing import Any

from PIL import _imaging

from sigrun.choice import FORMS
from sigrun.cli.shell import at_least_one
from sigrun.model import Siglip
from sigrun.pixels import DEFAULT_MAX_PIXELS


def add_model_options(
    parser: argparse.ArgumentParser,
    *,
    pictures: bool = True,
    megapixels: int = DEFAULT_MAX_PIXELS // 1_000_000,
) -> None:
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
            metavar="N",
            help=f"refuse larger pictures before decoding them (default: {megapixels})",
        )


def max_pixels(arguments: argparse.Namespace, otherwise: int = DEFAULT_MAX_PIXELS) -> int:
    """The limit that ``--max-megapixels`` sets; without it the runtime's own, to the pixel."""
    given: int | None = arguments.max_megapixels
    return otherwise if given is None else given * 1_000_000


def quiet_decoders() -> None:
    """Keep libtiff from writing on stderr, a line for each spoiled line of a picture: Sigrun says what is wrong.

    This is for commands, whose process is their own: as a library Sigrun changes no setting of others. Where
    libtiff's functions cannot be reached, as in Pillow's wheels for Windows, it goes on writing.
    """
    with contextlib.suppress(AttributeError, OSError):
        pillow = ctypes.CDLL(_imaging.__file__)  # through it the libraries that it is linked with
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            getattr(pillow, name)(None)


def load_model(arguments: argparse.Namespace) -> Siglip:
    """The model that the command line names."""
    quiet_decoders()
    options: dict[str, Any] = {
        "compute": arguments.compute,
        "provider": arguments.provider,
        "threads": arguments.threads,
    }
    if "max_megapixels" in arguments:
        options["max_pixels"] = max_pixels(arguments)
        options["decode"] = arguments.decode
    return Siglip.load(arguments.artifact, **options)
