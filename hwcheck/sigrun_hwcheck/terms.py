"""The terms that memory is made of, for one tower in one compute form, while it is loaded and while it runs.

weights       arrays that the session computes with as they are: follows exactly from encodings and shapes
packed        matrices once more, laid out for the kernels: dense ones, int8 ones, float32 made of float16
unpacked      while it is loaded: arrays that the session lays out anew, until it has, and the one in work
rounding      what making int8 matrices, or checking them, leaves behind
retained      what the C library does not give back of small arrays that were freed
activations   what a running batch takes; grows with the batch up to the runtime's micro-batch
workspace     a packed matrix or piece as float32, the scratch in which MatMulNBits decodes, wherever heaps hold that
tokenizer     the vocabulary in the file's metadata, and what the first text or picture takes
session       what a session and its layers cost besides
runtime       Python and the libraries, once a process; on a card its context
mapped        pages of files; the system takes them back at need, so no verdict counts them
libraries     pages of libraries that are first needed when a tower is loaded, and when it runs, likewise
process       all of it, where it was measured as one
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sigrun_hwcheck.constants import Constants, Range, Source
from sigrun_hwcheck.quantities import Quantities, quantities
from sigrun_hwcheck.stored import Form, Stored
from sigrun_recipes import TowerName
from sigrun_recipes.pieces import PIECE_BYTES

TermName = Literal[
    "weights",
    "packed",
    "unpacked",
    "rounding",
    "retained",
    "activations",
    "workspace",
    "tokenizer",
    "session",
    "runtime",
    "mapped",
    "libraries",
    "process",
]
INT8_DOUBT = 0.15
"""Share of int8 matrices that may turn out to stay exact, where an export has not found out yet."""


@dataclass(frozen=True)
class Term:
    """One part of the memory needed. ``reclaimable``: the system can take it back, so it is no obstacle."""

    name: TermName
    bytes: Range
    source: Source
    reclaimable: bool = False


@dataclass(frozen=True)
class Terms:
    """The terms of a tower but ``runtime``.

    Attributes:
        load: while it is loaded.
        run: while it runs, and after that: a session keeps what it took.
    """

    load: list[Term]
    run: list[Term]


def terms(
    stored: Stored,
    tower: TowerName,
    form: Form,
    batch: int,
    known: Constants,
    *,
    threads: int,
    cached: bool,
) -> Terms:
    """The terms of a tower in each phase; see :func:`sigrun_hwcheck.memory.need`."""
    shape = stored.architecture.tower(tower)
    assert shape is not None  # the caller asked for a tower that is there
    of = quantities(stored, tower, form)
    costs = known.forms[form]
    items = min(batch, micro_batch(of, known, form))
    moved = known.handover == "moved"
    rounding = costs.reading if cached else costs.rounding
    in_work = 0 if moved else of.int8_largest * min(threads, _int8_count(stored, tower, form))
    pieces = stored.architecture.text.vocabulary if stored.architecture.text is not None else 0
    vocabulary = known.vocabulary.of(pieces)
    first = known.tokenizer if tower == "text" else known.pictures
    pages = 0 if moved else of.dense - of.dense_owned  # views of the file, while they are laid out anew
    positions = 0 if moved else of.viewed - pages
    kept = [
        Term("weights", Range.exactly(of.used + (of.viewed if moved else 0)), "exact"),
        _packed(stored, of, known, form),
        Term("rounding", rounding.of(in_work), rounding.source),
        Term(
            "session",
            known.session.of(1) + known.layer.of(shape.layers) + known.pieces.of(of.pieces),
            known.session.source,
        ),
    ]
    load = [
        *kept,
        Term("tokenizer", vocabulary, known.vocabulary.source),
        Term("libraries", known.libraries.of(1), known.libraries.source, reclaimable=True),
        Term("mapped", Range.exactly(pages), "exact", reclaimable=True),
    ]
    # All arrays that are laid out anew are there until all are, and the one in work besides. In form int8 those in work
    # last are int8 ones, read from their file into two pieces.
    largest = 0 if moved else 2 * of.int8_largest or of.dense_largest
    anew = 0 if moved else of.dense_owned + 2 * of.dense16 + largest
    left = 0 if moved else of.dense_small + of.small16
    beyond = 2 * largest + (
        0 if moved else of.dense16 // 4
    )  # float16 is made float32 by several threads at once
    load.append(Term("unpacked", Range(anew, anew, anew + beyond), costs.retained.source))
    run = [
        *kept,
        Term("retained", costs.retained.of(left), costs.retained.source),
        Term("activations", costs.activations.of(of.activations * items), costs.activations.source),
        Term(
            "workspace",
            costs.workspace.of(of.scratch) + costs.lost.of(min(of.scratch, PIECE_BYTES)),
            costs.workspace.source,
        ),
        Term("tokenizer", vocabulary + first.of(1), first.source),
        Term(
            "libraries", known.libraries.of(1) + known.kernels.of(1), known.kernels.source, reclaimable=True
        ),
        Term("mapped", Range(0, 0, positions), "exact", reclaimable=True),
    ]
    return Terms(_present(load), _present(run))


def _present(found: Iterable[Term]) -> list[Term]:
    return [term for term in found if term.bytes.high_bytes]


def _packed(stored: Stored, of: Quantities, known: Constants, form: Form) -> Term:
    if known.handover == "moved":
        return Term("packed", Range.exactly(of.dense + of.dense16 + of.int8), "exact")
    costs = known.forms[form]
    # Of float16 the provider makes float32, and keeps that beside what is laid out of it.
    converted = costs.converted.of(of.used16)
    certain = Range.exactly(of.dense + 2 * of.dense16 + of.int8 + of.minima)
    source: Source = "exact" if not of.used16 else costs.converted.source
    if of.int8 and not stored.int8_known:
        # Exact ones are taken as nbits or float32: up to four bytes a weight for one.
        doubt = Range(0, 0, round(INT8_DOUBT * 3 * of.int8))
        return Term("packed", certain + converted + doubt, "estimated")
    return Term("packed", certain + converted, source)


def micro_batch(of: Quantities, known: Constants, form: Form) -> int:
    """Items that are run at once at most (``sigrun.batches``)."""
    return 1 if form in known.alone else max(1, known.micro_batch_tokens // of.tokens)


def _int8_count(stored: Stored, tower: TowerName, form: Form) -> int:
    return sum(t.packings.get(form) == "int8" for t in stored.of(tower))


def merged(parts: Iterable[Term]) -> list[Term]:
    """Terms of the same name added up; one is known as well as its least known part."""
    order: tuple[Source, ...] = ("exact", "measured here", "measured", "estimated")
    found: dict[TermName, Term] = {}
    for term in parts:
        before = found.get(term.name)
        if before is not None:
            source = max(before.source, term.source, key=order.index)
            term = Term(term.name, before.bytes + term.bytes, source, term.reclaimable)
        found[term.name] = term
    return list(found.values())


def total(parts: Iterable[Term]) -> Range:
    """The sum of terms."""
    return sum((t.bytes for t in parts), Range.exactly(0))
