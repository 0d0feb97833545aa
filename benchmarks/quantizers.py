"""Our quantizers against ggml's own: errors, their ratio, and speed, as a Markdown table.

    python benchmarks/quantizers.py
    python benchmarks/quantizers.py --encoding q4_k --kind gaussian --columns 4352 --rows 1024
    python benchmarks/quantizers.py --checkpoint model.safetensors

Needs ggml-python (extra ``reference``). Both get the same weights and one thread each; time is CPU time, so that a busy
machine hardly shows.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ggml
import numpy as np
from numpy.typing import NDArray

from sigrun.blocks import decode
from sigrun_exporters.quantize import quantize
from sigrun_recipes.encodings import ENCODINGS

Matrix = NDArray[np.float32]
Bytes = NDArray[np.uint8]

COMPARED = ("q4_k", "q5_k", "q6_k", "q8_0")
COLUMNS = (256, 2304, 4352)  # one super-block; two rows of 1152 folded; the padded MLP
KINDS = ("gaussian", "laplace", "student", "outliers", "model", "offset")


def matrix(kind: str, rows: int, columns: int, seed: int = 0) -> Matrix:
    """Synthetic weights, float32 [rows, columns]; ``KINDS`` are known."""
    rng = np.random.default_rng([seed, columns, KINDS.index(kind)])
    shape = rows, columns
    weights: NDArray[np.float64]
    if kind == "gaussian":
        weights = rng.standard_normal(shape)
    elif kind == "laplace":
        weights = rng.laplace(size=shape)
    elif kind == "student":
        weights = rng.standard_t(4, shape)
    elif kind == "outliers":  # one column in 64 is twenty times as large
        weights = rng.standard_normal(shape)
        weights[:, rng.choice(columns, columns // 64, replace=False)] *= 20
    elif kind == "offset":  # all weights of a row of one sign, far from 0 next to their spread
        weights = 0.1 * rng.standard_normal(shape) + np.where(np.arange(rows) % 2, -1, 1)[:, None]
    else:  # rows and columns of different size, and heavier tails than Gaussian
        weights = rng.standard_t(8, shape)
        weights *= np.exp(0.5 * rng.standard_normal((rows, 1))) * np.exp(
            0.4 * rng.standard_normal((1, columns))
        )
    return (0.03 * weights).astype(np.float32)


def importance_of(columns: int, seed: int = 0) -> Matrix:
    """Mean squares of activations as they might be, float32 [columns]: over two orders of magnitude."""
    return np.exp(np.random.default_rng([seed, columns]).standard_normal(columns)).astype(np.float32)


def ggml_quantize(encoding: str, weights: Matrix, importance: Matrix | None = None) -> Bytes:
    """uint8 [rows, bytes per row], made by ggml."""
    number = ENCODINGS[encoding].ggml_id
    rows, columns = weights.shape
    out = np.empty((rows, ggml.ggml_row_size(number, columns)), np.uint8)
    ggml.ggml_quantize_init(number)
    written = ggml.ggml_quantize_chunk(
        number, _floats(weights), out.ctypes.data_as(ctypes.c_void_p), 0, rows, columns, _floats(importance)
    )
    if written != out.nbytes:
        raise RuntimeError(f"ggml wrote {written} bytes of {encoding}, not {out.nbytes}")
    return out


def ggml_decode(encoding: str, data: Bytes) -> Matrix:
    """Flat float32 weights of flat blocks, decoded by ggml."""
    count = data.size // ENCODINGS[encoding].size * ENCODINGS[encoding].weights
    out = np.empty(count, np.float32)
    traits = ggml.ggml_get_type_traits(ENCODINGS[encoding].ggml_id)
    traits.contents.to_float(data.ctypes.data_as(ctypes.c_void_p), _floats(out), count)
    return out


def _floats(array: Matrix | None) -> Any:
    if array is None:
        return None
    assert array.dtype == np.float32 and array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def error_weights(encoding: str, weights: Matrix, importance: Matrix | None) -> NDArray[np.float64]:
    """What ggml's quantizer of this encoding counts a squared error, [rows, columns] or what broadcasts to it."""
    x = weights.astype(np.float64)
    if encoding == "q8_0":
        return np.ones((1, 1))
    if encoding == "q6_k":
        return x * x if importance is None else importance.astype(np.float64)
    if importance is None:
        parts = x.reshape(-1, 32)
        return (np.sqrt((parts**2).mean(axis=1, keepdims=True)) + np.abs(parts)).reshape(x.shape)
    blocks = x.reshape(-1, 256)
    return importance * np.sqrt(2 * (blocks**2).mean(axis=1, keepdims=True) + blocks**2).reshape(x.shape)


