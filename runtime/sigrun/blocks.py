"""Blocks as GGUF stores them: decode them to floats, or lay them out anew for ONNX Runtime's MatMulNBits.

A block holds a run of consecutive weights of a matrix, row after row. The K-quants call theirs a super-block:
256 weights, cut into sub-blocks that each have a scale of their own, and in Q4_K and Q5_K a minimum too:

    q8_0    32 weights   x = d * q                       q signed 8-bit
    q4_k   256 weights   x = d * scale * q - dmin * min   q 4-bit, 8 sub-blocks of 32, scale and min 6-bit
    q5_k   256 weights   x = d * scale * q - dmin * min   q 5-bit, as q4_k
    q6_k   256 weights   x = d * scale * (q - 32)         q 6-bit, 16 sub-blocks of 16, scale signed 8-bit

d and dmin are float16. Byte layouts: ggml-common.h of ggml. Everything here works on plain arrays, keeps no state
and lets go of the GIL in its inner loops, so tensors may be unpacked from several threads at once. Scratch memory
stays below a few MiB whatever the size of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import ArtifactError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Blocks are worked on in runs of about this many weights: the scratch arrays of a run stay in a core's cache.
RUN = 1 << 18


class Block(NamedTuple):
    """Geometry of an encoding: weights in a block, and its size in bytes."""

    weights: int
    size: int


BLOCKS: dict[str, Block] = {
    "f32": Block(1, 4),
    "f16": Block(1, 2),
    "q8_0": Block(32, 34),
    "q4_k": Block(256, 144),
    "q5_k": Block(256, 176),
    "q6_k": Block(256, 210),
}


def decode(encoding: str, data: Bytes) -> Floats:
    """The weights in ``data``, uint8 [whole blocks], as a flat float32 array.

    For f32 the result is a view of ``data`` where the machine allows it; otherwise it is new memory.

    Raises:
        ArtifactError: the encoding is unknown, or the bytes are not whole blocks.
    """
    blocks = as_blocks(encoding, data)  # [blocks, size]
    if encoding == "f32":
        return blocks.reshape(-1).view("<f4").astype(np.float32, copy=False)
    out = np.empty((blocks.shape[0], BLOCKS[encoding].weights), np.float32)
    _decode_blocks(encoding, blocks, out)
    return out.reshape(-1)


def rows_of(encoding: str, data: Bytes, columns: int, index: NDArray[np.int64]) -> Floats:
    """Some rows of a matrix of ``columns`` columns: float32 [len(index), columns].

    Only the blocks that hold those rows are read, so a memory-mapped table costs no more than its rows at hand. A row
    may begin and end inside a block (1152 weights cover 4.5 super-blocks). A row asked for twice is decoded once.

    Raises:
        ArtifactError: as ``decode``, or ``data`` is not whole rows.
        IndexError: an index is negative or past the last row.
    """
    blocks = as_blocks(encoding, data)
    per_block = BLOCKS[encoding].weights
    total = blocks.shape[0] * per_block
    if columns < 1 or total % columns:
        raise ArtifactError(f"{total} weights are not whole rows of {columns}")
    wanted, place = np.unique(np.asarray(index, np.int64), return_inverse=True)
    if wanted.size and (wanted[0] < 0 or wanted[-1] >= total // columns):
        bad = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise IndexError(f"row {bad} of a table of {total // columns} rows")
    rows = np.empty((wanted.size, columns), np.float32)
    # The most blocks that a row can touch; a window beyond the last block is cut, and that part never used.
    span = (columns - 1) // per_block + 2
    for part in runs(wanted.size, span * per_block):
        first, offset = np.divmod(wanted[part] * columns, per_block)
        window = np.minimum(first[:, None] + np.arange(span), blocks.shape[0] - 1)  # [rows, span]
        weights = np.empty((window.size, per_block), np.float32)
        _decode_blocks(encoding, blocks[window.reshape(-1)], weights)
        weights = weights.reshape(len(first), span * per_block)
        for at in np.unique(offset):
            rows[part][offset == at] = weights[offset == at, at : at + columns]
    return rows[place.reshape(-1)]


def as_blocks(encoding: str, data: Bytes) -> Bytes:
    """``data`` as [blocks, size]."""
    if encoding not in BLOCKS:
        raise ArtifactError(f"unknown encoding '{encoding}'; known here: {', '.join(BLOCKS)}")
    size = BLOCKS[encoding].size
    if data.dtype != np.uint8 or data.size % size:
        raise ArtifactError(f"{data.nbytes} bytes are not whole {encoding} blocks of {size} bytes")
    return np.ascontiguousarray(data).reshape(-1, size)


def runs(count: int, weights: int) -> Iterator[slice]:
    """Slices over ``count`` things of so many weights each, about RUN weights at a time."""
    step = max(1, RUN // weights)
    return (slice(i, i + step) for i in range(0, count, step))


def _decode_blocks(encoding: str, blocks: Bytes, out: Floats) -> None:
    """Decode uint8 [blocks, size] into ``out``, float32 [blocks, weights]."""
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # scales that are no numbers show in the towers' results
        for part in runs(blocks.shape[0], BLOCKS[encoding].weights):
            _DECODE[encoding](blocks[part], out[part])


def halves(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte ``at`` of each block: [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def subblock_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scales d * scale and minima dmin * min of the sub-blocks of q4_k or q5_k: [blocks, 8] each.

    Twelve bytes hold sixteen 6-bit numbers. Taken as three words of four bytes, all four numbers of a word unpack at
    once: the first word has scales 0-3, the second minima 0-3, the third the low four bits of scales 4-7 and minima
    4-7, whose high two bits are the top bits of the first two words.
    """
    words = np.ascontiguousarray(blocks[:, 4:16]).view("<u4")  # [blocks, 3]
    first, second, third = (words[:, i] for i in range(3))
    codes = np.empty((2, blocks.shape[0], 2), "<u4")
    codes[0, :, 0] = first & 0x3F3F3F3F
    codes[0, :, 1] = (third & 0x0F0F0F0F) | ((first >> 2) & 0x30303030)
    codes[1, :, 0] = second & 0x3F3F3F3F
    codes[1, :, 1] = ((third >> 4) & 0x0F0F0F0F) | ((second >> 2) & 0x30303030)
    scales, minima = codes.view(np.uint8).astype(np.float32)  # [blocks, 8] each
    scales *= halves(blocks, 0)
    minima *= halves(blocks, 2)
    return scales, minima


