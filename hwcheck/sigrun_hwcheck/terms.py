"""The terms that memory is made of, for one tower in one compute form.

weights       arrays that the session computes with as they are: follows exactly from encodings and shapes
packed        matrices once more, laid out for the kernels: dense ones, int8 ones, float32 made of float16
unpacked      arrays that the session lays out anew, until it has
rounding      int8 matrices on their way to the file from which the session takes them
retained      what the C library does not give back of what was freed
activations   what a running batch holds; grows with the batch up to the runtime's micro-batch
workspace     one matrix as float32, the scratch in which MatMulNBits decodes; the arena takes several times that
tokenizer     pieces of the vocabulary, in the file's metadata and in the text tower's tokenizer
session       what a session costs besides
runtime       Python and the libraries, once a process; on a card its context
mapped        pages of files; the system takes them back at need, so no verdict counts them
libraries     pages of libraries that are first needed when a tower runs, likewise
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
_KEPT: tuple[TermName, ...] = ("weights", "packed", "session", "mapped", "tokenizer")
LOADING: tuple[TermName, ...] = (*_KEPT, "unpacked", "rounding")
WAITING: tuple[TermName, ...] = (*_KEPT, "activations", "workspace", "libraries")
RUNNING: tuple[TermName, ...] = (*WAITING, "retained")

VIEWED_DOUBT = 0.2
"""A matrix that is a view of the file is copied, packed, and its copy freed: what stays of that, at most."""

INT8_DOUBT = 0.15
"""Share of int8 matrices that may turn out to stay exact, where an export has not found out yet."""


@dataclass(frozen=True)
class Term:
    """One part of the memory needed. ``reclaimable``: the system can take it back, so it is no obstacle."""

    name: TermName
    bytes: Range
    source: Source
    reclaimable: bool = False


def terms(
    stored: Stored,
    tower: TowerName,
    form: Form,
    batch: int,
    known: Constants,
    *,
    threads: int,
    cached: bool,
) -> list[Term]:
    """Every term of a tower but ``runtime``, whatever the phase; see :func:`sigrun_hwcheck.memory.need`."""
    shape = stored.architecture.tower(tower)
    assert shape is not None  # the caller asked for a tower that is there
    of = quantities(stored, tower, form)
    costs = known.forms[form]
    items = min(batch, micro_batch(of, known, form))
    moved = known.handover == "moved"
    anew = 0 if moved else of.dense_owned + of.dense16
    freed = 0 if moved else of.viewed
    retained = costs.retained.of(anew) + Range(0, 0, round(freed * VIEWED_DOUBT))
    rounding = costs.reading if cached else costs.rounding
    in_work = 0 if moved else of.int8_largest * min(threads, _int8_count(stored, tower, form))
    text = tower == "text"
    pieces = stored.architecture.text.vocabulary if stored.architecture.text is not None else 0
    tokenizer = known.pieces.of(pieces) + (known.tokenizer.of(pieces) if text else Range.exactly(0))
    pages = known.libraries.of(1) + known.mapped.of(1).at_most(stored.nbytes(tower))
    if of.viewed and not moved:
        pages = pages + Range(0, of.viewed, of.viewed)
    activations = costs.attention.of(of.attention * items).or_more(costs.mlp.of(of.mlp * items))
    found = [
        Term("weights", Range.exactly(of.used + (of.viewed if moved else 0)), "exact"),
        _packed(stored, of, known, form),
        Term("unpacked", costs.unpacked.of(anew), costs.unpacked.source),
        Term("rounding", rounding.of(in_work), rounding.source),
        Term("retained", retained, costs.retained.source),
        Term("activations", activations, costs.attention.source),
        Term("workspace", costs.workspace.of(of.scratch), costs.workspace.source),
        Term("tokenizer", tokenizer, known.tokenizer.source),
        Term("session", known.session.of(1) + known.layer.of(shape.layers), known.session.source),
        Term("libraries", known.kernels.of(1), known.kernels.source, reclaimable=True),
        Term("mapped", pages, known.mapped.source, reclaimable=True),
    ]
    return [term for term in found if term.bytes.high_bytes]


def _packed(stored: Stored, of: Quantities, known: Constants, form: Form) -> Term:
    if known.handover == "moved":
        return Term("packed", Range.exactly(of.dense + of.dense16 + of.int8), "exact")
    costs = known.forms[form]
    # Of float16 the provider makes float32, and keeps that beside what is laid out of it.
    converted = costs.converted.of(of.dense16) + costs.converted.of(of.used16)
    certain = Range.exactly(of.dense + 2 * of.dense16 + of.int8)
    source: Source = "exact" if not of.used16 and not of.dense16 else costs.converted.source
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
