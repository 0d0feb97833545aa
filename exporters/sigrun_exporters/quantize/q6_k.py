"""Q6_K: super-blocks of 256 weights in 210 bytes, d * scale * q with signed q of 6 bits and signed 8-bit scales.

The search is affine.py's without minima: float scales from a few cuts of the range and least squares, d and codes from
them in a few ways, better codes by exact error, d by least squares.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sigrun_exporters.quantize.lanes import (
    Bytes,
    Exponents,
    Floats,
    covering_half,
    from_lanes,
    half,
    half_bytes,
    normalised,
    pick,
    quotient,
    reciprocal,
    row_sum,
    to_lanes,
)

WIDTH = 16
LOW, HIGH = np.float32(-32), np.float32(31)
# What q the largest weight by magnitude is first given; beyond -32 it is cut off. -32 is first, so that it wins a tie.
REACHES = tuple(-32 + 0.75 * i for i in (0, 1, -1, 2, -2, 3, -3, 4, 5, 6, 7, 8))
# Codes that the largest scale of a super-block is first given, to see with which the others round best.
LARGEST = (-128, -125, -122)
# Moves of the scale code.
MOVES = (-1, 1, -2, 2)


def encode(weights: Floats, importance: Floats | None = None) -> Bytes:
    """float32 [blocks, 256], with importance [blocks, 256] or none, to uint8 [blocks, 210].

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    blocks, exponents = normalised(weights)
    x = to_lanes(blocks, WIDTH)
    lanes = _Lanes(x, _error_weights(x, importance))
    d, codes, error = _rounded(lanes, _float_fit(lanes), exponents)
    codes, error = _better_codes(lanes, d, codes, error)
    d = _better_scale(lanes, d, codes, error, exponents)
    q = from_lanes(lanes.quantized(d * codes) - LOW)
    return _pack(q, np.ascontiguousarray(codes.astype(np.int8).T), half_bytes(d, exponents))


def _error_weights(x: Floats, importance: Floats | None) -> Floats:
    """What a squared error counts; only the proportions within a super-block matter.

    Importance itself where it is given, as in ggml. Without it, the square of the weight, as in ggml, plus the
    sub-block's mean square: that hardly raises the error as ggml weighs it, and lowers the plain one by 5 %.
    """
    if importance is None:
        squares = x * x
        squares += row_sum(squares) / WIDTH
        return squares
    counts = to_lanes(importance, WIDTH)
    # A hint of weight everywhere: a column that does not count still gets its nearest q.
    return counts * reciprocal(counts.max(axis=(0, 1))) + np.float32(1e-6)


class _Lanes:
    """Sub-blocks, float32 [16, 16, blocks], and the weights of their squared errors."""

    def __init__(self, x: Floats, w: Floats) -> None:
        self.x, self.w = x, w
        self._steps, self._q = w * x, np.empty_like(x)
        self._steps *= x
        self.sum_wxx = row_sum(self._steps)

    def quantized(self, scale: Floats) -> Floats:
        """The nearest q, -32 to 31, for scales [16, blocks]; overwritten by the next call."""
        np.multiply(self.x, reciprocal(scale), out=self._steps)
        np.rint(self._steps, out=self._q)
        np.clip(self._q, LOW, HIGH, out=self._q)
        return self._q

    def errors(self, scales: Floats) -> Floats:
        """Weighted squared errors that scales leave with the nearest q; both [candidates, 16, blocks]."""
        sums = np.empty_like(scales)
        rest = self._steps
        for scale, total in zip(scales, sums, strict=True):
            self.quantized(scale)
            rest -= self._q  # in units of the scale
            rest *= rest
            rest *= self.w
            np.add.reduce(rest, axis=0, out=total)
        sums *= scales * scales
        np.copyto(sums, self.sum_wxx, where=scales == 0)
        return sums

    def moments(self, q: Floats) -> tuple[Floats, Floats]:
        """Sums over a sub-block of w q x and w q q; overwrites q."""
        wq = np.multiply(self.w, q, out=self._steps)
        sum_wqq = row_sum(np.multiply(wq, q, out=q))
        return row_sum(np.multiply(wq, self.x, out=q)), sum_wqq


