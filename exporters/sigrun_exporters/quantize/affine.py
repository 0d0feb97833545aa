"""The search behind Q4_K and Q5_K: weights as scale * q - minimum, scales and minima 6-bit multiples of two float16s.

For each super-block of eight sub-blocks it looks for d, dmin, eight scale codes, eight minimum codes and all q that
leave the least weighted squared error. Four steps, each for all sub-blocks of a run at once:

1. float scales and minima: from a few cuts of the range, the nearest q, then least squares;
2. d, dmin and codes: those rounded in a few ways;
3. codes: of each pair and its neighbours the one with the least exact error, q chosen anew for each;
4. d and dmin by least squares over the super-block for the codes found, where that is better once rounded to float16.

Steps 3 and 4 are done twice. ggml stops after rounding float scales and minima to 6 bits, which costs it 3 % of Q4_K's
squared error and 15 % of Q5_K's; looking at exact errors in steps 2 and 3 gets most of that back.

Shapes: x, w and q are float32 [32, 8, blocks], what belongs to a sub-block is [8, blocks], to a super-block [blocks].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sigrun_exporters.quantize.lanes import (
    Bytes,
    Exponents,
    Floats,
    covering_half,
    half,
    half_bytes,
    pick,
    quotient,
    reciprocal,
    row_sum,
    to_lanes,
)

WIDTH = 32
MOST = np.float32(63)
# The range of a sub-block is first cut into so many steps more than q has.
CUTS = (-1.0, -0.7, -0.4, -0.1, 0.2, 0.5, 0.8)
# Codes that the largest scale and the largest minimum of a super-block are first given. Smaller ones cost little
# resolution and let the other sub-blocks' codes fall where they happen to fit better.
LARGEST = ((63, 63), (61, 63), (59, 63), (63, 61), (63, 59), (61, 61))
# Moves of the scale code, and of the minimum code beyond what keeps the sub-block's mean in place.
MOVES = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)
ROUNDS = 2


class Codes(NamedTuple):
    """What Q4_K and Q5_K store of normalised super-blocks.

    Attributes:
        d, dmin: float32 [blocks]; float16 holds them once scaled back.
        scales, minima: whole numbers 0-63, float32 [8, blocks].
        q: whole numbers, float32 [32, 8, blocks].
    """

    d: Floats
    dmin: Floats
    scales: Floats
    minima: Floats
    q: Floats


class _Found(NamedTuple):
    """The best so far: as in Codes, with each sub-block's weighted squared error, [8, blocks]."""

    d: Floats
    dmin: Floats
    scales: Floats
    minima: Floats
    error: Floats


def search(blocks: Floats, importance: Floats | None, top: int, exponents: Exponents) -> Codes:
    """Find the codes of normalised super-blocks.

    Args:
        blocks: float32 [blocks, 256].
        importance: of their squared errors, float32 [blocks, 256], or None.
        top: the largest q, 15 or 31.
        exponents: of the normalisation, [blocks].

    Raises:
        ValueError: a scale is beyond float16's range.
    """
    x = to_lanes(blocks, WIDTH)
    lanes = _Lanes(x, _error_weights(x, importance), top)
    found = _rounded(lanes, *_float_fit(lanes), exponents)
    for _ in range(ROUNDS):
        found = _better_scales(lanes, _better_codes(lanes, found), exponents)
    d, dmin, scales, minima, _ = found
    return Codes(d, dmin, scales, minima, lanes.quantized(d * scales, dmin * minima))


def head_bytes(codes: Codes, exponents: Exponents) -> Bytes:
    """The first 16 bytes of a super-block, which Q4_K and Q5_K share: d, dmin, sixteen 6-bit codes. uint8 [blocks, 16].

    Of the twelve bytes of codes, the first eight hold those of sub-blocks 0-3 in their low six bits, scales then
    minima. The last four hold the low four bits of scale and minimum of sub-blocks 4-7, whose upper two bits lie on
    top of the first eight.
    """
    scales, minima = (np.ascontiguousarray(c.astype(np.uint8).T) for c in (codes.scales, codes.minima))
    out = np.empty((len(scales), 16), np.uint8)
    out[:, 0:2] = half_bytes(codes.d, exponents)
    out[:, 2:4] = half_bytes(codes.dmin, exponents)
    out[:, 4:8] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    out[:, 8:12] = minima[:, :4] | (minima[:, 4:] >> 4) << 6
    out[:, 12:16] = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
    return out


