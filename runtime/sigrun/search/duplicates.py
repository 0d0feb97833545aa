"""Pictures that are nearly alike: groups that chains of close pairs hold together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sigrun.search.vectors import Rows

BLOCK: Final = 1024  # rows compared with as many others at a time; memory does not grow with the index


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
    parent = np.arange(len(live))
    for start in range(0, len(live), BLOCK):
        left = rows.taken(live[start : start + BLOCK])
        for other in range(start, len(live), BLOCK):
            right = left if other == start else rows.taken(live[other : other + BLOCK])
            close = left @ right.T >= above
            if other == start:
                np.fill_diagonal(close, False)
            if close.any():
                _unite(parent, close, start, other)
            on_done(float(len(left) * len(right)))
    roots = _roots(parent)
    order = np.argsort(roots, kind="stable")
    bounds = np.flatnonzero(np.diff(roots[order])) + 1
    found = [part for part in np.split(order, bounds) if len(part) > 1]
    found.sort(key=lambda part: (-len(part), int(part[0])))
    result = []
    for part in found:
        vectors = rows.taken(live[part])
        result.append(Group(tuple(live[part].tolist()), tuple(np.minimum(vectors @ vectors[0], 1).tolist())))
    return result


def _unite(parent: NDArray[np.int64], close: NDArray[np.bool_], start: int, other: int) -> None:
    """Put both ends of each close pair into one tree; roots are always the smallest of their tree.

    Each row is joined with the first that it is close to and apart from, again and again: however many pairs there
    are, the loops are short.
    """
    rows, columns = close.shape
    while True:
        parent[:] = _roots(parent)
        first, second = parent[start : start + rows], parent[other : other + columns]
        apart = close & (first[:, np.newaxis] != second)
        which = np.flatnonzero(apart.any(axis=1))
        if not len(which):
            return
        partners = apart[which].argmax(axis=1)
        for a, b in zip(first[which].tolist(), second[partners].tolist(), strict=True):
            while parent[a] != a:
                a = int(parent[a])
            while parent[b] != b:
                b = int(parent[b])
            parent[max(a, b)] = min(a, b)


def _roots(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of each."""
    while True:
        above = parent[parent]
        if (above == parent).all():
            return above
        parent = above
