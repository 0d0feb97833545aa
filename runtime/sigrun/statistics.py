"""What a count of right answers says and what it does not: intervals of shares, and of paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share that was counted.

    Attributes:
        count: how many were.
        total: of how many.

    Raises:
        ValueError: there is nothing to count from, or more was counted than there is.
    """

    count: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.total or self.total == 0:
            raise ValueError(f"{self.count} of {self.total} is no share")

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.count / self.total

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Wilson's score interval: all shares p with ``|count/total - p| <= z · sqrt(p (1 - p) / total)``.

        It stays within 0 to 1 and has a width where all or none were right.
        """
        z2 = _z(confidence) ** 2
        n, share = self.total, self.share
        middle = (share + z2 / (2 * n)) / (1 + z2 / n)
        half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
        low = 0.0 if self.count == 0 else max(0.0, middle - half)  # exact where rounding would miss it
        return low, 1.0 if self.count == n else min(1.0, middle + half)


@dataclass(frozen=True, slots=True)
class Paired:
    """The same things judged twice, before and after a change.

    Attributes:
        total: how many were judged.
        lost: right before, wrong after.
        won: wrong before, right after.

    Raises:
        ValueError: nothing was judged, or more changed than was judged.
    """

    total: int
    lost: int
    won: int

    def __post_init__(self) -> None:
        if min(self.lost, self.won) < 0 or self.lost + self.won > self.total or self.total == 0:
            raise ValueError(f"{self.lost} lost and {self.won} won of {self.total} cannot be")

    @property
    def difference(self) -> float:
        """Share right after less share right before, -1 to 1."""
        return (self.won - self.lost) / self.total

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Interval of the difference by Bonett and Price (2012).

        Wald's for paired shares after one more lost and one more won::

            w = (won + 1) / (total + 2),  l = (lost + 1) / (total + 2)
            w - l ± z · sqrt((w + l - (w - l)²) / (total + 2))

        Things that were judged alike both times count in the total alone. It has a width even where nothing
        changed, and is cut to -1 and 1.
        """
        n = self.total + 2
        won, lost = (self.won + 1) / n, (self.lost + 1) / n
        half = _z(confidence) * math.sqrt((won + lost - (won - lost) ** 2) / n)
        return max(-1.0, won - lost - half), min(1.0, won - lost + half)

    @property
    def p(self) -> float:
        """Probability of a split at least as uneven if lost and won were equally likely: McNemar's exact test."""
        changed = self.lost + self.won
        ways = tail = 1  # ways to choose i of the changed; their sum up to the smaller of the two
        for i in range(1, min(self.lost, self.won) + 1):
            ways = ways * (changed - i + 1) // i
            tail += ways
        return min(1.0, 2 * tail / (1 << changed))


def paired(before: NDArray[np.bool_] | Sequence[bool], after: NDArray[np.bool_] | Sequence[bool]) -> Paired:
    """Count what changed between two judgements of the same things, in the same order.

    Raises:
        ValueError: they differ in number, or there are none.
    """
    old, new = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    if old.shape != new.shape or old.ndim != 1:
        raise ValueError(f"judgements of shapes {old.shape} and {new.shape} are not of the same things")
    return Paired(len(old), int((old & ~new).sum()), int((~old & new).sum()))


def _z(confidence: float) -> float:
    """How many standard deviations hold that share of a normal distribution."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence} cannot be: it lies between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)