def _error_weights(x: Floats, importance: Floats | None) -> Floats:
    """What a squared error counts, as in ggml; only the proportions within a super-block matter.

    Without importance: the sub-block's root mean square plus the weight's magnitude. With it: importance times the
    root of twice the super-block's mean square plus the weight's square.
    """
    squares = x * x
    w: Floats
    if importance is None:
        w = np.abs(x)
        w += np.sqrt(row_sum(squares) / WIDTH)
        return w
    mean = row_sum(row_sum(squares)) / np.float32(WIDTH * len(x[0]))
    squares += 2 * mean
    w = np.sqrt(squares)
    counts = to_lanes(importance, WIDTH)
    w *= counts * reciprocal(counts.max(axis=(0, 1)))
    # A hint of weight everywhere: a column that does not count still gets its nearest q.
    w += np.float32(1e-6)
    return w


class _Lanes:
    """Sub-blocks centred on their weighted means, and the sums of them that every step needs."""

    def __init__(self, x: Floats, w: Floats, top: int) -> None:
        self.w, self.top = w, np.float32(top)
        self.low, self.high = np.minimum(x.min(axis=0), 0), x.max(axis=0)
        self.sum_w = row_sum(w)
        # Centring keeps the differences of sums below from cancelling out.
        self._steps, self._q = w * x, np.empty_like(x)
        self.mean = quotient(row_sum(self._steps), self.sum_w)
        self.x = x - self.mean
        wx = np.multiply(w, self.x, out=self._steps)
        self.sum_wx = row_sum(wx)
        self.sum_wxx = row_sum(np.multiply(wx, self.x, out=wx))

    def quantized(self, scale: Floats, minimum: Floats) -> Floats:
        """The nearest q for scales and minima [8, blocks]; overwritten by the next call."""
        inverse = reciprocal(scale)
        return self._quantize(inverse, (self.mean + minimum) * inverse)

    def _quantize(self, inverse: Floats, offset: Floats) -> Floats:
        np.multiply(self.x, inverse, out=self._steps)
        self._steps += offset
        np.rint(self._steps, out=self._q)
        np.clip(self._q, 0, self.top, out=self._q)
        return self._q

    def errors(self, scales: Floats, minima: Floats) -> Floats:
        """Weighted squared errors that scales and minima leave with the nearest q; all [candidates, 8, blocks]."""
        inverses = reciprocal(scales)
        offsets = self.mean + minima
        # With a scale of 0 all weights are -minimum.
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
        """Sums over a sub-block of w q, w q q and w q x; overwrites q."""
        wq = np.multiply(self.w, q, out=self._steps)
        sum_wq = row_sum(wq)
        sum_wqq = row_sum(np.multiply(wq, q, out=q))
        return sum_wq, sum_wqq, row_sum(np.multiply(wq, self.x, out=q))


def _code(values: Floats) -> Floats:
    code: Floats = np.clip(np.rint(values), 0, MOST)
    return code


def _float_fit(lanes: _Lanes) -> tuple[Floats, Floats]:
    """Float scales and minima, neither negative, [8, blocks] each: the best that come out of CUTS."""
    best = np.full_like(lanes.mean, np.inf)
    best_scale, best_minimum = np.zeros_like(best), np.zeros_like(best)
    for cut in CUTS:
        start = (lanes.high - lanes.low) / (lanes.top + np.float32(cut))
        wq, wqq, wqx = lanes.moments(lanes.quantized(start, -lanes.low))
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


