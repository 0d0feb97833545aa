"""Q5_K: super-blocks of 256 weights in 176 bytes, d * scale * q - dmin * minimum with q of 5 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sigrun_exporters.quantize import affine
from sigrun_exporters.quantize.lanes import from_lanes, normalised


def encode(weights: NDArray[np.float32], importance: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """float32 [blocks, 256], with importance [blocks, 256] or none, to uint8 [blocks, 176].

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    blocks, exponents = normalised(weights)
    codes = affine.search(blocks, importance, 31, exponents)
    q = from_lanes(codes.q).reshape(-1, 8, 32)
    high = np.zeros((len(blocks), 32), np.uint8)  # bit j of byte i: the fifth bit of weight i of sub-block j
    for j in range(8):
        high |= (q[:, j] >> 4) << j
    low = (q & 15).reshape(-1, 4, 2, 32)
    packed = low[:, :, 0] | low[:, :, 1] << 4  # a byte holds weights i and i + 32
    return np.concatenate([affine.head_bytes(codes, exponents), high, packed.reshape(-1, 128)], axis=1)
