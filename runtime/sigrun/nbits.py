"""Stored matrices laid out anew for ONNX Runtime's MatMulNBits, without rounding anything to fewer bits.

The operator multiplies by packed weights, ``scale * (q - zero)`` in blocks along a row. Every quantized encoding has
such a form; Q5_K needs its minima beside it. Works on plain arrays, keeps no state and lets go of the GIL in its inner
loops, as :mod:`sigrun.blocks` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sigrun.blocks import (
    BLOCKS,
    Bytes,
    Floats,
    as_blocks,
    halves,
    runs,
    scales_q6_k,
    subblock_scales,
    unpack_q5_k,
    unpack_q6_k,
)
from sigrun.errors import ArtifactError

Halves = NDArray[np.float16]
MIDDLE_Q5_K = 16  # of the numbers 0-31
SLAB = 64  # rows that are laid out at once where a matrix is cut by its inputs
FLAT = 2.0**15  # 15 / FLAT is less than float16's rounding, 2^-11


Axis = Literal["outputs", "inputs"]
AXES: tuple[Axis, ...] = get_args(Axis)


@dataclass(frozen=True)
class Pieces:
    """How a matrix is cut: into so many equal parts of its outputs or of its inputs."""

    axis: Axis
    count: int


class NBitsForm(NamedTuple):
    """How MatMulNBits takes an encoding; ``offset`` names its third array, if any."""

    bits: Literal[4, 8]
    block_size: int
    offset: Literal["zeros", "minima"] | None


NBITS_FORMS: dict[str, NBitsForm] = {
    "q4_k": NBitsForm(4, 32, "zeros"),
    "q5_k": NBitsForm(8, 32, "minima"),
    "q6_k": NBitsForm(8, 16, None),
    "q8_0": NBitsForm(8, 32, None),
}


@dataclass(frozen=True)
class NBits:
    """A [N, K] matrix as the operator com.microsoft.MatMulNBits takes it: weight = scale * (q - zero) - minimum.

    Attributes:
        bits: 4 or 8 bits a weight.
        block_size: consecutive weights of a row that share a scale.
        q: uint8 [N, K / block_size, block_size * bits / 8]; at 4 bits weight 2i is the low nibble of byte i.
        scales: float32 [N, K / block_size]; float16 here and below in what :meth:`half` gives.
        zeros: float32 zero points [N, K / block_size], or None for the operator's default (128 at 8 bits).
        minima: float32 [N, K / block_size], or None for zeros. The operator knows no minimum: what it adds up to is
            the sums of the activations over each block, times these, and the graph subtracts that.
    """

    bits: Literal[4, 8]
    block_size: int
    q: Bytes
    scales: Floats | Halves
    zeros: Floats | Halves | None = None
    minima: Floats | Halves | None = None

    def parts(self) -> dict[str, Bytes | Floats | Halves]:
        """The arrays there are, by field name: what a graph takes as one initializer each."""
        found: dict[str, Bytes | Floats | Halves] = {"q": self.q, "scales": self.scales}
        if self.zeros is not None:
            found["zeros"] = self.zeros
        if self.minima is not None:
            found["minima"] = self.minima
        return found

    def cut(self, pieces: Pieces) -> list[NBits]:
        """The matrix in equal pieces, in order. Where they are no views, they share the memory of one copy.

        Raises:
            ValueError: it cannot be cut so: the outputs, or the blocks of the inputs, are not a multiple of the pieces.
        """
        outputs, blocks = self.scales.shape
        if (outputs if pieces.axis == "outputs" else blocks) % pieces.count:
            raise ValueError(f"{outputs} x {blocks} blocks cannot be cut into {pieces.count} {pieces.axis}")
        parts = {name: _cut(array, pieces) for name, array in self.parts().items()}
        return [
            NBits(self.bits, self.block_size, **{name: array[number] for name, array in parts.items()})
            for number in range(pieces.count)
        ]

    def half(self) -> NBits:
        """The same matrix with float16 for float32, for an operator whose activations are float16.

        Scales are rounded to float16. A zero point is taken anew from the rounded scale and a minimum moved to the
        middle of its block, so that a block's offset is off by no more than one rounding to float16 too.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # what is no number shows in the towers' results
            return self._half(_halved(self.scales))

    def _half(self, scales: Halves) -> NBits:
        if self.zeros is not None:
            return self._half_zeros(scales, self.scales * self.zeros)
        if self.minima is None:
            return NBits(self.bits, self.block_size, self.q, scales)
        # With all numbers of a block above zero, products with activations whose mean is not zero would be far
        # larger than what is left of them after the minima, and float16 would round that away.
        q = self.q - np.uint8(MIDDLE_Q5_K)
        minima = _halved(self.minima - self.scales * np.float32(MIDDLE_Q5_K))
        return NBits(self.bits, self.block_size, q, scales, minima=minima)

    def _half_zeros(self, scales: Halves, minima: Floats) -> NBits:
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = minima / scales
        q = self.q
        # What is left of a block whose minimum lies many steps deep is that minimum: 15 steps are less than the
        # rounding of it. Its zero point might not fit float16.
        flat = ~(np.abs(zeros) <= FLAT)
        if flat.any():
            q = q.copy()
            q[flat], zeros[flat], scales[flat] = 0, 1, _halved(minima[flat])
        return NBits(self.bits, self.block_size, q, scales, zeros=_halved(zeros))


