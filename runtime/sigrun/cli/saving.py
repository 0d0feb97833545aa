"""Embeds a list into a file, in parts that survive an interrupt."""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sigrun.cli.loading import max_pixels
from sigrun.cli.partial import FEATURES, SUFFIX, VECTORS, Part, Partial
from sigrun.cli.rows import Row, report
from sigrun.cli.shell import FAILED, OK, note
from sigrun.cli.vectors import Table, companions, writer
from sigrun.errors import OutputError, SigrunError
from sigrun.gather import Found
from sigrun.manifest import TowerName
from sigrun.model import Siglip
from sigrun.output import refuse_existing
from sigrun.progress import Progress

PART = 128  # rows that are kept at once; a killed process loses fewer
PART_WITH_FEATURES = 16
SPARE = 16 << 20  # bytes to leave free on a disk

Write = Callable[[Path, Table, bool], None]
Embed = Callable[[Iterable[Found]], Iterator[Row]]


def prepared_output(arguments: argparse.Namespace) -> Write:
    """What writes the output, after a look at whether it may.

    Raises:
        OutputError: the file exists, its folder does not, or it is of no kind that can be written.
        SigrunError: a package for it is missing.
    """
    output = Path(arguments.output)
    write = writer(output, features=arguments.features)
    for path in (output, *companions(output, features=arguments.features)):
        refuse_existing(path, force=arguments.force)
    if not output.parent.is_dir():
        raise OutputError(f"{output}: cannot write: there is no folder {output.parent}")
    return write


def save(
    arguments: argparse.Namespace, model: Siglip, items: Sequence[Found], embed: Embed, write: Write
) -> int:
    """Embed all items into the output, going on where an earlier run of the same command was stopped."""
    if not items:
        raise SigrunError("there is nothing to embed: the list is empty")
    output = Path(arguments.output)
    shapes = _shapes(model, features=arguments.features, texts=bool(arguments.text or arguments.texts))
    _check_room(output, len(items), shapes, quiet=arguments.quiet)
    partial: Partial | None = None
    finished = False
    try:
        settings = _settings(arguments, model, items)
        with Partial.opened(output, settings, shapes, restart=arguments.restart) as partial:
            _embed(arguments, items, embed, partial, shapes)
            write(output, _table(model, items, partial, shapes), arguments.force)
            finished = True
    finally:
        if partial is not None:
            if finished or not partial.done:
                partial.remove()
            elif not arguments.quiet:
                note(
                    "sigrun",
                    f"{partial.done:,} of {len(items):,} rows are kept in {partial.folder}; "
                    "the same command goes on from there",
                )
    return FAILED if partial.errors else OK


def _embed(
    arguments: argparse.Namespace,
    items: Sequence[Found],
    embed: Embed,
    partial: Partial,
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """Embed what is not there yet, part by part."""
    if partial.done and not arguments.quiet:
        note("sigrun", f"going on after {partial.done:,} of {len(items):,} rows in {partial.folder}")
    size = _part_size(arguments)
    with Progress(
        "embedding", len(items), "items", done=partial.done, lines=True, quiet=arguments.quiet
    ) as bar:
        while partial.done < len(items):
            part = items[partial.done : partial.done + size]
            arrays = {
                name: np.full((len(part), *shape), np.nan, np.float32) for name, shape in shapes.items()
            }
            errors = {}
            for at, row in enumerate(embed(part)):
                report(row, bar, quiet=arguments.quiet)
                bar.advance()
                if row.error is not None:
                    errors[at] = row.error.message
                    continue
                arrays[VECTORS][at] = row.vector
                if FEATURES in arrays:
                    arrays[FEATURES][at] = row.features
            partial.append(Part(arrays[VECTORS], arrays.get(FEATURES), errors))


def _part_size(arguments: argparse.Namespace) -> int:
    return PART_WITH_FEATURES if arguments.features else PART


def _shapes(model: Siglip, *, features: bool, texts: bool) -> dict[str, tuple[int, ...]]:
    """Shape of one row of all that is kept."""
    if texts:
        return {VECTORS: model.embed_texts([]).vectors.shape[1:]}
    if not features:
        return {VECTORS: model.embed_images([]).vectors.shape[1:]}
    none = model.embed_images([], features=True)
    assert none.features is not None
    return {VECTORS: none.vectors.shape[1:], FEATURES: none.features.shape[1:]}


def _settings(arguments: argparse.Namespace, model: Siglip, items: Sequence[Found]) -> dict[str, Any]:
    """All that the rows follow from; the content of pictures is not looked at."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.name.encode("utf-8", "surrogatepass") + b"\0")
    info = model.info
    tower: TowerName = "text" if arguments.text or arguments.texts else "image"
    running = info.running[tower]
    return {
        "kind": "texts" if tower == "text" else "pictures",
        "items": digest.hexdigest(),
        "count": len(items),
        "part": _part_size(arguments),
        "artifact": hashlib.sha256(info.manifest.to_json().encode("utf-8")).hexdigest(),
        "space": model.space,
        "compute": running.compute,
        "provider": running.provider,
        "decode": arguments.decode,
        "max_pixels": max_pixels(arguments),
        "features": arguments.features,
    }


def _table(
    model: Siglip, items: Sequence[Found], partial: Partial, shapes: dict[str, tuple[int, ...]]
) -> Table:
    manifest = model.info.manifest
    return Table(
        items=[item.name for item in items],
        errors=partial.errors,
        vectors=partial.file(VECTORS),
        width=shapes[VECTORS][0],
        features=(partial.file(FEATURES), shapes[FEATURES]) if FEATURES in shapes else None,
        about={"space": model.space, "model": manifest.model, "variant": manifest.variant},
    )


def _check_room(output: Path, count: int, shapes: dict[str, tuple[int, ...]], *, quiet: bool) -> None:
    """Refuse what the disk has no room for, twice over: rows are gathered first and then put together."""
    nbytes = sum(4 * count * int(np.prod(shape)) for shape in shapes.values())
    if FEATURES in shapes and not quiet:
        tokens, width = shapes[FEATURES]
        note("sigrun", f"features of {count:,} pictures × {tokens} tokens × {width} take {_size(nbytes)}")
    folder = output.with_name(output.name + SUFFIX)
    there = sum(path.stat().st_size for path in folder.glob("*")) if folder.is_dir() else 0
    free = shutil.disk_usage(output.parent).free
    needed = 2 * nbytes - there + SPARE
    if free < needed:
        raise OutputError(
            f"{output}: this needs {_size(needed)} of disk while it works, and {_size(free)} are free",
            hint="free some space, name another folder, or embed fewer items at a time",
        )


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.1f} MB"
