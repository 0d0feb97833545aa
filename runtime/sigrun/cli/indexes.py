"""What commands that read an index share: opening it, and the model that it remembers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sigrun.cli.loading import max_pixels, quiet_decoders
from sigrun.cli.shell import note
from sigrun.errors import ArtifactError
from sigrun.gather import safe
from sigrun.model import Siglip
from sigrun.search.about import About
from sigrun.search.index import SearchIndex
from sigrun.search.store import Store


def add_index_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and ``--other-variant``."""
    parser.add_argument(
        "--model", metavar="FILE", help="the model, where it is not the file that the index remembers"
    )
    parser.add_argument(
        "--other-variant",
        action="store_true",
        help="allow another variant or compute form than made the index; a note says how close they are",
    )


@contextmanager
def opened(arguments: argparse.Namespace, *, model: bool, as_indexed: bool = False) -> Iterator[SearchIndex]:
    """The index that a command line names.

    Args:
        arguments: with ``index``, ``model``, ``other_variant``, ``quiet`` and the model's options.
        model: load the model too.
        as_indexed: run it as it ran when the index was made, for pictures.

    Raises:
        SigrunError: the index or the model cannot be opened, or they do not belong together.
    """
    with ExitStack() as held:
        if not model:
            yield held.enter_context(SearchIndex.open(arguments.index))
        else:
            store = Store.open(Path(arguments.index))
            store.close()
            about = store.about
            if arguments.model is None:
                refuse_missing(about.artifact, "--model FILE")
            loaded = held.enter_context(model_for(arguments, about, as_indexed=as_indexed))
            if as_indexed:
                loaded.embed_images([])  # how the image tower runs is known afterwards
            index = held.enter_context(
                SearchIndex.open(arguments.index, loaded, other_variant=arguments.other_variant)
            )
            if index.difference is not None and not arguments.quiet:
                note_difference(index)
            yield index


def note_difference(index: SearchIndex) -> None:
    """Say by what other variant an index was made, and how close the model is to it."""
    mean, least, count = index.measured()
    found = (
        f"on {count} of its pictures the cosine between the two is {mean:.4f} on average, {least:.4f} at least"
        if count
        else "how close they are could not be measured, as none of its pictures can be read"
    )
    note("sigrun", f"the index was made by {index.difference}; {found}")


def model_for(arguments: argparse.Namespace, about: About, *, as_indexed: bool) -> Siglip:
    """A model for an index; what the command line leaves open is as it was when the index was made."""
    options: dict[str, Any] = {"threads": arguments.threads}
    for name in ("compute", "provider"):
        given = getattr(arguments, name)
        options[name] = getattr(about, name) if given == "auto" and as_indexed else given
    if "decode" in arguments:
        options["max_pixels"] = max_pixels(arguments, about.max_pixels)
        options["decode"] = about.decode if arguments.decode == "exact" else arguments.decode
    quiet_decoders()
    return Siglip.load(getattr(arguments, "model", None) or about.artifact, **options)


def refuse_missing(artifact: str, way: str) -> None:
    """Raise ArtifactError if the model that an index remembers is gone."""
    if not Path(artifact).is_file():
        raise ArtifactError(
            f"the model that made the index, {safe(artifact)}, is not there any more",
            hint=f"say where it is: {way}",
        )


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return value