def _least_squares(lanes: _Lanes, wq: Floats, wqq: Floats, wqx: Floats) -> tuple[Floats, Floats]:
    """Scale and minimum with the least error for given q; where that minimum is negative, the scale for minimum 0."""
    spread = lanes.sum_w * wqq - wq * wq
    # Of q that are all but equal, what is left of the difference is rounding: no scale follows from it.
    spread[spread < np.float32(1e-5) * lanes.sum_w * wqq] = 0
    scale = quotient(lanes.sum_w * wqx - lanes.sum_wx * wq, spread)
    minimum = -lanes.mean - quotient(wqq * lanes.sum_wx - wq * wqx, spread)
    negative = minimum < 0
    np.copyto(scale, quotient(wqx + lanes.mean * wq, wqq), where=negative)
    minimum[negative] = 0
    return np.maximum(scale, 0), minimum


def _rounded(lanes: _Lanes, scale: Floats, minimum: Floats, exponents: Exponents) -> _Found:
    """Float scales and minima rounded to codes, in the best of a few ways."""
    largest = np.array(LARGEST, np.float32).T[:, :, None]  # [2, candidates, 1]
    d = covering_half(scale.max(axis=0) / largest[0], exponents)  # [candidates, blocks]
    dmin = covering_half(minimum.max(axis=0) / largest[1], exponents)
    scales = _code(scale * reciprocal(d)[:, None])  # [candidates, 8, blocks]
    minima = _code(minimum * reciprocal(dmin)[:, None])
    errors = lanes.errors(d[:, None] * scales, dmin[:, None] * minima)
    best = errors.sum(axis=1).argmin(axis=0)  # [blocks]
    return _Found(*(pick(tried, best) for tried in (d, dmin, scales, minima, errors)))


def _better_codes(lanes: _Lanes, now: _Found) -> _Found:
    """The best codes among the present ones and their neighbours."""
    # A larger scale moves every weight but those at q = 0; the minimum follows, so that the mean stays.
    steps_to_mean = quotient(lanes.mean + now.dmin * now.minima, now.d * now.scales)
    slope = now.d * steps_to_mean * reciprocal(now.dmin)
    by_scale, by_minimum = np.array(MOVES, np.float32).T[:, :, None, None]  # [candidates, 1, 1] each
    scales = np.clip(now.scales + by_scale, 0, MOST)  # [candidates, 8, blocks]
    minima = _code(now.minima + (scales - now.scales) * slope + by_minimum)
    errors = lanes.errors(now.d * scales, now.dmin * minima)
    best = errors.argmin(axis=0)  # [8, blocks]
    error = pick(errors, best)
    better = error < now.error
    return now._replace(
        scales=np.where(better, pick(scales, best), now.scales),
        minima=np.where(better, pick(minima, best), now.minima),
        error=np.where(better, error, now.error),
    )


def _better_scales(lanes: _Lanes, now: _Found, exponents: Exponents) -> _Found:
    """d and dmin by least squares over a super-block for its codes, where they are better than the present ones."""
    scales, minima = now.scales, now.minima
    wq, wqq, wqx = lanes.moments(lanes.quantized(now.d * scales, now.dmin * minima))
    # Weights are d * a - dmin * b, with a = scale code * q and b = minimum code.
    aa = row_sum(scales * scales * wqq)
    ab = row_sum(scales * minima * wq)
    bb = row_sum(minima * minima * lanes.sum_w)
    ax = row_sum(scales * (wqx + lanes.mean * wq))
    bx = row_sum(minima * (lanes.sum_wx + lanes.mean * lanes.sum_w))
    determinant = aa * bb - ab * ab
    solvable = determinant > np.float32(1e-6) * aa * bb
    d = np.where(solvable, quotient(ax * bb - bx * ab, determinant), quotient(ax + ab * now.dmin, aa))
    dmin = np.where(solvable, quotient(ax * ab - bx * aa, determinant), now.dmin)
    d, dmin = half(d, exponents), half(dmin, exponents)
    usable = np.isfinite(d) & np.isfinite(dmin) & (d >= 0) & (dmin >= 0)
    d, dmin = np.where(usable, d, now.d), np.where(usable, dmin, now.dmin)
    error = lanes.errors((d * scales)[None], (dmin * minima)[None])[0]
    better = row_sum(error) < row_sum(now.error)
    return now._replace(
        d=np.where(better, d, now.d),
        dmin=np.where(better, dmin, now.dmin),
        error=np.where(better, error, now.error),
    )
