"""Q8_0: blocks of 32 weights in 34 bytes, d * q with signed q of 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sigrun_exporters.quantize.lanes import covering_half, half_bytes, normalised, reciprocal

MOST = np.float32(127)


def encode(weights: NDArray[np.float32], importance: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """float32 [blocks, 32] to uint8 [blocks, 34]; importance would change next to nothing at 8 bits and is not used.

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    blocks, exponents = normalised(weights)
    d = covering_half(np.abs(blocks).max(axis=1) / MOST, exponents)
    q = np.clip(np.rint(blocks * reciprocal(d)[:, None]), -MOST, MOST).astype(np.int8)
    return np.concatenate([half_bytes(d, exponents), q.view(np.uint8)], axis=1)
