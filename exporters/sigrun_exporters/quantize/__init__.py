"""Quantize matrices to GGUF blocks: f32 f16 q8_0 q4_k q5_k q6_k.

The blocks are ggml's and any GGUF reader decodes them; the numbers in them come from a search of our own, which leaves
less weighted error than ggml's at the same size (benchmarks/quantizers.py). It is written in numpy alone and adds in a
fixed order: the same weights give the same bytes on any machine and with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sigrun.cpus import default_threads
from sigrun_exporters.quantize import plain, q4_k, q5_k, q6_k, q8_0
from sigrun_exporters.quantize.lanes import Bytes, Floats
from sigrun_recipes.encodings import ENCODINGS

# Each takes float32 [blocks, weights] and either their importance or None, and gives uint8 [blocks, size].
ENCODERS: dict[str, Callable[[Floats, Floats | None], Bytes]] = {
    "f32": plain.encode_f32,
    "f16": plain.encode_f16,
    "q8_0": q8_0.encode,
    "q4_k": q4_k.encode,
    "q5_k": q5_k.encode,
    "q6_k": q6_k.encode,
}
USE_IMPORTANCE = ("q4_k", "q5_k", "q6_k")

# Weights a thread takes at a time: few enough for the arrays of a search to stay in cache, enough for numpy's own
# overhead not to count.
RUN = 1 << 17


def quantize(
    encoding: str, weights: Floats, importance: Floats | None = None, *, threads: int | None = None
) -> Bytes:
    """Quantize a matrix.

    Args:
        encoding: name of the encoding.
        weights: float32 [rows, columns]; columns are whole blocks.
        importance: float32 [columns], not negative: what a squared error in that column counts, such as the mean
            square of the activation that meets it. None: errors count as ggml's own quantizers have it. Encodings of
            8 bits and more do not use it.
        threads: how many to use; None for as many as there are cores that this process may use.

    Returns:
        uint8 [rows, bytes per row].

    Raises:
        ValueError: unknown encoding, wrong shapes, weights that are not finite or too large for the encoding's float16
            scales, or an importance that is negative or not finite.
    """
    if encoding not in ENCODERS:
        raise ValueError(f"unknown encoding '{encoding}'; known here: {', '.join(ENCODERS)}")
    block = ENCODINGS[encoding]
    if weights.ndim != 2 or weights.dtype != np.float32:
        raise ValueError(f"weights must be a float32 matrix, not {weights.dtype} {list(weights.shape)}")
    rows, columns = weights.shape
    if columns % block.weights:
        raise ValueError(f"rows of {columns} weights are not whole {encoding} blocks of {block.weights}")
    per_row = columns // block.weights
    of_row = None if importance is None else _checked(importance, columns).reshape(per_row, block.weights)
    blocks = np.ascontiguousarray(weights).reshape(-1, block.weights)
    encode = ENCODERS[encoding]
    out = np.empty((len(blocks), block.size), np.uint8)
    step = max(1, RUN // block.weights)

    def run(first: int) -> None:
        part = slice(first, first + step)
        if not np.isfinite(blocks[part]).all():
            raise ValueError("weights are not finite: there are NaN or infinite values")
        counts = None
        if of_row is not None and encoding in USE_IMPORTANCE:
            counts = of_row[np.arange(first, min(first + step, len(blocks))) % per_row]
        # Candidates that overflow are compared like any other, and lose.
        with np.errstate(over="ignore", invalid="ignore"):
            out[part] = encode(blocks[part], counts)

    with ThreadPoolExecutor(threads or default_threads(), thread_name_prefix="quantize") as pool:
        for _ in pool.map(run, range(0, len(blocks), step)):
            pass  # brings a run's exception here
    return out.reshape(rows, per_row * block.size)


def _checked(importance: Floats, columns: int) -> Floats:
    """Importance relative to its largest."""
    if importance.shape != (columns,):
        raise ValueError(f"importance must be one number a column, [{columns}], not {list(importance.shape)}")
    if not np.isfinite(importance).all() or (importance < 0).any():
        raise ValueError("importance must be finite and not negative")
    largest = importance.max(initial=0)
    return (importance / largest if largest > 0 else importance).astype(np.float32)
