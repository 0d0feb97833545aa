"""Predicts the memory that running a tower takes, term by term, before anything is loaded.

Two moments matter. While a tower is **loaded**, a session that copies its weights has them twice for a while;
when it **runs**, activations have come. What is needed is the larger of the two.
The terms, for the compute form ``exact``:

weights       what the session computes with: follows exactly from encodings and shapes
unpacked      the arrays handed to the session, until it stands
retained      what the C library does not give back of them
packed        dense matrices once more, laid out for the kernels, where the session shares the arrays
activations   what a running batch holds; grows with the batch up to the runtime's micro-batch
workspace     one matrix as float32, the scratch in which MatMulNBits decodes
session       what a session costs besides
runtime       Python and the libraries, once a process; on a card its context
mapped        pages of the file itself; the system takes them back at need, so no verdict counts them
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sigrun_hwcheck.constants import Constants, Provider, Range, Source, constants
from sigrun_hwcheck.stored import NBITS, Stored, Tensor
from sigrun_recipes import TowerName

TowerChoice = Literal["image", "text", "both"]
TOWER_CHOICES: tuple[TowerChoice, ...] = ("image", "text", "both")

TermName = Literal[
    "weights", "unpacked", "retained", "packed", "activations", "workspace", "session", "runtime", "mapped"
]
PhaseName = Literal["load", "run"]

LOADING: tuple[TermName, ...] = ("weights", "unpacked", "packed", "session", "mapped")
WAITING: tuple[TermName, ...] = ("weights", "packed", "activations", "workspace", "session", "mapped")
RUNNING: tuple[TermName, ...] = (*WAITING, "retained")

FLOAT_BYTES = 4

# Kinds of matrices that ONNX Runtime multiplies by, and so packs for its kernels when they are dense.
_MULTIPLIED = ("linear", "patch")


@dataclass(frozen=True)
class Term:
    """One part of the memory needed. ``reclaimable``: the system can take it back, so it is no obstacle."""

    name: TermName
    bytes: Range
    source: Source
    reclaimable: bool = False


@dataclass(frozen=True)
class Phase:
    """A moment at which memory may peak."""

    name: PhaseName
    terms: tuple[Term, ...]

    @property
    def bytes(self) -> Range:
        """All terms that cannot be taken back."""
        return _total(t for t in self.terms if not t.reclaimable)

    @property
    def resident_bytes(self) -> Range:
        """What a process monitor shows, pages of the file included."""
        return _total(self.terms)


@dataclass(frozen=True)
class Need:
    """What one tower, or both in one process, take at one batch size."""

    tower: TowerChoice
    batch: int
    phases: tuple[Phase, ...]

    @property
    def bytes(self) -> Range:
        """What must be free: the larger of the phases."""
        return _larger(phase.bytes for phase in self.phases)

    @property
    def resident_bytes(self) -> Range:
        """What a process monitor will have shown at the peak."""
        return _larger(phase.resident_bytes for phase in self.phases)


def need(stored: Stored, tower: TowerChoice, batch: int, provider: Provider = "cpu") -> Need | None:
    """Memory to run one tower, or both in one process, at a batch size.

    Towers do not run at the same time, but a session keeps what it once took: the second tower is loaded while
    the first still holds its activations (but takes up what the C library retained). ``None`` if the variant
    lacks the tower.

    Raises:
        ValueError: the batch is below 1.
    """
    if batch < 1:
        raise ValueError(f"a batch has at least one input, not {batch}")
    towers: tuple[TowerName, ...] = ("image", "text") if tower == "both" else (tower,)
    if any(t not in stored.towers for t in towers):
        return None
    known = constants(provider)
    terms = {t: _terms(stored, t, batch, known) for t in towers}
    runtime = Term("runtime", known.runtime.bytes, known.runtime.source)

    def phase(name: PhaseName, names: dict[TowerName, tuple[TermName, ...]]) -> Phase:
        there = [term for t in towers for term in terms[t] if term.name in names[t]]
        return Phase(name, (*_merged(there), runtime))

    loads = [phase("load", {t: LOADING if t == last else WAITING for t in towers}) for last in towers]
    run = phase("run", dict.fromkeys(towers, RUNNING))
    return Need(tower, batch, (max(loads, key=lambda p: p.resident_bytes.best_bytes), run))


def _terms(stored: Stored, tower: TowerName, batch: int, known: Constants) -> list[Term]:
    """Every term of a tower, whatever the phase."""
    tensors = [t for t in stored.of(tower) if t.packing is not None]
    alive = _activation_bytes(stored, tower) * _micro_batch(stored, tower, batch, known)
    scratch = max((t.size * FLOAT_BYTES for t in tensors if t.packing == "nbits"), default=0)
    arrays = sum(_array_bytes(t) for t in tensors)
    viewed = sum(_array_bytes(t) for t in tensors if _viewed(t))
    multiplied = sum(_array_bytes(t) for t in tensors if t.packing == "dense" and t.kind in _MULTIPLIED)
    pages = known.mapped.bytes.at_most(stored.nbytes(tower)) + Range(0, viewed, viewed)
    shared = known.handover == "shared"
    # Sessions work on packed arrays in place; dense matrices they lay out anew, so those are copied (sigrun.sessions).
    anew = sum(
        _array_bytes(t) for t in tensors if t.packing == "dense" and not _viewed(t) and t.kind in _MULTIPLIED
    )
    unpacked = {"copied": arrays - viewed, "shared": anew, "moved": 0}[known.handover]
    # A dense matrix is copied, packed, and its copy freed; what stays of that varied between nothing and this.
    freed = Range(0, 0, round(viewed * known.retained.best))
    return [
        Term("weights", Range.exactly(arrays - viewed - anew if shared else arrays), "exact"),
        Term("unpacked", Range.exactly(unpacked), "exact"),
        Term("retained", known.retained.of(unpacked) + freed, known.retained.source),
        Term("packed", Range.exactly(multiplied if shared else 0), "exact"),
        Term("activations", known.activations.of(alive), known.activations.source),
        Term("workspace", Range(0, scratch, scratch), "measured"),
        Term("session", known.session.bytes, known.session.source),
        Term("mapped", pages, "measured", reclaimable=True),
    ]


def _merged(terms: Iterable[Term]) -> list[Term]:
    """Terms of the same name added up; one is known as well as its least known part."""
    order: tuple[Source, ...] = ("exact", "measured", "estimated")
    merged: dict[TermName, Term] = {}
    for term in terms:
        before = merged.get(term.name)
        if before is not None:
            source = max(before.source, term.source, key=order.index)
            term = Term(term.name, before.bytes + term.bytes, source, term.reclaimable)
        merged[term.name] = term
    return list(merged.values())


def _total(terms: Iterable[Term]) -> Range:
    return sum((t.bytes for t in terms), Range.exactly(0))


def _larger(ranges: Iterable[Range]) -> Range:
    low, best, high = zip(*((r.low_bytes, r.best_bytes, r.high_bytes) for r in ranges), strict=True)
    return Range(max(low), max(best), max(high))


def _micro_batch(stored: Stored, tower: TowerName, batch: int, known: Constants) -> int:
    """Inputs that are really run at once."""
    shape = stored.architecture.tower(tower)
    assert shape is not None  # the caller asked for a tower that is there
    return min(batch, max(1, known.micro_batch_tokens // shape.tokens))


def _array_bytes(tensor: Tensor) -> int:
    """Bytes of the arrays that a session takes for a stored weight."""
    if tensor.packing == "dense":
        return tensor.size * FLOAT_BYTES
    bits, shared, scale_bytes = NBITS[tensor.encoding]
    return tensor.size * bits // 8 + tensor.size // shared * scale_bytes


def _viewed(tensor: Tensor) -> bool:
    """Whether the runtime hands over the file's own pages: the numbers are float32 there already."""
    return tensor.packing == "dense" and tensor.encoding == "f32"


def _activation_bytes(stored: Stored, tower: TowerName) -> int:
    """Float32 activations alive at once for one input, at the widest place of a layer.

    In attention: the residual, its normalised copy, q, k, v and one transposed copy, and the scores before
    and after softmax. In the MLP: the residual, its normalised copy, and the hidden values before and after
    GELU. Pixel values of a picture stay alive beside either.
    """
    shape = stored.architecture.tower(tower)
    assert shape is not None  # the caller asked for a tower that is there
    residual = shape.tokens * shape.width
    scores = shape.heads * shape.tokens**2
    hidden = shape.tokens * max(stored.mlp_width(tower), shape.mlp)
    image = stored.architecture.image
    pixels = 3 * image.image_size**2 if tower == "image" and image is not None else 0
    return FLOAT_BYTES * (max(6 * residual + 2 * scores, 2 * residual + 2 * hidden) + pixels)
