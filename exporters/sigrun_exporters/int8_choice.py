"""Which matrices form ``int8`` should leave exact: a measure of each, and a search that measures the whole.

The form rounds activations to 8 bits with one scale for a whole matrix of them. A few large ones (outliers, in which
some channels of vision transformers are rich) make that scale coarse for all the others. How much a linear layer
suffers is measured on the rows that it multiplies; how much the tower's result does is measured by running candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sigrun.artifact import Artifact
from sigrun.int8 import EIGHT_BITS, Int8
from sigrun.verification import Int8Choice

Floats = NDArray[np.float32]
SAMPLED_ROWS = (
    64  # of each observation, evenly spaced: products with all of them would cost as much as the towers
)
HELD = 6  # matrices of one layer, each held twice as float32 while its layer is observed
FIRST_STEP = 2  # matrices left exact at the first try


@dataclass(frozen=True)
class SquaredErrors:
    """Sums of squares over the results of a linear layer.

    Attributes:
        result: of the result itself.
        activations: of the change from rounding the activations alone.
        weights: of the change from rounding the weights alone.
        both: of the change from rounding both, as the form does.
    """

    result: float = 0.0
    activations: float = 0.0
    weights: float = 0.0
    both: float = 0.0

    def __add__(self, other: SquaredErrors) -> SquaredErrors:
        return SquaredErrors(
            self.result + other.result,
            self.activations + other.activations,
            self.weights + other.weights,
            self.both + other.both,
        )

    def relative(self) -> SquaredErrors:
        """The same as parts of ``result``; nothing where the result is nothing."""
        if self.result == 0:
            return replace(self, activations=0.0, weights=0.0, both=0.0)
        return SquaredErrors(
            1.0, self.activations / self.result, self.weights / self.result, self.both / self.result
        )


def rounded_activations(x: Floats, rows: slice = slice(None)) -> Floats:
    """What is left of some rows of x [n, K] after ``DynamicQuantizeLinear`` of all of x: float32 [m, K]."""
    least, most = np.float32(x.min(initial=0)), np.float32(x.max(initial=0))  # 0 has a step of its own
    if least == most:
        return np.zeros_like(x[rows])
    scale = (most - least) / np.float32(255)
    zero = np.rint(-least / scale)  # of 0 to 255
    steps: Floats = np.rint(x[rows] / scale)
    np.clip(steps, -zero, 255 - zero, out=steps)
    steps *= scale
    return steps


def squared_errors(x: Floats, weights: Floats, change: Floats, rows: slice = slice(None)) -> SquaredErrors:
    """What form ``int8`` changes in some rows of x [n, K] times ``weights`` [N, K] transposed.

    Args:
        x: all activations that are quantized together.
        weights: the stored numbers.
        change: what rounding to int8 adds to them.
        rows: the rows of x to measure.
    """
    kept = x[rows]
    both = np.concatenate((kept, rounded_activations(x, rows) - kept))  # rows, and what rounding adds to them
    # Changes are multiplied, not products subtracted: small errors would drown in float32's rounding.
    result, blur = np.split(both @ weights.T, 2)
    from_weights, of_both = np.split(both @ change.T, 2)
    return SquaredErrors(
        result=_square(result),
        activations=_square(blur),
        weights=_square(from_weights),
        both=_square(blur + from_weights + of_both),
    )


class Sensitivity:
    """How much each matrix of an artifact would suffer from form ``int8``, learnt from the rows it multiplies.

    Args:
        artifact: the file, for the stored numbers.
        names: matrices to watch; observations of others are passed over.
        most: the largest int8 weight.
    """

    def __init__(self, artifact: Artifact, names: Collection[str], *, most: int = EIGHT_BITS) -> None:
        self._artifact = artifact
        self._names = frozenset(names)
        self._most = most
        self._sums: dict[str, SquaredErrors] = {}
        # Stored numbers and what rounding adds to them, of the layer at hand.
        self._held: dict[str, tuple[Floats, Floats]] = {}

    def observe(self, name: str, x: Floats) -> None:
        """Take in rows x [n, K] that the matrix ``name`` multiplies in one run; K may lack what padding added."""
        if name not in self._names or not len(x):
            return
        weights, change = (w[:, : x.shape[1]] for w in self._matrices(name))
        rows = slice(None, None, -(-len(x) // SAMPLED_ROWS))
        self._sums[name] = self._sums.get(name, SquaredErrors()) + squared_errors(x, weights, change, rows)

    def errors(self) -> dict[str, SquaredErrors]:
        """Relative squared errors of all that was observed."""
        return {name: sums.relative() for name, sums in self._sums.items()}

    def ranking(self) -> list[tuple[str, float]]:
        """(matrix, relative squared error of its results), the worst first."""
        found = [(name, errors.both) for name, errors in self.errors().items()]
        return sorted(found, key=lambda entry: (-entry[1], entry[0]))

    def _matrices(self, name: str) -> tuple[Floats, Floats]:
        if name not in self._held:
            while len(self._held) >= HELD:
                del self._held[next(iter(self._held))]
            stored = self._artifact.dense(name)
            self._held[name] = stored, rounding(stored, self._artifact.int8(name, self._most))
            self._artifact.release(name)
        return self._held[name]


def rounding(stored: Floats, matrix: Int8) -> Floats:
    """What rounding to int8 adds to a matrix: float32 [N, K]."""
    weights: Floats = matrix.q.T.astype(np.float32)
    weights *= matrix.scales[:, None]
    weights -= stored
    return weights


def choose(
    ranking: Sequence[tuple[str, float]], measure: Callable[[frozenset[str]], float], limit: float
) -> Int8Choice:
    """Find a small set of matrices to leave exact, so that the whole meets ``limit``.

    Tries none, then the worst 2, 4, 8, ... by rank. If all are left exact and ``limit`` is not met, that is the
    choice, and the last entry of its trail says so.

    Args:
        ranking: (matrix, error), the worst first.
        measure: error of the tower's results with these matrices left exact.
        limit: the largest error to accept.
    """
    names = [name for name, _ in ranking]
    trail = []
    count = 0
    while True:
        exact = frozenset(names[:count])
        error = measure(exact)
        trail.append((count, error))
        if error <= limit or count == len(names):
            return Int8Choice(tuple(sorted(exact)), tuple(trail))
        count = min(max(FIRST_STEP, 2 * count), len(names))


def _square(values: Floats) -> float:
    return float(np.square(values, dtype=np.float64).sum())
