"""What the searches share: sub-blocks side by side in lanes, normalised blocks, and scales that float16 can hold.

A run of blocks is turned around to [weights of a sub-block, sub-blocks, blocks]. Each step of a search is then an
elementwise operation along long rows, and a sum over a sub-block adds whole rows, in an order that does not depend on
the machine. For the same reason there is no einsum, dot or mean along a row here: they may fuse or reorder.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Exponents = NDArray[np.int32]


def to_lanes(blocks: Floats, width: int) -> Floats:
    """[blocks, weights] to [width, sub-blocks, blocks]."""
    return np.ascontiguousarray(blocks.reshape(len(blocks), -1, width).transpose(2, 1, 0))


def from_lanes(lanes: Floats) -> Bytes:
    """Whole numbers 0-255, [width, sub-blocks, blocks], to uint8 [blocks, weights]."""
    turned = np.ascontiguousarray(lanes.astype(np.uint8).transpose(2, 1, 0))
    return turned.reshape(len(turned), -1)


def row_sum(lanes: Floats) -> Floats:
    """Sum over the first axis."""
    total: Floats = np.add.reduce(lanes, axis=0)
    return total


def pick(tried: Floats, best: NDArray[np.intp]) -> Floats:
    """Of candidates [candidates, ..., blocks] those numbered ``best``, [..., blocks] or one number a block."""
    index = best.reshape((1,) * (tried.ndim - best.ndim) + best.shape)
    picked: Floats = np.take_along_axis(tried, index, 0)[0]
    return picked


def normalised(blocks: Floats) -> tuple[Floats, Exponents]:
    """Blocks times a power of two each that brings their largest magnitude into [0.5, 1), and its exponents [blocks].

    Squares and reciprocals of huge or tiny weights then neither overflow nor vanish. Block b's weights are the result
    times 2 ** exponents[b]; zero blocks stay zero.
    """
    _, exponents = np.frexp(np.maximum(blocks.max(axis=1), -blocks.min(axis=1)))
    # Two factors, because 2 ** 149 is beyond float32; both are powers of two, so nothing is rounded.
    first = -exponents // 2
    factors = np.ldexp(np.ones((2, len(blocks)), np.float32), np.stack([first, -exponents - first]))
    return blocks * factors[0][:, None] * factors[1][:, None], exponents


def half(scales: Floats, exponents: Exponents) -> Floats:
    """Scales of normalised blocks [blocks] rounded to the nearest that float16 holds in the blocks' own magnitude.

    Infinite where float16 overflows.
    """
    stored = np.ldexp(scales, exponents).astype(np.float16).astype(np.float32)
    return np.ldexp(stored, -exponents)


def covering_half(scales: Floats, exponents: Exponents) -> Floats:
    """``half``, but away from zero where rounding would take more than float16's usual precision off a scale.

    That is so among float16's subnormals: a scale that is too small cuts the largest weights off, one that is too
    large only wastes codes. Scales so small that not even the largest code would lift them to float16 become 0.

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    full = np.ldexp(scales, exponents)
    full[np.abs(full) < np.float32(2**-32)] = 0
    stored = full.astype(np.float16)
    if not np.isfinite(stored).all():
        raise ValueError(
            f"weights too large: a block's scale of {np.abs(full).max():g} is beyond float16's 65504"
        )
    short = np.abs(stored.astype(np.float32)) < np.abs(full) * np.float32(1 - 2**-9)
    stored[short] = np.nextafter(
        stored[short], np.copysign(np.float16(np.inf), full[short]).astype(np.float16)
    )
    return np.ldexp(stored.astype(np.float32), -exponents)


def half_bytes(scales: Floats, exponents: Exponents) -> Bytes:
    """The two bytes of each scale that ``half`` or ``covering_half`` gave: uint8 [blocks, 2]."""
    return np.ldexp(scales, exponents).astype("<f2").view(np.uint8).reshape(-1, 2)


def reciprocal(values: Floats) -> Floats:
    """1 / values, and 0 where they are too small for that to mean anything in a normalised block."""
    return np.divide(1, values, out=np.zeros_like(values), where=np.abs(values) > np.float32(1e-20))


def quotient(values: Floats, by: Floats) -> Floats:
    """values / by, and 0 where ``by`` is 0."""
    return np.divide(values, by, out=np.zeros_like(values), where=by != 0)
