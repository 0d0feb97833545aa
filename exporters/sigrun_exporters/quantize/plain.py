"""Floats stored as they are: f32, and f16 rounded to nearest even."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST_F16 = 65504.0


def encode_f32(
    weights: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """float32 [blocks, 1] to uint8 [blocks, 4]; there is nothing to weigh."""
    return weights.astype("<f4").view(np.uint8)


def encode_f16(
    weights: NDArray[np.float32], importance: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """float32 [blocks, 1] to uint8 [blocks, 2]; there is nothing to weigh.

    Raises:
        ValueError: a weight is beyond float16's range.
    """
    halves = weights.astype("<f2")
    if not np.isfinite(halves).all():
        raise ValueError(
            f"a weight of {np.abs(weights).max():g} is beyond float16's largest, {LARGEST_F16:g}"
        )
    return halves.view(np.uint8)
