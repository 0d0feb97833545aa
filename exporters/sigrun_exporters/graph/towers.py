"""The two towers as ONNX graphs, written straight from the architecture.

Inside a tower the tokens of a batch lie in one matrix [batch * tokens, width]; only attention looks at
pictures or texts one by one. Batch is free everywhere.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from sigrun.manifest import Packing, StoredGraph
from sigrun.nbits import Pieces
from sigrun_exporters.graph.builder import MICROSOFT, GraphBuilder, Value
from sigrun_exporters.graph.linear import Form, linear, packed, piece
from sigrun_recipes import MULTIPLIED, ImageTower, Plan, TextTower, TowerName, cuts
from sigrun_recipes.architecture import Tower


@dataclass(frozen=True)
class Graph:
    """A serialized graph and the weights it takes.

    Attributes:
        model: the serialized graph.
        weights: tensor name → packing.
        pieces: matrices that are taken in pieces.
    """

    model: bytes
    weights: dict[str, Packing]
    pieces: dict[str, Pieces]

    @property
    def stored(self) -> StoredGraph:
        """The graph as a manifest lists it."""
        return StoredGraph(self.sha256, self.weights, self.pieces)

    @property
    def sha256(self) -> str:
        """Hash of the serialized graph."""
        return hashlib.sha256(self.model).hexdigest()


Graphs = Mapping[TowerName, Mapping[Form, Graph]]
"""Tower → compute form → graph."""


def build(
    plan: Plan, tower: TowerName, form: Form = "exact", *, exact: frozenset[str] = frozenset()
) -> Graph:
    """The graph of one tower in a compute form.

    The image graph takes ``pixel_values`` [batch, 3, size, size] and gives ``image_embeds`` [batch, width], unit
    length, and ``last_hidden_state`` [batch, tokens, width]. The text graph takes ``inputs_embeds``
    [batch, context, width], rows of the token table, and gives ``text_embeds`` [batch, projection], unit length.

    Args:
        plan: the export.
        tower: ``image`` or ``text``.
        form: the compute form.
        exact: names of matrices that are multiplied in float32 though the form would round them.

    Raises:
        ValueError: the model has no such tower, or ``exact`` names what the form does not round.
    """
    parts = tower_parts(plan, tower, form, GraphBuilder(f"siglip_{tower}"), exact=exact)
    x = parts.stem()
    for layer in range(parts.tower.layers):
        x = parts.block(x, layer)
    parts.head(x)
    return Graph(parts.graph.build(), dict(parts.graph.weights), dict(parts.graph.pieces))


def tower_parts(
    plan: Plan, tower: TowerName, form: Form, graph: GraphBuilder, *, exact: frozenset[str] = frozenset()
) -> TowerParts:
    """The parts of a tower, to be added to ``graph``: :meth:`TowerParts.stem`, ``block`` for each layer, ``head``.

    Raises:
        ValueError: as for :func:`build`.
    """
    if unknown := exact - plan.rounded(tower, form):
        raise ValueError(
            f"no matrices of the {tower} tower that form {form} rounds: {', '.join(sorted(unknown))}"
        )
    architecture = plan.architecture
    if tower == "image" and architecture.image is not None:
        return ImageParts(plan, architecture.image, form, graph, exact)
    if tower == "text" and architecture.text is not None:
        return TextParts(plan, architecture.text, form, graph, exact)
    raise ValueError(f"the model has no {tower} tower")


class TowerParts(ABC):
    """What both towers share: layers of attention and MLP on [n, width].

    The forms with float16 use it within a layer's attention and within its MLP. What flows from layer to layer and is
    added to, the layer norms, and all before and after the layers stay float32.
    """

    prefix: str

    def __init__(
        self,
        plan: Plan,
        tower: Tower,
        name: TowerName,
        form: Form,
        graph: GraphBuilder,
        exact: frozenset[str],
    ) -> None:
        self.graph = graph
        self.plans = {t.spec.name: t for t in plan.of(name)}
        self.tower = tower
        self.form = form
        self.reduced = plan.rounded(name, form) - exact
        matrices = (t for t in plan.of(name) if t.spec.kind in MULTIPLIED)
        self.pieces = cuts(tower, packed(matrices, form, self.reduced))
        # Matrix of a linear layer → the rows it is multiplied with; of one that is not dealt to groups.
        self.observed: dict[str, Value] = {}

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Tokens of one item."""

    @abstractmethod
    def stem(self) -> Value:
        """From the tower's input to the first layer's: [batch * tokens, width]."""

    @abstractmethod
    def head(self, x: Value) -> None:
        """From the last layer's output [batch * tokens, width] to the tower's outputs."""

    def block(self, x: Value, layer: int) -> Value:
        """One layer: [batch * tokens, width] to the same."""
        block = f"{self.prefix}.blk.{layer}"
        normed = self.norm(x, f"{block}.ln1")
        x = self._add(x, self.attention(normed, block))
        return self._add(x, self.mlp(self.norm(x, f"{block}.ln2"), block))

    def _add(self, x: Value, change: Value) -> Value:
        return self.graph.node("Add", x, self.graph.cast(change, "float32"))

    def dense(self, name: str) -> Value:
        return self.graph.dense(name, self.plans[name].spec.shape)

    def linear(self, x: Value, prefix: str) -> Value:
        self.observed[f"{prefix}.weight"] = x
        weight, bias = self.plans[f"{prefix}.weight"], self.plans[f"{prefix}.bias"]
        name = weight.spec.name
        axis, count = self.pieces.get(name, ("outputs", 1))
        assert axis == "outputs"  # a matrix that is cut by its inputs takes them from groups
        return linear(self.graph, x, weight, bias, self.form, reduced=name in self.reduced, count=count)

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
        """Each token on its own through the hidden units, where they are cut one group of them after the other."""
        up, down = f"{prefix}.ffn_up", f"{prefix}.ffn_down"
        groups = self._groups(down)
        if groups == 1:
            return self.linear(self._gelu(self.linear(x, up), prefix), down)
        return self._summed((self._gelu(self._piece(x, up, at), prefix) for at in range(groups)), down)

    def attention(self, x: Value, prefix: str) -> Value:
        """The tokens of an item attend to one another: [b * tokens, width] to the same."""
        names = [f"{prefix}.attn_{part}" for part in "qkv"]
        out = f"{prefix}.attn_out"
        groups = self._groups(out)
        if groups == 1:
            parts = [self.linear(x, name) for name in names]
            if not all(self.graph.is_half(part) for part in parts):
                parts = [self.graph.cast(part, "float32") for part in parts]
            return self.linear(self._attended(parts, 1), out)
        return self._summed(
            (self._attended([self._piece(x, name, at) for name in names], groups) for at in range(groups)),
            out,
        )

    def _attended(self, parts: Sequence[Value], groups: int) -> Value:
        """Queries, keys and values [b * tokens, width / groups] of a group of heads to what they mix to, likewise.

        One operator, which keeps products and softmax in float32 and never holds the shares of all tokens.
        """
        width = self.tower.width // groups
        shape = self.graph.shape(-1, self.tokens, width)
        by_item = (self.graph.node("Reshape", part, shape) for part in parts)
        mixed = self.graph.node(
            "MultiHeadAttention", *by_item, domain=MICROSOFT, num_heads=self.tower.heads // groups
        )  # [b, token, width / groups]
        return self.graph.node("Reshape", mixed, self.graph.shape(-1, width))

    def _gelu(self, x: Value, prefix: str) -> Value:
        gelu = {"gelu_tanh": "FastGelu", "gelu": "Gelu"}[self.tower.activation]
        return self.graph.node(gelu, x, domain=MICROSOFT, name=f"{prefix}.gelu")

    def _groups(self, prefix: str) -> int:
        """How many groups a matrix's inputs come in, one after the other."""
        axis, count = self.pieces.get(f"{prefix}.weight", ("outputs", 1))
        return count if axis == "inputs" else 1

    def _piece(self, x: Value, prefix: str, number: int) -> Value:
        name = f"{prefix}.weight"
        return piece(
            self.graph, x, self.plans[name], self.plans[f"{prefix}.bias"], Pieces(*self.pieces[name]), number
        )

    def _summed(self, groups: Iterable[Value], prefix: str) -> Value:
        """The sum over groups of a matrix's inputs, each of which comes as [n, inputs / groups]: [n, outputs]."""
        # The sums stand last: where each follows its group, ONNX Runtime's arena takes 15 MB more for a picture.
        parts = [self._piece(x, prefix, number) for number, x in enumerate(groups)]
        return reduce(lambda total, part: self.graph.node("Add", total, part), parts)

    def embedding(self, x: Value, name: str, length: int) -> None:
        """Give x [batch, length] out at unit length."""
        self.graph.output(self.graph.node("LpNormalization", x, axis=-1, p=2), name, ("batch", length))


