"""Function-preserving rewrites of a checkpoint, applied tensor by tensor before quantization.

``pad_mlp`` widens each MLP to a multiple of 256 with zero rows (and zero bias) in fc1 and zero columns in fc2.
A zero row stores as exact zeros in every encoding and gelu(0) = 0, so whatever fc2's padded columns become is
multiplied by zero: the function is the same, and fc2's rows fill whole super-blocks (4304 → 4352 = 17 x 256).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sigrun_recipes import TensorPlan


def rewritten(values: NDArray[np.float32], tensor: TensorPlan) -> NDArray[np.float32]:
    """A checkpoint tensor as the plan's rewrites leave it: widened with zeros to the planned shape."""
    if values.shape == tensor.spec.shape:
        return values
    wide = np.zeros(tensor.spec.shape, np.float32)
    wide[tuple(slice(extent) for extent in values.shape)] = values
    return wide
