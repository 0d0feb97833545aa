"""Pictures that are nearly alike: groups that chains of close pairs hold together.

Every pair is looked at, but few are computed in full. The vectors are turned so that their first numbers hold most of
their length; what the others add to a cosine is at most the product of their lengths (Cauchy and Schwarz). A pair whose
cosine cannot reach the limit by that bound is left alone, the others are decided by their exact cosine: none is missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sigrun.search.vectors import Rows

BLOCK: Final = 1024  # rows that are compared with as many others at a time
PANEL: Final = 8  # blocks whose turned vectors are held, so that memory does not grow with the index
FIRST: Final = 128  # numbers of a turned vector that are compared first
SAMPLE: Final = 4096  # rows that the turn is made for; where there are no more of them, none is made
DENSE: Final = 1 / 64  # share of pairs left by the bound, from which on a block is computed in full
AT_ONCE: Final = 2048  # pairs that are computed at a time otherwise
_SLACK: Final = 1e-4  # float32 errs less in the bound
_LEAST: Final = 1e-5  # and less in the square of a length
_EQUAL: Final = 1 - 2e-6  # what float32 may make of the cosine of a vector with itself, at least


@dataclass(frozen=True)
class Group:
    """Pictures that are nearly alike.

    Attributes:
        rows: their rows, rising; at least two.
        cosines: each one's with the first.
    """

    rows: tuple[int, ...]
    cosines: tuple[float, ...]


def groups(
    rows: Rows, live: NDArray[np.int64], above: float, on_done: Callable[[float], object] = lambda _: None
) -> list[Group]:
    """Find groups of rows: any two whose cosine is at least ``above`` are in one group.

    Args:
        rows: all vectors.
        live: rows to compare, rising.
        above: the least cosine of a pair.
        on_done: called with the number of pairs that were compared since the last call.

    Returns:
        The largest first; of equal ones that whose first row is earlier.
    """
    above = min(above, _EQUAL)
    parent = np.arange(len(live))
    turn = _turn(rows, live)
    size = PANEL * BLOCK
    for start in range(0, len(live), size):
        panel = _turned(rows, live[start : start + size], turn)
        for other in range(start, len(live), BLOCK):
            place = other - start
            if place < size:
                right = panel[place : place + BLOCK]
            else:
                right = _turned(rows, live[other : other + BLOCK], turn)
            for first in range(start, min(start + len(panel), other + 1), BLOCK):
                left = panel[first - start : first - start + BLOCK]
                may = left @ right.T >= above - _SLACK
                if first == other:
                    may = np.triu(may, 1)
                if may.any():
                    _decide(parent, rows, live, above, may, first, other)
                on_done(float(len(left) * (len(left) + 1) / 2 if first == other else may.size))
    return _listed(rows, live, _roots(parent, parent))


def _listed(rows: Rows, live: NDArray[np.int64], roots: NDArray[np.int64]) -> list[Group]:
    """The groups of rows that have one root."""
    order = np.argsort(roots, kind="stable")
    bounds = np.flatnonzero(np.diff(roots[order])) + 1
    found = [part for part in np.split(order, bounds) if len(part) > 1]
    found.sort(key=lambda part: (-len(part), int(part[0])))
    result = []
    for part in found:
        first = _exact(rows, live[part[:1]])[0]
        cosines: list[float] = []
        for start in range(0, len(part), BLOCK):
            cosines += (_exact(rows, live[part[start : start + BLOCK]]) @ first).tolist()
        result.append(Group(tuple(live[part].tolist()), tuple(min(cosine, 1.0) for cosine in cosines)))
    return result


def _exact(rows: Rows, which: NDArray[np.int64]) -> NDArray[np.float32]:
    """Vectors float32 [n, width], of unit length to float32: as they are stored, they are a little off."""
    vectors = rows.taken(which)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    vectors /= np.maximum(lengths, 1e-30)[:, np.newaxis]
    return vectors


def _turn(rows: Rows, live: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """The directions that hold most of the vectors' length, float32 [width, FIRST]; none if it is not worth it."""
    if len(live) <= SAMPLE or rows.width <= 2 * FIRST:
        return None
    some = _exact(rows, live[np.linspace(0, len(live) - 1, SAMPLE).astype(np.int64)])
    _, directions = np.linalg.eigh((some.T @ some).astype(np.float64))
    return np.ascontiguousarray(directions[:, -FIRST:], np.float32)


def _turned(rows: Rows, which: NDArray[np.int64], turn: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The first numbers of turned vectors and the length of the others, float32 [n, FIRST + 1], whose products bound
    cosines from above; without a turn the vectors, whose products are the cosines."""
    if turn is None:
        return _exact(rows, which)
    out = np.empty((len(which), turn.shape[1] + 1), np.float32)
    for start in range(0, len(which), BLOCK):
        part = out[start : start + BLOCK]
        np.matmul(_exact(rows, which[start : start + BLOCK]), turn, out=part[:, :-1])
        held = np.einsum("ij,ij->i", part[:, :-1], part[:, :-1])
        part[:, -1] = np.sqrt(np.maximum(1 - held, 0) + _LEAST)
    return out


def _decide(
    parent: NDArray[np.int64],
    rows: Rows,
    live: NDArray[np.int64],
    above: float,
    may: NDArray[np.bool_],
    first: int,
    other: int,
) -> None:
    """Unite those of a block's pairs that are close; the others that ``may`` names are not."""
    height, width = may.shape
    ones, others = live[first : first + height], live[other : other + width]
    near, far = (
        _roots(parent, parent[first : first + height]),
        _roots(parent, parent[other : other + width]),
    )
    if (near == near[0]).all() and (far == near[0]).all():
        return
    if np.count_nonzero(may) > DENSE * may.size:
        close = _exact(rows, ones) @ _exact(rows, others).T >= above
        _unite(parent, close & may, first, other)
        return
    at, to = np.nonzero(may)
    for start in range(0, len(at), AT_ONCE):
        a, b = at[start : start + AT_ONCE], to[start : start + AT_ONCE]
        apart = _roots(parent, parent[first + a]) != _roots(parent, parent[other + b])
        a, b = a[apart], b[apart]
        cosines = np.einsum("ij,ij->i", _exact(rows, ones[a]), _exact(rows, others[b]))
        _join(parent, first + a[cosines >= above], other + b[cosines >= above])


def _unite(parent: NDArray[np.int64], close: NDArray[np.bool_], first: int, other: int) -> None:
    """Put both ends of each close pair of a block into one tree.

    Each row is joined with the first that it is close to and apart from, again and again: however many pairs there
    are, the loops are short.
    """
    height, width = close.shape
    while True:
        near = _roots(parent, parent[first : first + height])
        far = _roots(parent, parent[other : other + width])
        apart = close & (near[:, np.newaxis] != far)
        which = np.flatnonzero(apart.any(axis=1))
        if not len(which):
            return
        _join(parent, near[which], far[apart[which].argmax(axis=1)])


def _join(parent: NDArray[np.int64], ones: NDArray[np.int64], others: NDArray[np.int64]) -> None:
    """Put both ends of each pair into one tree; roots are always the smallest of their tree."""
    for a, b in zip(ones.tolist(), others.tolist(), strict=True):
        while parent[a] != a:
            a = int(parent[a])
        while parent[b] != b:
            b = int(parent[b])
        parent[max(a, b)] = min(a, b)


def _roots(parent: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The roots of the trees that some places are in."""
    while True:
        above = parent[places]
        if (above == places).all():
            return above
        places = above