class ImageParts(TowerParts):
    """The image tower: patches, layers, MAP head."""

    prefix = "v"

    def __init__(
        self, plan: Plan, tower: ImageTower, form: Form, graph: GraphBuilder, exact: frozenset[str]
    ) -> None:
        super().__init__(plan, tower, "image", form, graph, exact)
        self.image = tower

    @property
    def tokens(self) -> int:
        return self.image.tokens

    def stem(self) -> Value:
        """``pixel_values`` to patch tokens with their positions."""
        graph, grid, patch, side = self.graph, self.image.grid, self.image.patch_size, self.image.image_size
        pixels: Value = graph.input("pixel_values", ("batch", 3, side, side))
        seen = grid * patch
        if seen != side:  # pixels beyond the last whole patch are not seen
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
        return self._positioned(self.linear(patches, "v.patch_embd"), "v.position_embd.weight")

    def head(self, x: Value) -> None:
        """Final norm, then the probe attends over the tokens: ``last_hidden_state`` and ``image_embeds``."""
        graph, width = self.graph, self.tower.width
        hidden = self.norm(x, "v.post_ln")
        graph.output(
            graph.node("Reshape", hidden, graph.shape(-1, self.tokens, width)),
            "last_hidden_state",
            ("batch", self.tokens, width),
        )
        probe = graph.node("Reshape", self.dense("v.head.probe"), graph.shape(1, width))
        pooled = self._probed(probe, hidden, "v.head")  # [b, width]
        pooled = graph.node("Add", pooled, self.mlp(self.norm(pooled, "v.head.ln"), "v.head"))
        self.embedding(pooled, "image_embeds", self.image.embedding)

    def _probed(self, probe: Value, tokens: Value, prefix: str) -> Value:
        """The probe [1, width], which every picture shares, attends over tokens [b * tokens, width]: [b, width]."""
        graph = self.graph
        q, k, v = (
            self.linear(x, f"{prefix}.attn_{part}")
            for x, part in ((probe, "q"), (tokens, "k"), (tokens, "v"))
        )
        q = self._heads(q, 1, [0, 2, 1, 3])  # [1, heads, 1, width]
        k = self._heads(k, self.tokens, [0, 2, 3, 1])  # [b, heads, width, token]
        v = self._heads(v, self.tokens, [0, 2, 1, 3])  # [b, heads, token, width]
        scaled = graph.node("Mul", q, graph.constant(np.array(self.tower.head_width**-0.5, np.float32)))
        shares = graph.node("Softmax", graph.node("MatMul", scaled, k), axis=-1)  # [b, heads, 1, token]
        mixed = graph.node("Transpose", graph.node("MatMul", shares, v), perm=[0, 2, 1, 3])
        return self.linear(
            graph.node("Reshape", mixed, graph.shape(-1, self.tower.width)), f"{prefix}.attn_out"
        )

    def _heads(self, x: Value, tokens: int, order: list[int]) -> Value:
        split = self.graph.node(
            "Reshape", x, self.graph.shape(-1, tokens, self.tower.heads, self.tower.head_width)
        )
        return self.graph.node("Transpose", split, perm=order)

    def _positioned(self, x: Value, name: str) -> Value:
        """Add learned positions [tokens, width] to x [b * tokens, width]."""
        graph, width = self.graph, self.tower.width
        by_item = graph.node("Reshape", x, graph.shape(-1, self.tokens, width))
        return graph.node("Reshape", graph.node("Add", by_item, self.dense(name)), graph.shape(-1, width))