def _float_fit(lanes: _Lanes) -> Floats:
    """Float scales [16, blocks]: the best that come out of REACHES, each with least squares for the q it gives."""
    low, high = lanes.x.min(axis=0), lanes.x.max(axis=0)
    extreme = np.where(-low > high, low, high)
    best = np.full_like(extreme, -1)
    best_scale: Floats = np.zeros_like(extreme)
    for reach in REACHES:
        wqx, wqq = lanes.moments(lanes.quantized(extreme / np.float32(reach)))
        scale = quotient(wqx, wqq)
        gain = scale * wqx  # the squared error that this scale takes away
        better = gain > best
        np.copyto(best, gain, where=better)
        np.copyto(best_scale, scale, where=better)
    return best_scale


def _code(values: Floats) -> Floats:
    code: Floats = np.clip(np.rint(values), -128, 127)
    return code


def _rounded(lanes: _Lanes, scale: Floats, exponents: Exponents) -> tuple[Floats, Floats, Floats]:
    """d [blocks], scale codes and errors [16, blocks]: float scales rounded, in the best of a few ways."""
    largest = pick(scale, np.abs(scale).argmax(axis=0))
    d = covering_half(largest / np.array(LARGEST, np.float32)[:, None], exponents)  # [candidates, blocks]
    codes = _code(scale * reciprocal(d)[:, None])  # [candidates, 16, blocks]
    errors = lanes.errors(d[:, None] * codes)
    best = errors.sum(axis=1).argmin(axis=0)
    return pick(d, best), pick(codes, best), pick(errors, best)


def _better_codes(lanes: _Lanes, d: Floats, codes: Floats, error: Floats) -> tuple[Floats, Floats]:
    """The best scale codes among the present ones and their neighbours, and their errors."""
    tried = np.clip(codes + np.array(MOVES, np.float32)[:, None, None], -128, 127)  # [candidates, 16, blocks]
    errors = lanes.errors(d * tried)
    best = errors.argmin(axis=0)
    least = pick(errors, best)
    better = least < error
    return np.where(better, pick(tried, best), codes), np.where(better, least, error)


def _better_scale(lanes: _Lanes, d: Floats, codes: Floats, error: Floats, exponents: Exponents) -> Floats:
    """d by least squares over a super-block for its codes, where it is better than the present one."""
    wqx, wqq = lanes.moments(lanes.quantized(d * codes))
    new = half(quotient(row_sum(codes * wqx), row_sum(codes * codes * wqq)), exponents)
    new = np.where(np.isfinite(new), new, d)
    better = row_sum(lanes.errors((new * codes)[None])[0]) < row_sum(error)
    return np.where(better, new, d)


def _pack(q: Bytes, codes: NDArray[np.int8], d: Bytes) -> Bytes:
    """q 0-63 [blocks, 256], scale codes [blocks, 16] and d's bytes [blocks, 2] to blocks.

    Half a block, 128 weights in groups of 32: low nibbles of groups 0 and 2, then 1 and 3, then the high bit pairs.
    """
    groups = q.reshape(-1, 2, 4, 32)
    low = (groups[:, :, :2] & 15) | (groups[:, :, 2:] & 15) << 4  # [blocks, 2, 2, 32]
    pairs = groups >> 4
    high = pairs[:, :, 0] | pairs[:, :, 1] << 2 | pairs[:, :, 2] << 4 | pairs[:, :, 3] << 6  # [blocks, 2, 32]
    parts = low.reshape(-1, 128), high.reshape(-1, 64), codes.view(np.uint8), d
    return np.concatenate(parts, axis=1)
