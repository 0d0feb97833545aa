"""The search behind Q4_K and Q5_K: weights as scale * q - minimum, scales and minima as 6-bit multiples of two float16s.

For each super-block of eight sub-blocks it looks for d, dmin, eight scale codes, eight minimum codes and all q with the
least weighted squared error. Three steps, each over all sub-blocks of a run at once:

1. float scales and minima: from a few clippings of the range, rounding and least squares in turn;
2. codes: around the rounded scales and minima, the pair with the least exact error, q chosen anew for each pair;
3. d and dmin by least squares over the super-block for the codes found, kept where float16's rounding of them wins.

Steps 2 and 3 repeat with a smaller neighbourhood. Rounding scales and minima to 6 bits without looking at what it does
to the error is where ggml loses most: 2-4 % of Q4_K's squared error and 15 % of Q5_K's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigrun_exporters.quantize.lanes import covering_half, half, half_bytes, quotient, reciprocal, to_lanes

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

WIDTH = 32
SUBBLOCKS = 8
MOST = np.float32(63)
# The range of a sub-block is first cut into this many steps more than there are levels (ggml tries 21 such cuts).
CUTS = (-0.8, -0.4, 0.0, 0.4, 0.8)
LEAST_SQUARES = 2
# Steps of the scale code, and of the minimum code beside what keeps the middle of the range in place.
WIDE = tuple((i, j) for i in (0, -1, 1, -2, 2) for j in (0, -1, 1))
NEAR = tuple((i, j) for i in (0, -1, 1) for j in (0, -1, 1))
HOODS = (WIDE, NEAR)


class Codes(NamedTuple):
    """What Q4_K and Q5_K store of a run of normalised super-blocks.

    Attributes:
        d, dmin: float32 [blocks], exact in float16 once scaled back.
        scales, minima: whole numbers 0-63, float32 [lanes].
        q: whole numbers, float32 [32, lanes].
    """

    d: Floats
    dmin: Floats
    scales: Floats
    minima: Floats
    q: Floats


class Lanes:
    """Sub-blocks in lanes, centred on their weighted means, and the sums of them that every step needs.

    Args:
        x: weights, float32 [32, lanes].
        w: weights of their squared errors, float32 [32, lanes].
        top: the largest q.
    """

    def __init__(self, x: Floats, w: Floats, top: int) -> None:
        self.w, self.top = w, np.float32(top)
        self.low, self.high = np.minimum(x.min(axis=0), 0), np.maximum(x.max(axis=0), 0)
        self.sum_w = w.sum(axis=0)
        # Centring keeps the sums of squares below free of cancellation.
        self.mean = quotient(np.einsum("ij,ij->j", w, x), self.sum_w)
        self.x = x - self.mean
        self.sum_wx = np.einsum("ij,ij->j", w, self.x)
        self.sum_wxx = np.einsum("ij,ij,ij->j", w, self.x, self.x)
        self._steps, self._q = np.empty_like(x), np.empty_like(x)

    def quantized(self, scale: Floats, minimum: Floats) -> Floats:
        """The nearest q for float scales and minima [lanes]; [32, lanes], overwritten by the next call."""
        inverse = reciprocal(scale)
        return self._quantize(inverse, (self.mean + minimum) * inverse)

    def _quantize(self, inverse: Floats, offset: Floats) -> Floats:
        np.multiply(self.x, inverse, out=self._steps)
        self._steps += offset
        np.rint(self._steps, out=self._q)
        return np.clip(self._q, 0, self.top, out=self._q)

    def errors(self, scales: Floats, minima: Floats) -> Floats:
        """Weighted squared errors that scales and minima leave with the nearest q; all [candidates, lanes]."""
        inverses = reciprocal(scales)
        offsets = self.mean + minima
        # With a scale of 0 every weight is -minimum.
        flat = offsets * offsets * self.sum_w + self.sum_wxx
        offsets *= inverses
        sums = np.empty_like(scales)
        rest = self._steps
        for inverse, offset, total in zip(inverses, offsets, sums, strict=True):
            self._quantize(inverse, offset)
            rest -= self._q  # in units of the scale
            rest *= rest
            rest *= self.w
            np.add.reduce(rest, axis=0, out=total)
        sums *= scales * scales
        np.copyto(sums, flat, where=inverses == 0)
        return sums

    def moments(self, q: Floats) -> tuple[Floats, Floats, Floats]:
        """Sums over a sub-block of w q, w q q and w q x."""
        wq = np.multiply(self.w, q, out=self._steps)
        return np.add.reduce(wq, axis=0), np.einsum("ij,ij->j", wq, q), np.einsum("ij,ij->j", wq, self.x)


def search(x: Floats, w: Floats, top: int, exponents: NDArray[np.int32]) -> Codes:
    """Find the codes of normalised super-blocks.

    Args:
        x: normalised weights in lanes of 32, float32 [32, 8 * blocks].
        w: weights of their squared errors, same shape.
        top: the largest q, 15 or 31.
        exponents: of the normalisation, [blocks].

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    lanes = Lanes(x, w, top)
    scale, minimum = _float_fit(lanes)
    d = covering_half(scale.reshape(-1, SUBBLOCKS).max(axis=1) / MOST, exponents)
    dmin = covering_half(minimum.reshape(-1, SUBBLOCKS).max(axis=1) / MOST, exponents)
    scales = _code(quotient(scale, np.repeat(d, SUBBLOCKS)))
    minima = _code(quotient(minimum, np.repeat(dmin, SUBBLOCKS)))
    for neighbourhood in HOODS:
        scales, minima = _better_codes(lanes, d, dmin, scales, minima, neighbourhood)
        d, dmin = _better_scales(lanes, d, dmin, scales, minima, exponents)
    q = lanes.quantized(np.repeat(d, SUBBLOCKS) * scales, np.repeat(dmin, SUBBLOCKS) * minima)
    return Codes(d, dmin, scales, minima, q)


