"""Predicts the memory that running a tower takes, term by term, before anything is loaded.

The terms, for the compute form ``exact``:

weights       arrays that the runtime unpacks: follow exactly from encodings and shapes
copies        ONNX Runtime's own copy of them: of all, or only of dense matrices, which it packs for its kernels
activations   what a running batch holds; grows with the batch up to the size of the runtime's micro-batch
workspace     one matrix as float32, the scratch in which MatMulNBits decodes
session       what a session costs besides
runtime       Python and the libraries, once a process; on a card its context
mapped        pages of the file itself; the system takes them back at need, so no verdict counts them
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sigrun_hwcheck.constants import Constants, Copies, Provider, Range, Source, constants
from sigrun_hwcheck.stored import Stored, Tensor
from sigrun_recipes import TowerName

TowerChoice = Literal["image", "text", "both"]
TOWER_CHOICES: tuple[TowerChoice, ...] = ("image", "text", "both")

TermName = Literal["weights", "copies", "activations", "workspace", "session", "runtime", "mapped"]

FLOAT_BYTES = 4

# What MatMulNBits takes: bits a weight, weights that share a scale, bytes of float32 scale (and zero point).
_NBITS: dict[str, tuple[int, int, int]] = {"q4_k": (4, 32, 8), "q6_k": (8, 16, 4), "q8_0": (8, 32, 4)}

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
class Need:
    """What running takes at one batch size."""

    tower: TowerChoice
    batch: int
    terms: tuple[Term, ...]

    @property
    def bytes(self) -> Range:
        """What must be free: all terms that cannot be taken back."""
        return _total(t for t in self.terms if not t.reclaimable)

    @property
    def resident_bytes(self) -> Range:
        """What a process monitor will show at the peak, pages of the file included."""
        return _total(self.terms)


def _total(terms: Iterable[Term]) -> Range:
    return sum((t.bytes for t in terms), Range.exactly(0))


def need(stored: Stored, tower: TowerChoice, batch: int, provider: Provider = "cpu") -> Need | None:
    """Memory to run one tower, or both in one process, at a batch size.

    Towers do not run at the same time, but each keeps its memory once it has run, so both add up.
    ``None`` if the variant lacks the tower.

    Raises:
        ValueError: the batch is below 1.
    """
    if batch < 1:
        raise ValueError(f"a batch has at least one input, not {batch}")
    towers: tuple[TowerName, ...] = ("image", "text") if tower == "both" else (tower,)
    if any(t not in stored.towers for t in towers):
        return None
    known = constants(provider)
    runtime = Term("runtime", known.runtime.bytes, known.runtime.source)
    parts = [_tower_terms(stored, t, batch, known) for t in towers]
    merged = [
        Term(same[0].name, _total(same), _weakest(t.source for t in same), same[0].reclaimable)
        for same in zip(*parts, strict=True)
    ]
    return Need(tower, batch, (*merged, runtime))


def _tower_terms(stored: Stored, tower: TowerName, batch: int, known: Constants) -> list[Term]:
    tensors = [t for t in stored.of(tower) if t.packing is not None]
    alive = _activation_bytes(stored, tower) * _micro_batch(stored, tower, batch, known)
    scratch = max((t.size * FLOAT_BYTES for t in tensors if t.packing == "nbits"), default=0)
    copies = sum(_array_bytes(t) for t in tensors if _copied(t, known.copies))
    viewed = sum(_array_bytes(t) for t in tensors if _viewed(t)) if known.copies != "none" else 0
    return [
        Term("weights", Range.exactly(sum(_array_bytes(t) for t in tensors) - viewed), "exact"),
        Term("copies", Range(copies, copies, copies + 2 * scratch), "measured"),
        Term("activations", known.activations.of(alive), known.activations.source),
        Term("workspace", Range(0, scratch, scratch), "measured"),
        Term("session", known.session.bytes, known.session.source),
        Term("mapped", Range(0, viewed, stored.nbytes(tower)), "estimated", reclaimable=True),
    ]


def _micro_batch(stored: Stored, tower: TowerName, batch: int, known: Constants) -> int:
    """Inputs that are really run at once."""
    shape = stored.architecture.tower(tower)
    assert shape is not None  # the caller asked for a tower that is there
    return min(batch, max(1, known.micro_batch_tokens // shape.tokens))


def _weakest(sources: Iterable[Source]) -> Source:
    order: tuple[Source, ...] = ("exact", "measured", "estimated")
    return max(sources, key=order.index)


def _array_bytes(tensor: Tensor) -> int:
    """Bytes of the arrays that a session takes for a stored weight."""
    if tensor.packing == "dense":
        return tensor.size * FLOAT_BYTES
    bits, shared, scale_bytes = _NBITS[tensor.encoding]
    return tensor.size * bits // 8 + tensor.size // shared * scale_bytes


def _viewed(tensor: Tensor) -> bool:
    """Whether the runtime hands over the file's own pages: the numbers are float32 there already."""
    return tensor.packing == "dense" and tensor.encoding == "f32"


def _copied(tensor: Tensor, copies: Copies) -> bool:
    return copies == "all" or (copies == "dense" and tensor.packing == "dense" and tensor.kind in _MULTIPLIED)


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
