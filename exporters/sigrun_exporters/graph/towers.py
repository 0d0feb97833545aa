"""The two towers as ONNX graphs, written straight from the architecture.

Inside a tower the tokens of a batch lie in one matrix [batch * tokens, width]; only attention looks at
pictures or texts one by one. Batch is free everywhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigrun.manifest import Packing
from sigrun_exporters.graph.builder import MICROSOFT, GraphBuilder, Value
from sigrun_exporters.graph.linear import Form, linear
from sigrun_recipes import ImageTower, Plan, TextTower, TowerName
from sigrun_recipes.architecture import Tower


@dataclass(frozen=True)
class Graph:
    """A serialized graph and the weights it takes: tensor name → packing."""

    model: bytes
    weights: dict[str, Packing]

    @property
    def sha256(self) -> str:
        """Hash of the serialized graph."""
        return hashlib.sha256(self.model).hexdigest()


def build(plan: Plan, tower: TowerName, form: Form = "exact") -> Graph:
    """The graph of one tower in a compute form.

    The image graph takes ``pixel_values`` [batch, 3, size, size] and gives ``image_embeds`` [batch, width], unit
    length, and ``last_hidden_state`` [batch, tokens, width]. The text graph takes ``inputs_embeds``
    [batch, context, width], rows of the token table, and gives ``text_embeds`` [batch, projection], unit length.

    Raises:
        ValueError: the model has no such tower.
    """
    architecture = plan.architecture
    if tower == "image" and architecture.image is not None:
        return _ImageGraph(plan, architecture.image, form).finish()
    if tower == "text" and architecture.text is not None:
        return _TextGraph(plan, architecture.text, form).finish()
    raise ValueError(f"the model has no {tower} tower")


class _TowerGraph:
    """What both towers share: layers of attention and MLP on [n, width]."""

    def __init__(self, plan: Plan, tower: Tower, name: TowerName, tokens: int, form: Form) -> None:
        self.graph = GraphBuilder(f"siglip_{name}")
        self.plans = {t.spec.name: t for t in plan.of(name)}
        self.tower = tower
        self.tokens = tokens
        self.form = form

    def dense(self, name: str) -> Value:
        return self.graph.dense(name, self.plans[name].spec.shape)

    def linear(self, x: Value, prefix: str) -> Value:
        return linear(self.graph, x, self.plans[f"{prefix}.weight"], self.dense(f"{prefix}.bias"), self.form)

    def norm(self, x: Value, prefix: str) -> Value:
        return self.graph.node(
            "LayerNormalization",
            x,
            self.dense(f"{prefix}.weight"),
            self.dense(f"{prefix}.bias"),
            name=prefix,
            axis=-1,
            epsilon=self.tower.eps,
        )

    def mlp(self, x: Value, prefix: str) -> Value:
        hidden = self.linear(x, f"{prefix}.ffn_up")
        activated = self.graph.node("FastGelu", hidden, domain=MICROSOFT, name=f"{prefix}.gelu")
        return self.linear(activated, f"{prefix}.ffn_down")

    def attention(self, queries: Value, tokens: Value, prefix: str, query_count: int) -> Value:
        """Queries [b * query_count, width] attend over tokens [b * tokens, width] → [b * query_count, width].

        ``b`` of the queries is the batch, or 1 for the MAP head's probe, which every picture shares.
        """
        graph, heads, width = self.graph, self.tower.heads, self.tower.head_width
        q = self._heads(
            self.linear(queries, f"{prefix}.attn_q"), query_count, [0, 2, 1, 3]
        )  # [b, heads, query, width]
        k = self._heads(
            self.linear(tokens, f"{prefix}.attn_k"), self.tokens, [0, 2, 3, 1]
        )  # [b, heads, width, token]
        v = self._heads(
            self.linear(tokens, f"{prefix}.attn_v"), self.tokens, [0, 2, 1, 3]
        )  # [b, heads, token, width]
        scaled = graph.node("Mul", q, graph.constant(np.array(width**-0.5, np.float32)))
        shares = graph.node("Softmax", graph.node("MatMul", scaled, k), axis=-1)  # [b, heads, query, token]
        mixed = graph.node("Transpose", graph.node("MatMul", shares, v), perm=[0, 2, 1, 3])
        flat = graph.node("Reshape", mixed, graph.shape(-1, heads * width))
        return self.linear(flat, f"{prefix}.attn_out")

    def _heads(self, x: Value, tokens: int, order: list[int]) -> Value:
        split = self.graph.node(
            "Reshape", x, self.graph.shape(-1, tokens, self.tower.heads, self.tower.head_width)
        )
        return self.graph.node("Transpose", split, perm=order)

    def layers(self, x: Value, prefix: str) -> Value:
        for layer in range(self.tower.layers):
            block = f"{prefix}.blk.{layer}"
            normed = self.norm(x, f"{block}.ln1")
            x = self.graph.node("Add", x, self.attention(normed, normed, block, self.tokens))
            x = self.graph.node("Add", x, self.mlp(self.norm(x, f"{block}.ln2"), block))
        return x

    def embedding(self, x: Value, name: str, length: int) -> None:
        """Give x [batch, length] out at unit length."""
        self.graph.output(self.graph.node("LpNormalization", x, axis=-1, p=2), name, ("batch", length))

    def finish(self) -> Graph:
        return Graph(self.graph.build(), dict(self.graph.weights))


class _ImageGraph(_TowerGraph):
    def __init__(self, plan: Plan, tower: ImageTower, form: Form) -> None:
        super().__init__(plan, tower, "image", tower.tokens, form)
        graph, grid, patch = self.graph, tower.grid, tower.patch_size
        pixels: Any = graph.input("pixel_values", ("batch", 3, tower.image_size, tower.image_size))
        seen = grid * patch
        if seen != tower.image_size:  # pixels beyond the last whole patch are not seen
            pixels = graph.node(
                "Slice", pixels, graph.shape(0, 0), graph.shape(seen, seen), graph.shape(2, 3)
            )
        # [b, 3, row, y, column, x] → [b, row, column, 3, y, x]: each patch becomes one row of 3 * patch * patch
        cut = graph.node("Reshape", pixels, graph.shape(-1, 3, grid, patch, grid, patch))
        patches = graph.node(
            "Reshape",
            graph.node("Transpose", cut, perm=[0, 2, 4, 1, 3, 5]),
            graph.shape(-1, 3 * patch * patch),
        )
        x = self.positioned(self.linear(patches, "v.patch_embd"), "v.position_embd.weight")
        hidden = self.norm(self.layers(x, "v"), "v.post_ln")
        graph.output(
            graph.node("Reshape", hidden, graph.shape(-1, tower.tokens, tower.width)),
            "last_hidden_state",
            ("batch", tower.tokens, tower.width),
        )
        probe = graph.node("Reshape", self.dense("v.head.probe"), graph.shape(1, tower.width))
        pooled = self.attention(probe, hidden, "v.head", 1)  # [b, width]
        pooled = graph.node("Add", pooled, self.mlp(self.norm(pooled, "v.head.ln"), "v.head"))
        self.embedding(pooled, "image_embeds", tower.embedding)

    def positioned(self, x: Value, name: str) -> Value:
        """Add learned positions [tokens, width] to x [b * tokens, width]."""
        graph, width = self.graph, self.tower.width
        by_item = graph.node("Reshape", x, graph.shape(-1, self.tokens, width))
        return graph.node("Reshape", graph.node("Add", by_item, self.dense(name)), graph.shape(-1, width))


class _TextGraph(_TowerGraph):
    def __init__(self, plan: Plan, tower: TextTower, form: Form) -> None:
        super().__init__(plan, tower, "text", tower.tokens, form)
        graph = self.graph
        tokens = graph.input("inputs_embeds", ("batch", tower.context, tower.width))
        x = graph.node("Add", tokens, self.dense("t.position_embd.weight"))
        hidden = self.layers(graph.node("Reshape", x, graph.shape(-1, tower.width)), "t")
        by_text = graph.node("Reshape", hidden, graph.shape(-1, tower.context, tower.width))
        # Pooled at the last position, whatever token stands there; the final norm works on each token alone.
        last = graph.node("Gather", by_text, graph.constant(np.array(tower.context - 1, np.int64)), axis=1)
        self.embedding(self.linear(self.norm(last, "t.post_ln"), "t.head"), "text_embeds", tower.embedding)