def _code(values: Floats) -> Floats:
    return np.clip(np.rint(values), 0, MOST)


def _float_fit(lanes: Lanes) -> tuple[Floats, Floats]:
    """Float scales and minima, neither negative, [lanes] each: the best of several starts."""
    best = np.full_like(lanes.mean, np.inf)
    best_scale, best_minimum = np.zeros_like(best), np.zeros_like(best)
    for cut in CUTS:
        scale = (lanes.high - lanes.low) / (lanes.top + np.float32(cut))
        minimum = -lanes.low
        for _ in range(LEAST_SQUARES):
            wq, wqq, wqx = lanes.moments(lanes.quantized(scale, minimum))
            scale, minimum = _least_squares(lanes, wq, wqq, wqx)
            middle = minimum + lanes.mean
            error = (
                lanes.sum_wxx
                + scale * (scale * wqq - 2 * (wqx + middle * wq))
                + middle * (middle * lanes.sum_w + 2 * lanes.sum_wx)
            )
            better = error < best
            np.copyto(best, error, where=better)
            np.copyto(best_scale, scale, where=better)
            np.copyto(best_minimum, minimum, where=better)
    return best_scale, best_minimum


def _least_squares(lanes: Lanes, wq: Floats, wqq: Floats, wqx: Floats) -> tuple[Floats, Floats]:
    """Scale and minimum with the least error for given q; where that minimum were negative, the scale for minimum 0."""
    spread = lanes.sum_w * wqq - wq * wq
    scale = quotient(lanes.sum_w * wqx - lanes.sum_wx * wq, spread)
    minimum = -lanes.mean - quotient(wqq * lanes.sum_wx - wq * wqx, spread)
    negative = minimum < 0
    np.copyto(scale, quotient(wqx + lanes.mean * wq, wqq), where=negative)
    minimum[negative] = 0
    return np.maximum(scale, 0), minimum


def _better_codes(
    lanes: Lanes, d: Floats, dmin: Floats, scales: Floats, minima: Floats, steps: tuple[tuple[int, int], ...]
) -> tuple[Floats, Floats]:
    """The best codes in a neighbourhood that has the present ones first."""
    d_, dmin_ = np.repeat(d, SUBBLOCKS), np.repeat(dmin, SUBBLOCKS)
    # A larger scale moves all weights but those at q = 0; the minimum follows so that the mean weight stays.
    slope = quotient(d_ * quotient(lanes.mean + dmin_ * minima, d_ * scales), dmin_)
    moves = np.array(steps, np.float32)[:, :, None]  # [candidates, 2, 1]
    tried_scales = np.clip(scales + moves[:, 0], 0, MOST)  # [candidates, lanes]
    tried_minima = _code(minima + (tried_scales - scales) * slope + moves[:, 1])
    best = lanes.errors(d_ * tried_scales, dmin_ * tried_minima).argmin(axis=0)[None]
    return np.take_along_axis(tried_scales, best, 0)[0], np.take_along_axis(tried_minima, best, 0)[0]