@dataclass(frozen=True)
class Comparison:
    """Ours and ggml's for one matrix.

    Attributes:
        ours, theirs: norm of the error over the norm of the weights.
        weighted: our squared error over ggml's, weighted as ggml's quantizer weighs it.
        plain: our squared error over ggml's.
        our_speed, their_speed: million weights a second of CPU time.
    """

    ours: float
    theirs: float
    weighted: float
    plain: float
    our_speed: float
    their_speed: float


def compare(encoding: str, weights: Matrix, importance: Matrix | None = None) -> Comparison:
    """Quantize with both and compare what comes back."""
    our_bytes, our_time = _timed(lambda: quantize(encoding, weights, importance, threads=1))
    their_bytes, their_time = _timed(lambda: ggml_quantize(encoding, weights, importance))
    squares = [
        (weights - decode(encoding, b.reshape(-1)).reshape(weights.shape)).astype(np.float64) ** 2
        for b in (our_bytes, their_bytes)
    ]
    counts = error_weights(encoding, weights, importance)
    plain = [float(s.sum()) for s in squares]
    weighted = [float((counts * s).sum()) for s in squares]
    norm = float((weights.astype(np.float64) ** 2).sum())
    return Comparison(
        ours=(plain[0] / norm) ** 0.5,
        theirs=(plain[1] / norm) ** 0.5,
        weighted=weighted[0] / weighted[1],
        plain=plain[0] / plain[1],
        our_speed=weights.size / our_time / 1e6,
        their_speed=weights.size / their_time / 1e6,
    )


def _timed(work: Callable[[], Bytes]) -> tuple[Bytes, float]:
    start = time.process_time()
    result = work()
    return result, max(time.process_time() - start, 1e-9)


def checkpoint_matrices(path: Path) -> Iterator[tuple[str, Matrix]]:
    """The matrices of a safetensors file whose weights fill rows of 256."""
    from safetensors.numpy import load_file

    for name, tensor in load_file(path).items():
        if tensor.ndim == 2 and tensor.size % 256 == 0 and tensor.dtype.kind == "f":
            yield name, np.ascontiguousarray(tensor, np.float32).reshape(-1, 256)


def cases(args: argparse.Namespace) -> Iterator[tuple[str, list[Matrix]]]:
    """Row names and their matrices, whose figures are averaged."""
    if args.checkpoint:
        matrices = [m for _, m in checkpoint_matrices(args.checkpoint)]
        yield args.checkpoint.name, [np.concatenate(matrices)]
        return
    for kind in args.kind or KINDS:
        yield (
            kind,
            [matrix(kind, max(1, args.rows * 2304 // k), k, args.seed) for k in args.columns or COLUMNS],
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoding", action="append", choices=COMPARED, help="may be repeated; default all")
    parser.add_argument("--kind", action="append", choices=KINDS, help="may be repeated; default all")
    parser.add_argument(
        "--columns", action="append", type=int, help="may be repeated; default 256, 2304 and 4352"
    )
    parser.add_argument(
        "--rows", type=int, default=128, help="of 2304 columns, or as many weights (default 128)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="a safetensors file, instead of synthetic matrices")
    args = parser.parse_args()
    quantize("q4_k", np.zeros((1, 256), np.float32))  # numpy's first calls are slow
    print(
        "The error columns 'weighed' and 'plain' are squared error, ours over ggml's; 'weighed' is as ggml counts it."
    )
    print("Speed is million weights a second of CPU time.\n")
    print("| encoding | matrices | importance | error, ours | ggml | weighed | plain | speed, ours | ggml |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for encoding in args.encoding or COMPARED:
        for name, matrices in cases(args):
            for known in (False, True):
                done = [compare(encoding, m, importance_of(m.shape[1]) if known else None) for m in matrices]
                mean = {
                    f: float(np.mean([getattr(c, f) for c in done])) for f in Comparison.__dataclass_fields__
                }
                print(
                    f"| {encoding} | {name} | {'yes' if known else 'no'} | {mean['ours']:.5f} | {mean['theirs']:.5f} "
                    f"| {mean['weighted']:.3f} | {mean['plain']:.3f} "
                    f"| {mean['our_speed']:.0f} | {mean['their_speed']:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
