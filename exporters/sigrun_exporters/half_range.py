"""Which matrices the forms with float16 must leave exact, because something about them does not fit float16.

It is told from the rows that each linear layer multiplies in the float32 reference, with room to spare: pictures that
were not looked at reach further.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from sigrun.artifact import Artifact

Floats = NDArray[np.float32]
LARGEST = 65504.0  # of float16
ROOM = 4.0  # between what was observed and the largest: other pictures and texts reach further


class HalfRange:
    """The largest weights, activations and results of an artifact's matrices, learnt from the rows they multiply.

    Args:
        artifact: the file, for the stored numbers.
        names: matrices to watch; observations of others are passed over.
    """

    def __init__(self, artifact: Artifact, names: Collection[str]) -> None:
        self._artifact = artifact
        self._names = frozenset(names)
        self._longest: dict[str, float] = {}  # length of a matrix's longest row
        self._peaks: dict[str, float] = {}
        self._last: tuple[Floats | None, float, float] = (None, 0.0, 0.0)  # rows, their peak, the longest

    def observe(self, name: str, x: Floats) -> None:
        """Take in rows x [n, K] that the matrix ``name`` multiplies; K may lack what padding added."""
        if name not in self._names or not len(x):
            return
        if name not in self._longest:
            weights = self._artifact.dense(name)
            self._longest[name] = _longest(weights)
            self._peaks[name] = _peak(weights)
        if x is not self._last[0]:  # queries, keys and values multiply the same rows
            self._last = x, _peak(x), _longest(x)
        _, peak, longest = self._last
        # No product is larger than that of the lengths. Most layers stay far below the limit even so.
        if (bound := longest * self._longest[name]) * ROOM > LARGEST:
            bound = float(np.abs(x @ self._artifact.dense(name)[:, : x.shape[1]].T).max())
        self._peaks[name] = max(self._peaks[name], peak, bound)

    def peaks(self) -> dict[str, float]:
        """Matrix → no weight, no activation and no result, without its bias, was larger than this."""
        return dict(self._peaks)

    def beyond(self) -> frozenset[str]:
        """Matrices to leave exact: what ``build`` takes as ``exact`` for the forms ``f16`` and ``w4f16``."""
        return frozenset(name for name, peak in self._peaks.items() if not peak * ROOM <= LARGEST)


def _peak(values: Floats) -> float:
    return max(float(values.max()), -float(values.min()))


def _longest(rows: Floats) -> float:
    """Length of the longest row; infinite where float32 cannot hold its square."""
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max()))
