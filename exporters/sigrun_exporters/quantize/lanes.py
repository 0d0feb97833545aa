"""What the block searches share: sub-blocks side by side in lanes, power-of-two normalisation, float16 scales.

A run of blocks is turned so that one sub-block is a column: [weights of a sub-block, lanes]. Every step is then an
elementwise operation along long rows, and a sum over a sub-block adds whole rows in a fixed order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

ONE = np.float32(1)


def to_lanes(blocks: Floats, width: int) -> Floats:
    """[blocks, weights] to [width, lanes]: lane b * (weights / width) + j is sub-block j of block b."""
    return np.ascontiguousarray(blocks.reshape(-1, width).T)


def from_lanes(lanes: Floats, blocks: int) -> Bytes:
    """Whole numbers 0-255 in lanes back to uint8 [blocks, weights]."""
    return np.ascontiguousarray(lanes.astype(np.uint8).T).reshape(blocks, -1)


def normalised(blocks: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Blocks times a power of two each that brings their largest magnitude into [0.5, 1), and its exponents [blocks].

    Squares and reciprocals of huge or tiny weights then neither overflow nor vanish. Block b's weights are the result
    times 2 ** exponents[b]; zero blocks stay zero.
    """
    _, exponents = np.frexp(np.abs(blocks).max(axis=1))
    # Two factors: 2 ** 149 is beyond float32.
    half = -exponents // 2
    scaled = np.ldexp(blocks, half[:, None])
    return np.ldexp(scaled, (-exponents - half)[:, None]), exponents


def half(values: Floats, exponents: NDArray[np.int32]) -> Floats:
    """Scales of normalised blocks rounded to what float16 stores of them: nearest, in the blocks' own magnitude.

    Infinite where float16 overflows.
    """
    with np.errstate(over="ignore"):
        stored = np.ldexp(values, exponents).astype(np.float16).astype(np.float32)
    return np.ldexp(stored, -exponents)


def covering_half(values: Floats, exponents: NDArray[np.int32]) -> Floats:
    """``half``, but the next float16 up where rounding would lose more than float16's usual precision.

    That is so among float16's subnormals: a scale that is too small cuts the largest weights off, one that is too
    large only wastes codes.

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    with np.errstate(over="ignore"):
        full = np.ldexp(values, exponents)
        stored = full.astype(np.float16)
    if not np.isfinite(stored).all():
        raise ValueError(f"weights too large: a block scale of {np.abs(full).max():g} is beyond float16's 65504")
    short = np.abs(stored.astype(np.float32)) < np.abs(full) * np.float32(1 - 2**-9)
    stored[short] = np.nextafter(stored[short], np.copysign(np.float16(np.inf), full[short]).astype(np.float16))
    return np.ldexp(stored.astype(np.float32), -exponents)


def half_bytes(values: Floats, exponents: NDArray[np.int32]) -> Bytes:
    """The two bytes of each of ``half``'s or ``covering_half``'s scales: uint8 [blocks, 2]."""
    return np.ldexp(values, exponents).astype("<f2").view(np.uint8).reshape(-1, 2)


def reciprocal(values: Floats) -> Floats:
    """1 / values, and 0 where they are too small for that to mean anything in a normalised block."""
    large = np.abs(values) > np.float32(1e-20)
    return np.divide(ONE, values, out=np.zeros_like(values), where=large)


def quotient(values: Floats, by: Floats) -> Floats:
    """values / by, and 0 where ``by`` is 0."""
    return np.divide(values, by, out=np.zeros_like(values), where=by != 0)