class TextParts(TowerParts):
    """The text tower: rows of the token table, layers, the last position, a linear head."""

    prefix = "t"

    def __init__(
        self, plan: Plan, tower: TextTower, form: Form, graph: GraphBuilder, exact: frozenset[str]
    ) -> None:
        super().__init__(plan, tower, "text", form, graph, exact)
        self.text = tower

    @property
    def tokens(self) -> int:
        return self.text.context

    def stem(self) -> Value:
        """``inputs_embeds`` with their positions."""
        graph, tower = self.graph, self.text
        tokens = graph.input("inputs_embeds", ("batch", tower.context, tower.width))
        x = graph.node("Add", tokens, self.dense("t.position_embd.weight"))
        return graph.node("Reshape", x, graph.shape(-1, tower.width))

    def head(self, x: Value) -> None:
        """The last position, its norm and projection: ``text_embeds``."""
        graph, tower = self.graph, self.text
        by_text = graph.node("Reshape", x, graph.shape(-1, tower.context, tower.width))
        # Pooled at the last position, whatever token stands there; the final norm works on each token alone.
        last = graph.node("Gather", by_text, graph.constant(np.array(tower.context - 1, np.int64)), axis=1)
        self.embedding(self.linear(self.norm(last, "t.post_ln"), "t.head"), "text_embeds", tower.projection)
