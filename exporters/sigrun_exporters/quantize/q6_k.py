"""Q6_K: super-blocks of 256 weights in 210 bytes, d * scale * q with signed q of 6 bits and signed 8-bit scales.

The search is affine.py's without minima: float scales from a few clippings with least squares, scale codes around them
by exact error, d by least squares, codes once more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sigrun_exporters.quantize.lanes import (
    covering_half,
    from_lanes,
    half,
    half_bytes,
    normalised,
    quotient,
    reciprocal,
    to_lanes,
)

Floats = NDArray[np.float32]

WIDTH = 16
SUBBLOCKS = 16
LOW, HIGH = np.float32(-32), np.float32(31)
# q of the largest weight by magnitude: beyond -32 it is clipped.
REACHES = (-31.0, -31.6, -32.2, -32.8)
WIDE = (0, -1, 1, -2, 2, -3, 3)
NEAR = (0, -1, 1)


def encode(weights: Floats, importance: Floats | None = None) -> NDArray[np.uint8]:
    """float32 [blocks, 256], with importance [blocks, 256] or none, to uint8 [blocks, 210].

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    blocks, exponents = normalised(weights)
    lanes = _Lanes(to_lanes(blocks, WIDTH), _error_weights(blocks, importance))
    scale = _float_fit(lanes)
    by_block = scale.reshape(-1, SUBBLOCKS)
    largest = np.take_along_axis(by_block, np.abs(by_block).argmax(axis=1)[:, None], 1)[:, 0]
    d = covering_half(largest / np.float32(-128), exponents)  # the widest range of codes for the widest sub-block
    codes = _code(quotient(scale, np.repeat(d, SUBBLOCKS)))
    for steps in (WIDE, NEAR):
        codes = _better_codes(lanes, d, codes, steps)
        d = _better_scale(lanes, d, codes, exponents)
    q = from_lanes(lanes.quantized(np.repeat(d, SUBBLOCKS) * codes) - LOW, len(blocks))
    return _pack(q, codes.astype(np.int8).reshape(-1, SUBBLOCKS), half_bytes(d, exponents))


def _error_weights(blocks: Floats, importance: Floats | None) -> Floats:
    """ggml's weights of squared errors: importance itself or, without it, the square of the weight."""
    if importance is None or not importance.any():
        return to_lanes(blocks * blocks, WIDTH)
    # A hint of weight everywhere, so that a column nobody looks at still gets the q that is nearest.
    return to_lanes(importance * reciprocal(importance.max(axis=1, keepdims=True)) + np.float32(1e-6), WIDTH)


class _Lanes:
    """Sub-blocks in lanes, float32 [16, lanes], and the weights of their squared errors."""

    def __init__(self, x: Floats, w: Floats) -> None:
        self.x, self.w = x, w
        self.sum_wxx = np.einsum("ij,ij,ij->j", w, x, x)
        self._steps, self._q = np.empty_like(x), np.empty_like(x)

    def quantized(self, scale: Floats) -> Floats:
        """The nearest q, -32 to 31, for float scales [lanes]; [16, lanes], overwritten by the next call."""
        np.multiply(self.x, reciprocal(scale), out=self._steps)
        np.rint(self._steps, out=self._q)
        return np.clip(self._q, LOW, HIGH, out=self._q)

    def error(self, scale: Floats) -> Floats:
        """Weighted squared error [lanes] that these scales leave with the nearest q."""
        self.quantized(scale)
        rest = self._steps
        rest -= self._q  # in units of the scale
        rest *= rest
        rest *= self.w
        return np.where(scale == 0, self.sum_wxx, np.add.reduce(rest, axis=0) * (scale * scale))

    def moments(self, q: Floats) -> tuple[Floats, Floats]:
        """Sums over a sub-block of w q x and w q q."""
        wq = np.multiply(self.w, q, out=self._steps)
        return np.einsum("ij,ij->j", wq, self.x), np.einsum("ij,ij->j", wq, q)


def _float_fit(lanes: _Lanes) -> Floats:
    """Float scales [lanes]: the best of several reaches, each with least squares for the q it gives."""
    extreme = np.where(-lanes.x.min(axis=0) > lanes.x.max(axis=0), lanes.x.min(axis=0), lanes.x.max(axis=0))
    best = np.full_like(extreme, -1)
    best_scale = np.zeros_like(extreme)
    for reach in REACHES:
        wqx, wqq = lanes.moments(lanes.quantized(extreme / np.float32(reach)))
        scale = quotient(wqx, wqq)
        gain = scale * wqx  # what is left of the squared error is sum_wxx - gain
        better = gain > best
        np.copyto(best, gain, where=better)
        np.copyto(best_scale, scale, where=better)
    return best_scale


def _code(values: Floats) -> Floats:
    return np.clip(np.rint(values), -128, 127)


def _better_codes(lanes: _Lanes, d: Floats, codes: Floats, steps: tuple[int, ...]) -> Floats:
    """The best scale codes in a neighbourhood that has the present ones first."""
    d_ = np.repeat(d, SUBBLOCKS)
    tried = np.clip(codes + np.array(steps, np.float32)[:, None], -128, 127)  # [candidates, lanes]
    errors = np.stack([lanes.error(d_ * code) for code in tried])
    return np.take_along_axis(tried, errors.argmin(axis=0)[None], 0)[0]


def _better_scale(lanes: _Lanes, d: Floats, codes: Floats, exponents: NDArray[np.int32]) -> Floats:
    """d by least squares over a super-block for its codes, where it is better than the present one."""

    def total(values: Floats) -> Floats:
        return values.reshape(-1, SUBBLOCKS).sum(axis=1)

    scale = np.repeat(d, SUBBLOCKS) * codes
    wqx, wqq = lanes.moments(lanes.quantized(scale))
    before = total(lanes.error(scale))
    new = half(quotient(total(codes * wqx), total(codes * codes * wqq)), exponents)
    new = np.where(np.isfinite(new), new, d)
    better = total(lanes.error(np.repeat(new, SUBBLOCKS) * codes)) < before
    return np.where(better, new, d)


def _pack(q: NDArray[np.uint8], codes: NDArray[np.int8], d: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """q 0-63 [blocks, 256], scale codes [blocks, 16] and d's bytes [blocks, 2] to blocks.

    Half a block, 128 weights in groups of 32: low nibbles of groups 0 and 2, then 1 and 3, then the high bit pairs.
    """
    groups = q.reshape(-1, 2, 4, 32)
    low = (groups[:, :, :2] & 15) | (groups[:, :, 2:] & 15) << 4  # [blocks, 2, 2, 32]
    pairs = groups >> 4
    high = pairs[:, :, 0] | pairs[:, :, 1] << 2 | pairs[:, :, 2] << 4 | pairs[:, :, 3] << 6  # [blocks, 2, 32]
    parts = low.reshape(-1, 128), high.reshape(-1, 64), codes.view(np.uint8), d
    return np.concatenate(parts, axis=1)
