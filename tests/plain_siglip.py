"""SigLIP's two towers in plain numpy and float64, written from the paper's description: an oracle without a framework.

It keeps the rows that every linear layer multiplies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sigrun_recipes import Architecture
from sigrun_recipes.architecture import Tower

Doubles = NDArray[np.float64]


class PlainSiglip:
    """A model that computes one picture or text at a time.

    Args:
        architecture: both towers.
        read: a weight by its GGUF name.

    Attributes:
        rows: matrix of a linear layer → rows it multiplied, [n, columns], one array a picture or text.
    """

    def __init__(self, architecture: Architecture, read: Callable[[str], NDArray[np.float32]]) -> None:
        self.architecture = architecture
        self.weights = {t.name: read(t.name).astype(np.float64) for t in architecture.tensors()}
        self.rows: dict[str, list[Doubles]] = {}

    def image(self, pixels: NDArray[np.float32]) -> Doubles:
        """float32 [3, size, size] → unit vector [width]."""
        tower = self.architecture.image
        assert tower is not None
        side = tower.patch_size
        patches = [
            pixels[:, side * row : side * (row + 1), side * column : side * (column + 1)].reshape(-1)
            for row in range(tower.grid)
            for column in range(tower.grid)
        ]
        x = (
            self._linear(np.array(patches, np.float64), "v.patch_embd")
            + self.weights["v.position_embd.weight"]
        )
        x = self._norm(self._layers(x, "v", tower), "v.post_ln", tower)
        pooled = self._attention(self.weights["v.head.probe"][None], x, "v.head", tower)
        pooled = pooled + self._mlp(self._norm(pooled, "v.head.ln", tower), "v.head")
        return _unit(pooled[0])

    def text(self, ids: NDArray[np.int64]) -> Doubles:
        """int64 [context] → unit vector [projection]."""
        tower = self.architecture.text
        assert tower is not None
        x = self.weights["t.token_embd.weight"][ids] + self.weights["t.position_embd.weight"]
        x = self._layers(x, "t", tower)
        return _unit(self._linear(self._norm(x[-1:], "t.post_ln", tower), "t.head")[0])

    def squares(self) -> dict[str, tuple[Doubles, int]]:
        """Sum of squares by column, and number of rows, of all that was computed."""
        return {
            name: ((np.concatenate(rows) ** 2).sum(axis=0), sum(map(len, rows)))
            for name, rows in self.rows.items()
        }

    def _layers(self, x: Doubles, prefix: str, tower: Tower) -> Doubles:
        for layer in range(tower.layers):
            block = f"{prefix}.blk.{layer}"
            normed = self._norm(x, f"{block}.ln1", tower)
            x = x + self._attention(normed, normed, block, tower)
            x = x + self._mlp(self._norm(x, f"{block}.ln2", tower), block)
        return x

    def _linear(self, x: Doubles, name: str) -> Doubles:
        self.rows.setdefault(f"{name}.weight", []).append(x)
        product: Doubles = x @ self.weights[f"{name}.weight"].T
        return product + self.weights[f"{name}.bias"]

    def _norm(self, x: Doubles, name: str, tower: Tower) -> Doubles:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + tower.eps)
        result: Doubles = scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return result

    def _mlp(self, x: Doubles, prefix: str) -> Doubles:
        x = self._linear(x, f"{prefix}.ffn_up")
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return self._linear(x, f"{prefix}.ffn_down")

    def _attention(self, queries: Doubles, tokens: Doubles, prefix: str, tower: Tower) -> Doubles:
        q = self._linear(queries, f"{prefix}.attn_q")
        k = self._linear(tokens, f"{prefix}.attn_k")
        v = self._linear(tokens, f"{prefix}.attn_v")
        mixed = []
        for head in range(tower.heads):
            part = slice(head * tower.head_width, (head + 1) * tower.head_width)
            scores = q[:, part] @ k[:, part].T / np.sqrt(tower.head_width)
            shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed.append(shares / shares.sum(axis=-1, keepdims=True) @ v[:, part])
        return self._linear(np.concatenate(mixed, axis=-1), f"{prefix}.attn_out")


def _unit(x: Doubles) -> Doubles:
    result: Doubles = x / np.linalg.norm(x)
    return result