def _better_scales(
    lanes: Lanes, d: Floats, dmin: Floats, scales: Floats, minima: Floats, exponents: NDArray[np.int32]
) -> tuple[Floats, Floats]:
    """d and dmin by least squares over a super-block for its codes, where they are better than the present ones."""

    def total(values: Floats) -> Floats:
        return values.reshape(-1, SUBBLOCKS).sum(axis=1)

    scale, minimum = np.repeat(d, SUBBLOCKS) * scales, np.repeat(dmin, SUBBLOCKS) * minima
    wq, wqq, wqx = lanes.moments(lanes.quantized(scale, minimum))
    # Weights are d * a - dmin * b with a = scale code * q and b = minimum code.
    aa, ab, bb = total(scales * scales * wqq), total(scales * minima * wq), total(minima * minima * lanes.sum_w)
    ax = total(scales * (wqx + lanes.mean * wq))
    bx = total(minima * (lanes.sum_wx + lanes.mean * lanes.sum_w))
    determinant = aa * bb - ab * ab
    solvable = determinant > np.float32(1e-6) * aa * bb
    new_d = np.where(solvable, quotient(ax * bb - bx * ab, determinant), quotient(ax + ab * dmin, aa))
    new_dmin = np.where(solvable, quotient(ax * ab - bx * aa, determinant), dmin)
    new_d, new_dmin = half(new_d, exponents), half(new_dmin, exponents)
    usable = np.isfinite(new_d) & np.isfinite(new_dmin) & (new_d >= 0) & (new_dmin >= 0)
    new_d, new_dmin = np.where(usable, new_d, d), np.where(usable, new_dmin, dmin)
    pairs = np.stack([scale, np.repeat(new_d, SUBBLOCKS) * scales]), np.stack([minimum, np.repeat(new_dmin, SUBBLOCKS) * minima])
    before, after = (total(e) for e in lanes.errors(*pairs))
    better = after < before
    return np.where(better, new_d, d), np.where(better, new_dmin, dmin)


def error_weights(blocks: Floats, importance: Floats | None) -> Floats:
    """ggml's weights of squared errors for normalised super-blocks, [blocks, 256], in lanes: [32, lanes].

    Without importance: the sub-block's root mean square plus the weight's magnitude. With it: importance times the
    root of twice the super-block's mean square plus the weight's square.
    """
    squares = blocks * blocks
    if importance is None or not importance.any():
        subs = squares.reshape(-1, WIDTH)
        w = np.sqrt(subs.mean(axis=1, keepdims=True)) + np.abs(blocks.reshape(-1, WIDTH))
        return to_lanes(w, WIDTH)
    w = importance * np.sqrt(2 * squares.mean(axis=1, keepdims=True) + squares)
    w *= reciprocal(w.max(axis=1, keepdims=True))
    # A hint of weight everywhere, so that a column nobody looks at still gets the q that is nearest.
    w += np.float32(1e-6)
    return to_lanes(w, WIDTH)


def head_bytes(codes: Codes, exponents: NDArray[np.int32]) -> Bytes:
    """The first 16 bytes of a super-block, which Q4_K and Q5_K share: d, dmin and sixteen 6-bit codes in twelve bytes.

    Of the twelve, the first eight have the codes of sub-blocks 0-3 in their low six bits, scales then minima; the last
    four have the low four bits of the scale and the minimum of sub-blocks 4-7; their upper two bits are on top of the
    first eight.
    """
    scales = codes.scales.astype(np.uint8).reshape(-1, SUBBLOCKS)
    minima = codes.minima.astype(np.uint8).reshape(-1, SUBBLOCKS)
    out = np.empty((len(scales), 16), np.uint8)
    out[:, 0:2] = half_bytes(codes.d, exponents)
    out[:, 2:4] = half_bytes(codes.dmin, exponents)
    out[:, 4:8] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    out[:, 8:12] = minima[:, :4] | (minima[:, 4:] >> 4) << 6
    out[:, 12:16] = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
    return out
