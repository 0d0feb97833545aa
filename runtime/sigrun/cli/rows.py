"""Pictures and texts of a command line, embedded one after the other, each with what became of it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigrun.cli.shell import complain, note
from sigrun.errors import SigrunError, TextError
from sigrun.gather import Found
from sigrun.model import Siglip
from sigrun.progress import Progress

TEXTS = 64  # texts at a time
MOST_NAME = 200  # characters of a name or text in a note; data: URIs are longer
CUT = "longer than the model reads; its end is ignored"


@dataclass(frozen=True)
class Row:
    """A picture or text that was embedded, or why it was not.

    Attributes:
        name: the picture as the command line or the folder names it, or the text.
        vector: float32 [width], unit length; none if it failed.
        error: why it failed.
        features: float32 [tokens, width], if they were asked for.
        note: what the user should know though it worked.
    """

    name: str
    vector: NDArray[np.float32] | None
    error: SigrunError | None = None
    features: NDArray[np.float32] | None = None
    note: str | None = None


def embedded_pictures(model: Siglip, pictures: Iterable[Found], *, features: bool = False) -> Iterator[Row]:
    """Embed pictures in their order, reading no further ahead than the model does."""
    waiting: deque[Found] = deque()

    def readable() -> Iterator[str]:
        for found in pictures:
            waiting.append(found)
            if found.error is None:
                yield found.name

    for done in model.iter_images(readable(), features=features):
        while (error := waiting[0].error) is not None:
            yield Row(waiting.popleft().name, None, error)
        name = waiting.popleft().name
        yield Row(name, done.vector, done.error, done.features, done.note)
    for found in waiting:
        yield Row(found.name, None, found.error)


def embedded_texts(model: Siglip, texts: Iterable[str]) -> Iterator[Row]:
    """Embed texts in their order; one that cannot be embedded fails alone."""
    rest = iter(texts)
    while batch := list(itertools.islice(rest, TEXTS)):
        try:
            found = model.embed_texts(batch)
        except TextError as error:
            if len(batch) == 1:
                alone = type(error)(error.message.replace("text 0 ", "a text ", 1), hint=error.hint)
                yield Row(batch[0], None, alone)
            else:
                for text in batch:
                    yield from embedded_texts(model, [text])
            continue
        for row, text in enumerate(batch):
            yield Row(text, found.vectors[row], note=CUT if row in found.cut else None)


def report(row: Row, bar: Progress, *, quiet: bool) -> bool:
    """Say on stderr what there is to say of a row; whether it failed."""
    if row.note is not None and not quiet:
        bar.close()
        name = row.name if len(row.name) <= MOST_NAME else f"{row.name[:MOST_NAME]}…"
        note("sigrun", f"{name}: {row.note}")
    if row.error is not None:
        bar.close()
        complain("sigrun", row.error)
    return row.error is not None


def remark(row: Row) -> dict[str, object]:
    """What there is to know of a row that did not fail, for JSON; mostly nothing."""
    return {} if row.note is None else {"note": row.note}


def failure(row: Row) -> dict[str, object]:
    """Why a row failed, for JSON."""
    assert row.error is not None
    return {"error": row.error.message, "hint": row.error.hint}
