"""Q8_0: blocks of 32 weights in 34 bytes, d * q with signed q of 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sigrun_exporters.quantize.lanes import covering_half, half_bytes, reciprocal

MOST = np.float32(127)


def encode(weights: NDArray[np.float32], importance: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """float32 [blocks, 32] to uint8 [blocks, 34]; importance would change next to nothing at 8 bits and is not used.

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    exponents = np.zeros(len(weights), np.int32)
    d = covering_half(np.abs(weights).max(axis=1) / MOST, exponents)
    # d is never short enough for a weight to round beyond 127.
    steps = weights * reciprocal(d)[:, None]
    q = np.rint(steps, out=steps).astype(np.int8)
    return np.concatenate([half_bytes(d, exponents), q.view(np.uint8)], axis=1)