def _cut(array: Any, pieces: Pieces) -> Any:
    """[N, blocks, ...] as [pieces, N, blocks, ...], smaller along one of both."""
    outputs, blocks, *rest = array.shape
    if pieces.axis == "outputs":
        return array.reshape(pieces.count, outputs // pieces.count, blocks, *rest)
    by_piece = array.reshape(outputs, pieces.count, blocks // pieces.count, *rest)
    return np.ascontiguousarray(by_piece.swapaxes(0, 1))


def _halved(values: Floats | Halves) -> Halves:
    with np.errstate(over="ignore"):  # what float16 cannot hold shows in the result, which is checked
        return values.astype(np.float16)


def initializers(
    encoding: str, data: Bytes, rows: int, columns: int, pieces: Pieces | None = None, *, half: bool = False
) -> dict[str, Bytes | Floats | Halves]:
    """What a graph takes of a stored matrix: the end of an initializer's name → the array.

    Args:
        encoding, data, rows, columns: as for :func:`to_nbits`.
        pieces: how the graph cuts it, if it does.
        half: the graph takes it whole, and float16 for float32.

    Raises:
        ArtifactError, ValueError: as for :func:`to_nbits` and :meth:`NBits.cut`.
    """
    if pieces is None:
        whole = to_nbits(encoding, data, rows, columns)
        return (whole.half() if half else whole).parts()
    cut = to_pieces(encoding, data, rows, columns, pieces)
    return {f"{at}.{part}": array for at, piece in enumerate(cut) for part, array in piece.parts().items()}


def to_pieces(encoding: str, data: Bytes, rows: int, columns: int, pieces: Pieces) -> list[NBits]:
    """The pieces of :func:`to_nbits`' matrix; a large one is not held twice.

    Raises:
        ArtifactError, ValueError: as for :func:`to_nbits` and :meth:`NBits.cut`.
    """
    blocks = as_blocks(encoding, data)
    per_block = BLOCKS[encoding].weights
    if pieces.axis == "outputs" or rows <= SLAB or SLAB * columns % per_block:
        return to_nbits(encoding, data, rows, columns).cut(pieces)
    whole: dict[str, Any] = {}
    for first in range(0, rows, SLAB):
        last = min(rows, first + SLAB)
        slab = blocks[first * columns // per_block : last * columns // per_block]
        cut = to_nbits(encoding, slab, last - first, columns).cut(pieces)
        for number, piece in enumerate(cut):
            for name, array in piece.parts().items():
                if name not in whole:
                    whole[name] = np.empty((pieces.count, rows, *array.shape[1:]), array.dtype)
                whole[name][number, first:last] = array
    bits, block_size, _ = NBITS_FORMS[encoding]
    return [
        NBits(bits, block_size, **{n: a[number] for n, a in whole.items()}) for number in range(pieces.count)
    ]


def to_nbits(encoding: str, data: Bytes, rows: int, columns: int) -> NBits:
    """The stored numbers of a [rows, columns] matrix in MatMulNBits' layout; nothing is rounded to fewer bits.

    q4_k becomes 4-bit in blocks of 32 with float zero points, q5_k 8-bit in blocks of 32 with minima beside it (8 bits
    take no float zero point), q6_k 8-bit in blocks of 16, q8_0 8-bit in blocks of 32. Rows may lie folded, end to end
    across super-blocks. The operator's weights differ from ``decode`` by at most some 1e-7 of the larger of the weight
    and its minimum.

    Raises:
        ArtifactError: as ``decode``; the encoding is a plain float; the bytes are not rows * columns weights; or a
            scale would serve two rows.
    """
    blocks = as_blocks(encoding, data)
    if encoding not in NBITS_FORMS:
        raise ArtifactError(
            f"{encoding} has no MatMulNBits form; there are: {', '.join(NBITS_FORMS)}",
            hint="decode it to floats instead",
        )
    bits, block_size, offset = NBITS_FORMS[encoding]
    per_block = BLOCKS[encoding].weights
    if blocks.shape[0] * per_block != rows * columns:
        raise ArtifactError(f"{blocks.shape[0] * per_block} weights are not a matrix of {rows} x {columns}")
    if columns < 1 or columns % block_size:
        raise ArtifactError(f"rows of {columns} weights are not whole {encoding} sub-blocks of {block_size}")
    shape = rows, columns // block_size
    q = np.empty((*shape, block_size * bits // 8), np.uint8)
    scales = np.empty(shape, np.float32)
    third = np.empty(shape, np.float32) if offset is not None else None
    # The same memory by blocks: [blocks, bytes], [blocks, sub-blocks].
    arrays: tuple[Bytes | Floats, ...] = (q, scales) if third is None else (q, scales, third)
    flat = [a.reshape(blocks.shape[0], a.size // max(1, blocks.shape[0])) for a in arrays]
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # scales that are no numbers show in the towers' results
        for part in runs(blocks.shape[0], per_block):
            _FILL[encoding](blocks[part], *(a[part] for a in flat))
    if offset == "zeros":
        return NBits(bits, block_size, q, scales, zeros=third)
    return NBits(bits, block_size, q, scales, minima=third)


def _nbits_q4_k(blocks: Bytes, q: Bytes, scales: Floats, zeros: Floats) -> None:
    # Two neighbouring weights lie in neighbouring bytes here and in one byte there: as 16-bit words 0x0b0a -> 0xba.
    pairs = np.ascontiguousarray(blocks[:, 16:]).view(
        "<u2"
    )  # [blocks, 64], low nibbles one sub-block, high the next
    halves = q.view(np.complex128).reshape(-1, 4, 2)  # an item is a sub-block's 16 bytes
    for half, words in enumerate((pairs & 0x0F0F, (pairs >> 4) & 0x0F0F)):
        words |= words >> 4
        halves[:, :, half] = words.astype(np.uint8).view(np.complex128)
    scale, minimum = subblock_scales(blocks)
    flat = scale == 0  # every weight is -minimum, whatever its q: write that as minimum * (0 - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(minimum, scale, out=zeros)
    scales[...] = scale
    if flat.any():
        scales[flat] = minimum[flat]
        zeros[flat] = 1
        q.reshape(-1, 8, 16)[flat] = 0


def _nbits_q5_k(blocks: Bytes, q: Bytes, scales: Floats, minima: Floats) -> None:
    unpack_q5_k(blocks, q)
    q += 128
    scales[...], minima[...] = subblock_scales(blocks)


def _nbits_q6_k(blocks: Bytes, q: Bytes, scales: Floats) -> None:
    unpack_q6_k(blocks, q)
    q += 128 - 32
    scales[...] = scales_q6_k(blocks)


def _nbits_q8_0(blocks: Bytes, q: Bytes, scales: Floats) -> None:
    np.bitwise_xor(blocks[:, 2:], 0x80, out=q)  # signed to offset 128
    scales[...] = halves(blocks, 0)


_FILL: dict[str, Callable[..., Any]] = {
    "q4_k": _nbits_q4_k,
    "q5_k": _nbits_q5_k,
    "q6_k": _nbits_q6_k,
    "q8_0": _nbits_q8_0,
}