def _decode_plain(blocks: Bytes, out: Floats) -> None:
    out[...] = blocks.view("<f4" if blocks.shape[1] == 4 else "<f2")


def _decode_q8_0(blocks: Bytes, out: Floats) -> None:
    out[...] = blocks[:, 2:].view(np.int8)
    out *= halves(blocks, 0)


def _affine(blocks: Bytes, q: Bytes, out: Floats) -> None:
    """out = d * scale * q - dmin * min, for q uint8 [blocks, 256]."""
    scales, minima = subblock_scales(blocks)
    out[...] = q
    weights = out.reshape(-1, 8, 32)
    weights *= scales[:, :, None]
    weights -= minima[:, :, None]


def _decode_q4_k(blocks: Bytes, out: Floats) -> None:
    packed = blocks[:, 16:].reshape(-1, 4, 32)
    q = np.empty((blocks.shape[0], 4, 2, 32), np.uint8)
    np.bitwise_and(packed, 15, out=q[:, :, 0])
    np.right_shift(packed, 4, out=q[:, :, 1])
    _affine(blocks, q.reshape(-1, 256), out)


def _decode_q5_k(blocks: Bytes, out: Floats) -> None:
    q = np.empty((blocks.shape[0], 256), np.uint8)
    unpack_q5_k(blocks, q)
    _affine(blocks, q, out)


def unpack_q5_k(blocks: Bytes, q: Bytes) -> None:
    """Unpack into ``q``, uint8 [blocks, 256], the 5-bit numbers 0-31.

    Low nibbles lie as in Q4_K; bit j of byte i of the 32 bytes before them is the fifth bit of weight i of
    sub-block j.
    """
    packed = blocks[:, 48:].reshape(-1, 4, 32)
    fifth = np.ascontiguousarray(blocks[:, 16:48])
    parts = q.reshape(-1, 4, 2, 32)
    np.bitwise_and(packed, 15, out=parts[:, :, 0])
    np.right_shift(packed, 4, out=parts[:, :, 1])
    for j in range(8):
        parts[:, j // 2, j % 2] |= ((fifth >> j) & 1) << 4


def unpack_q6_k(blocks: Bytes, q: Bytes) -> None:
    """Unpack into ``q``, uint8 [blocks, 256], the 6-bit numbers 0-63.

    Each half of a block, 128 weights in four groups of 32, has 64 bytes of low nibbles (groups 0 and 1 low, 2 and 3
    high) and 32 bytes of high bit pairs, one pair a group.
    """
    low = blocks[:, :128].reshape(-1, 2, 64)
    high = blocks[:, 128:192].reshape(-1, 2, 32)
    halves = q.reshape(-1, 2, 128)
    np.bitwise_and(low, 15, out=halves[:, :, :64])
    np.right_shift(low, 4, out=halves[:, :, 64:])
    for group, pair in enumerate((high << 4, high << 2, high, high >> 2)):
        halves[:, :, 32 * group : 32 * group + 32] |= pair & 0x30


def _decode_q6_k(blocks: Bytes, out: Floats) -> None:
    q = np.empty((blocks.shape[0], 256), np.uint8)
    unpack_q6_k(blocks, q)
    q -= 32  # wraps: the bytes are then signed numbers
    out[...] = q.view(np.int8)
    weights = out.reshape(-1, 16, 16)
    weights *= scales_q6_k(blocks)[:, :, None]


def scales_q6_k(blocks: Bytes) -> Floats:
    """Scales d * scale of the sub-blocks of q6_k: [blocks, 16]."""
    return halves(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)


_DECODE: dict[str, Callable[[Bytes, Floats], None]] = {
    "f32": _decode_plain,
    "f16": _decode_plain,
    "q8_0": _decode_q8_0,
    "q4_k": _decode_q4_k,
    "q5_k": _decode_q5_k,
    "q6_k": _decode_q6_k,
}
