"""Weights rounded anew to 8 bits, one scale an output channel: the form that CPUs multiply fastest.

The product of unsigned activations and signed weights is summed in pairs. CPUs without VNNI (or Arm's dot product)
hold such a pair sum in 16 bits, where 2 * 255 * 127 does not fit: there weights must keep to 7 bits. Which kind of
CPU this is is measured, once a process, by letting ONNX Runtime multiply the largest values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sigrun.blocks import BLOCKS, decode, runs
from sigrun.onnx_runtime import onnxruntime

CHUNK = 1 << 20  # weights decoded at a time
SEVEN_BITS, EIGHT_BITS = 63, 127

# A graph of one MatMulInteger, uint8 [1, 64] times int8 [64, 16]; tests/test_int8.py builds it again and compares.
_PRODUCT = (
    b'\x08\x08\x12\x00:e\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\nsaturationZ\x13\n\x01a\x12\x0e\n\x0c'
    b"\x08\x02\x12\x08\n\x02\x08\x01\n\x02\x08@Z\x13\n\x01b\x12\x0e\n\x0c\x08\x03\x12\x08\n\x02\x08@\n\x02\x08\x10"
    b"b\x13\n\x01y\x12\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x01\n\x02\x08\x10B\x04\n\x00\x10\r"
)


@dataclass(frozen=True)
class Int8:
    """A [N, K] matrix as com.microsoft.MatMulIntegerToFloat takes it: weight = scale * q.

    Attributes:
        q: int8 [K, N].
        scales: float32 [N].
    """

    q: NDArray[np.int8]
    scales: NDArray[np.float32]


@cache
def largest() -> int:
    """The largest int8 weight that this CPU multiplies exactly through ONNX Runtime: 127, or 63."""
    session = onnxruntime().InferenceSession(_PRODUCT, providers=["CPUExecutionProvider"])
    a = np.full((1, 64), 255, np.uint8)
    b = np.full((64, 16), EIGHT_BITS, np.int8)
    product = session.run(None, {"a": a, "b": b})[0]
    return EIGHT_BITS if int(product.min()) == 64 * 255 * EIGHT_BITS else SEVEN_BITS


def to_int8(encoding: str, data: NDArray[np.uint8], rows: int, columns: int, most: int) -> Int8:
    """Round a stored matrix to int8, a scale for each of its rows (output channels).

    Args:
        encoding: how it is stored.
        data: its bytes, rows end to end.
        rows: N.
        columns: K.
        most: the largest value to use, 127 or 63.
    """
    per_block, size = BLOCKS[encoding]
    fold = per_block // int(np.gcd(per_block, columns))  # rows that end where a block ends
    q = np.empty((columns, rows), np.int8)
    scales = np.empty(rows, np.float32)
    groups = data.reshape(rows // fold, fold * columns // per_block * size)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # weights that are no numbers make scales that are none
        for part in runs(len(groups), max(1, fold * columns * (1 << 18) // CHUNK)):
            weights = decode(encoding, groups[part].reshape(-1)).reshape(-1, columns)
            at = slice(part.start * fold, part.start * fold + len(weights))
            scale = np.maximum(weights.max(axis=1), -weights.min(axis=1)) / np.float32(most)
            inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
            rounded = np.multiply(weights, inverse[:, None])
            np.rint(rounded, out=rounded)
            q[:, at] = rounded.T
            scales[at] = scale
    return Int8(q, scales)
