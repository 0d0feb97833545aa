"""What follows from a variant's shapes and encodings alone: bytes by what a session does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from sigrun_hwcheck.stored import NBITS, Form, Stored, Tensor
from sigrun_recipes import MULTIPLIED, Cut, TowerName

FLOAT_BYTES, HALF_BYTES = 4, 2
VIEWED_BYTES = 1 << 20
"""Larger f32 weights are views of the file, not copies (``sigrun.artifact.COPIED_BYTES``)."""

LARGE_BYTES = 4 << 20
"""Smaller pieces stay with the C library when they are freed (``sigrun.allocation.LOADING``)."""

MINIMA = "q5_k"
"""The encoding whose graphs multiply by its minima in a product of their own (``sigrun.nbits``)."""


@dataclass(frozen=True)
class Quantities:
    """Bytes of one tower in one compute form.

    Attributes:
        used: arrays that kernels use as they are: quantized matrices with their scales, and all that is small.
        used16: those of them that are float16.
        viewed: float32 weights that are handed over as pages of the file.
        dense: float32 matrices that kernels lay out anew, those that are views included.
        dense_owned: those that are no views: unpacked first, freed once laid out.
        dense_largest: the largest of those that are no views, or of the float16 ones, as float32.
        dense_small: those of them that the C library keeps when they are freed (``sigrun.allocation``).
        dense16: float16 matrices.
        small16: those of them that the C library keeps.
        minima: float32 matrices beside quantized ones, used by their layer both as they are and laid out anew.
        int8: int8 matrices.
        int8_largest: the largest of them.
        scratch: the largest quantized matrix, or piece of one, as float32: what MatMulNBits decodes it into.
        pieces: pieces of the matrices that are multiplied in pieces.
        activations: float32 activations of one item that the session's memory holds places for: the hidden values
            before and after GELU, of one group where they are dealt to groups; the residual, its normalised copy, q, k,
            v and what they mix to, of one group of heads, and the sum over groups; the input.
        tokens: tokens of one item.
    """

    used: int
    used16: int
    viewed: int
    dense: int
    dense_owned: int
    dense_largest: int
    dense_small: int
    dense16: int
    small16: int
    minima: int
    int8: int
    int8_largest: int
    scratch: int
    pieces: int
    activations: int
    tokens: int


KEPT = 256
"""Answers that are kept: a table asks for the same ones for every device, batch and tower."""


@lru_cache(KEPT)
def quantities(stored: Stored, tower: TowerName, form: Form) -> Quantities:
    """The quantities of a tower that the variant has, in a form that it has."""
    shape = stored.architecture.tower(tower)
    assert shape is not None  # the caller asked for a tower that is there
    tensors = [(t, t.packings[form]) for t in stored.of(tower) if form in t.packings]

    def total(count: Callable[[Tensor], int], chosen: Iterable[tuple[Tensor, str]]) -> int:
        return sum(count(t) for t, _ in chosen)

    dense = [(t, p) for t, p in tensors if p == "dense"]
    multiplied = [(t, p) for t, p in dense if t.kind in MULTIPLIED]
    small = [(t, p) for t, p in dense if t.kind not in MULTIPLIED and not _viewed(t)]
    dense16 = [(t, p) for t, p in tensors if p == "dense16"]
    matrices16 = [(t, p) for t, p in dense16 if t.kind in MULTIPLIED]
    small16 = [(t, p) for t, p in dense16 if t.kind not in MULTIPLIED]
    packed = [(t, p) for t, p in tensors if p in ("nbits", "nbits16")]
    int8 = [(t, p) for t, p in tensors if p == "int8"]
    used16 = total(_half, small16) + sum(_scale_bytes(t) // 2 for t, p in packed if p == "nbits16")
    used = (
        used16
        + total(_float, small)
        + sum(_number_bytes(t) for t, _ in packed)
        + sum(_scale_bytes(t) for t, p in packed if p == "nbits")
        + sum(FLOAT_BYTES * t.shape[0] for t, _ in int8)  # their scales
    )
    residual = shape.tokens * shape.width
    groups = min(
        (_groups(t, form) for t in stored.of(tower) if ".blk." in t.name and _ends(t, "attn_out")), default=1
    )
    widths = 6.0 if groups == 1 else 3 + 4 / groups
    hidden = shape.tokens * _hidden_width(stored, tower, form, shape.mlp)
    image = stored.architecture.image
    given = 3 * image.image_size**2 if tower == "image" and image is not None else residual
    owned = [t for t, _ in multiplied if not _viewed(t)]
    return Quantities(
        used=used,
        used16=used16,
        viewed=sum(_float(t) for t, _ in dense if _viewed(t)),
        dense=total(_float, multiplied),
        dense_owned=sum(map(_float, owned)),
        dense_largest=max((_float(t) for t in (*owned, *(t for t, _ in matrices16))), default=0),
        dense_small=sum(_float(t) for t in owned if _float(t) < LARGE_BYTES),
        dense16=total(_half, matrices16),
        small16=sum(_half(t) for t, _ in matrices16 if _half(t) < LARGE_BYTES),
        minima=sum(_scale_bytes(t) // 2 for t, _ in packed if t.encoding == MINIMA),
        int8=sum(t.size for t, _ in int8),
        int8_largest=max((t.size for t, _ in int8), default=0),
        scratch=max((_float(t) // _pieces(t, form)[1] for t, _ in packed), default=0),
        pieces=sum(_pieces(t, form)[1] for t, _ in packed if form in t.pieces),
        activations=FLOAT_BYTES * (2 * hidden + round(widths * residual) + given),
        tokens=shape.tokens,
    )


def _pieces(tensor: Tensor, form: Form) -> Cut:
    return tensor.pieces.get(form, ("outputs", 1))


def _groups(tensor: Tensor, form: Form) -> int:
    """Groups that a matrix's inputs come in, one after the other."""
    axis, count = _pieces(tensor, form)
    return count if axis == "inputs" else 1


def _ends(tensor: Tensor, part: str) -> bool:
    return tensor.name.endswith(f".{part}.weight")


def _hidden_width(stored: Stored, tower: TowerName, form: Form, least: int) -> int:
    """Hidden units of an MLP that are there at once, padding included; at least so many of one that is not cut."""
    down = [t for t in stored.of(tower) if _ends(t, "ffn_down")]
    groups = ((_groups(t, form), t.shape[1]) for t in down)
    return max((width // count if count > 1 else max(least, width) for count, width in groups), default=least)


def _viewed(tensor: Tensor) -> bool:
    return tensor.encoding == "f32" and _float(tensor) > VIEWED_BYTES


def _float(tensor: Tensor) -> int:
    return tensor.size * FLOAT_BYTES


def _half(tensor: Tensor) -> int:
    return tensor.size * HALF_BYTES


def _number_bytes(tensor: Tensor) -> int:
    """Bytes of the numbers of a matrix as MatMulNBits takes it."""
    return tensor.size * NBITS[tensor.encoding][0] // 8


def _scale_bytes(tensor: Tensor) -> int:
    """Bytes of its float32 scales, with zero points or minima."""
    _, shared, nbytes = NBITS[tensor.encoding]
    return tensor.size // shared * nbytes
