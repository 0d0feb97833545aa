"""Quantize matrices to GGUF blocks: f32 f16 q8_0 q4_k q5_k q6_k.

The bytes are those of ggml's encodings and any GGUF reader decodes them; the numbers in them come from a search of our
own that leaves less weighted error than ggml's (benchmarks/quantizers.py). It is written in numpy alone, lays
sub-blocks side by side in lanes, and adds in a fixed order: the same weights give the same bytes on any machine and
with any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from sigrun_exporters.quantize import plain, q4_k, q5_k, q6_k, q8_0
from sigrun_recipes.encodings import ENCODINGS

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Takes float32 [blocks, weights] and their importance (or None), gives uint8 [blocks, size].
Encoder = Callable[[Floats, Floats | None], Bytes]

ENCODERS: dict[str, Encoder] = {
    "f32": plain.encode_f32,
    "f16": plain.encode_f16,
    "q8_0": q8_0.encode,
    "q4_k": q4_k.encode,
    "q5_k": q5_k.encode,
    "q6_k": q6_k.encode,
}

# Weights quantized at a time: the dozen passes over them then stay in a core's cache.
RUN = 1 << 15


def quantize(
    encoding: str, weights: Floats, importance: Floats | None = None, *, threads: int | None = None
) -> Bytes:
    """Quantize a matrix.

    Args:
        encoding: name of the encoding.
        weights: float32 [rows, columns]; columns are whole blocks.
        importance: float32 [columns], not negative: how much a squared error in that column counts, such as the mean
            square of the activation that meets it. None weights errors as ggml does without an importance matrix.
        threads: how many threads to use; None for all cores this process may use.

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
    blocks = np.ascontiguousarray(weights).reshape(-1, block.weights)
    by_block = None if importance is None else _by_block(importance, columns, block.weights)
    encode = ENCODERS[encoding]
    out = np.empty((blocks.shape[0], block.size), np.uint8)
    step = max(1, RUN // block.weights)

    def run(first: int) -> None:
        part = slice(first, first + step)
        some = blocks[part]
        if not np.isfinite(some).all():
            raise ValueError("weights are not finite: there are NaN or infinite values")
        counts = None if by_block is None else by_block[np.arange(first, first + len(some)) % per_row]
        out[part] = encode(some, counts)

    workers = threads or _cores()
    firsts = range(0, blocks.shape[0], step)
    if workers == 1 or len(firsts) < 2:
        for first in firsts:
            run(first)
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="quantize") as pool:
            for _ in pool.map(run, firsts):
                pass
    return out.reshape(rows, per_row * block.size)


def _by_block(importance: Floats, columns: int, width: int) -> Floats:
    """Importance of one row's weights, [blocks of a row, width]."""
    if importance.shape != (columns,):
        raise ValueError(f"importance must have one number a column, {columns}, not {list(importance.shape)}")
    if not np.isfinite(importance).all() or (importance < 0).any():
        raise ValueError("importance must be finite and not negative")
    return np.ascontiguousarray(importance, dtype=np.float32).reshape(-1, width)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
