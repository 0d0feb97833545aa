"""How weights are stored: one table of encodings with their block geometry.

Sizes are those of ggml (ggml-common.h), so every tensor can be read by any GGUF reader.
A *block* holds ``weights`` consecutive weights of a row in ``size`` bytes. The K-quants call theirs a
super-block (256 weights, made of 8 sub-blocks of 32, or 16 of 16, with 6- or 8-bit scales).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd


@dataclass(frozen=True)
class Encoding:
    """One way to store weights.

    Attributes:
        name: lower-case ggml name.
        ggml_id: the type number in a GGUF tensor header.
        weights: weights per block.
        size: bytes per block.
    """

    name: str
    ggml_id: int
    weights: int
    size: int

    @property
    def bits_per_weight(self) -> float:
        """Bits a weight takes, scales included."""
        return 8 * self.size / self.weights

    def nbytes(self, weights: int) -> int:
        """Bytes of ``weights`` weights; they must fill whole blocks."""
        if weights % self.weights:
            raise ValueError(
                f"{weights} weights are not a multiple of the {self.name} block of {self.weights}"
            )
        return weights // self.weights * self.size

    def fold(self, rows: int, columns: int) -> int | None:
        """Rows of a [rows, columns] matrix to lay end to end so that they fill whole blocks.

        1 where a row fills blocks by itself, ``None`` where no folding does: the rows do not divide, or a
        32-wide sub-block would straddle two rows, and its scale would have to serve both.
        """
        fold = self.weights // gcd(self.weights, columns)
        if rows % fold or (fold > 1 and columns % 32):
            return None
        return fold


ENCODINGS: dict[str, Encoding] = {
    e.name: e
    for e in (
        Encoding("f32", 0, 1, 4),
        Encoding("f16", 1, 1, 2),
        Encoding("q8_0", 8, 32, 34),
        Encoding("q4_k", 12, 256, 144),
        Encoding("q5_k", 13, 256, 176),
        Encoding("q6_k", 14, 256, 210),
    )
}
