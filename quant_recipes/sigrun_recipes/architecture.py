"""The shape of a SigLIP model: its two towers and every tensor they hold.

A model is an image tower (a ViT without class token, pooled by a MAP head: one learned probe attends over
the patch tokens) and a text tower (a Transformer without mask, pooled at the last position, then a linear
head), tied by two scalars, ``logit_scale`` and ``logit_bias``.

Tensor names follow llama.cpp's clip files: ``v.blk.0.attn_q.weight``, ``t.token_embd.weight``;
``ffn_up`` is fc1, ``ffn_down`` is fc2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

TowerName = Literal["image", "text"]
TOWERS: tuple[TowerName, ...] = ("image", "text")

Kind = Literal["linear", "token", "patch", "position", "probe", "norm", "bias"]
"""What a tensor does. Only ``linear``, ``token`` and ``patch`` are matrices worth quantizing."""

MULTIPLIED: tuple[Kind, ...] = ("linear", "patch")
"""Kinds of weights that are matrices to multiply by; ONNX Runtime lays dense ones out anew for its kernels."""

Activation = Literal["gelu_tanh", "gelu"]
"""Between the two matrices of an MLP: GELU by its tanh approximation, as SigLIP was trained, or GELU itself."""

KINDS: tuple[Kind, ...] = ("linear", "token", "patch", "position", "probe", "norm", "bias")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a tower.

    Attributes:
        name: its name in a GGUF file.
        shape: matrices are [rows (outputs), columns (inputs)].
        kind: what it does.
        tower: where it belongs.
        layer: the Transformer layer, or ``None`` outside the blocks.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    tower: TowerName
    layer: int | None = None

    @property
    def size(self) -> int:
        """Number of weights."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True)
class Tower:
    """What both towers share."""

    layers: int
    width: int
    heads: int
    mlp: int
    eps: float
    activation: Activation = field(default="gelu_tanh", kw_only=True)

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads


@dataclass(frozen=True)
class ImageTower(Tower):
    """A ViT with a MAP head. Pictures are ``image_size`` square, cut into ``patch_size`` squares."""

    image_size: int
    patch_size: int

    @property
    def grid(self) -> int:
        """Patches along one side; pixels beyond the last whole patch are not seen."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Patch tokens of one picture."""
        return self.grid**2

    @property
    def embedding(self) -> int:
        """Length of the image embedding."""
        return self.width


@dataclass(frozen=True)
class TextTower(Tower):
    """A Transformer over ``context`` tokens, always padded to that length."""

    vocabulary: int
    context: int
    projection: int

    @property
    def tokens(self) -> int:
        """Tokens of one text."""
        return self.context

    @property
    def embedding(self) -> int:
        """Length of the text embedding."""
        return self.projection


@dataclass(frozen=True)
class Architecture:
    """Both towers of a model; either may be missing."""

    image: ImageTower | None
    text: TextTower | None

    def tower(self, name: TowerName) -> ImageTower | TextTower | None:
        """The tower called ``name``."""
        return self.image if name == "image" else self.text

    def tensors(self) -> Iterator[TensorSpec]:
        """Every tensor, in file order: image tower, then text tower."""
        if self.image is not None:
            yield from _image_tensors(self.image)
        if self.text is not None:
            yield from _text_tensors(self.text)

    def parameters(self, tower: TowerName) -> int:
        """Number of weights of one tower, without the two scalars."""
        return sum(t.size for t in self.tensors() if t.tower == tower)

    def with_mlp_multiple(self, multiple: int) -> Architecture:
        """The same model with each MLP width rounded up to a multiple."""
        image, text = self.image, self.text
        if image is not None:
            image = replace(image, mlp=-(-image.mlp // multiple) * multiple)
        if text is not None:
            text = replace(text, mlp=-(-text.mlp // multiple) * multiple)
        return Architecture(image, text)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary, as the manifest holds it."""
        return {name: asdict(tower) for name in TOWERS if (tower := self.tower(name)) is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Architecture:
        """The inverse of :meth:`to_json`. Raises ``TypeError`` on missing or unknown fields."""
        image, text = data.get("image"), data.get("text")
        return cls(
            ImageTower(**image) if image is not None else None,
            TextTower(**text) if text is not None else None,
        )


def _block_tensors(prefix: str, tower: Tower, name: TowerName, layer: int | None) -> Iterator[TensorSpec]:
    """Attention and MLP as they appear in every layer and, without ln2, in the MAP head."""
    width, mlp = tower.width, tower.mlp

    def matrix(part: str, rows: int, columns: int) -> Iterator[TensorSpec]:
        yield TensorSpec(f"{prefix}.{part}.weight", (rows, columns), "linear", name, layer)
        yield TensorSpec(f"{prefix}.{part}.bias", (rows,), "bias", name, layer)

    for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
        yield from matrix(part, width, width)
    yield from matrix("ffn_up", mlp, width)
    yield from matrix("ffn_down", width, mlp)


def _norm(prefix: str, width: int, name: TowerName, layer: int | None = None) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{prefix}.weight", (width,), "norm", name, layer)
    yield TensorSpec(f"{prefix}.bias", (width,), "norm", name, layer)


def _layers(prefix: str, tower: Tower, name: TowerName) -> Iterator[TensorSpec]:
    for layer in range(tower.layers):
        block = f"{prefix}.blk.{layer}"
        yield from _norm(f"{block}.ln1", tower.width, name, layer)
        yield from _block_tensors(block, tower, name, layer)
        yield from _norm(f"{block}.ln2", tower.width, name, layer)


def _image_tensors(tower: ImageTower) -> Iterator[TensorSpec]:
    patch = (tower.width, 3 * tower.patch_size**2)  # columns in the order channel, row, column
    yield TensorSpec("v.patch_embd.weight", patch, "patch", "image")
    yield TensorSpec("v.patch_embd.bias", (tower.width,), "bias", "image")
    yield TensorSpec("v.position_embd.weight", (tower.tokens, tower.width), "position", "image")
    yield from _layers("v", tower, "image")
    yield from _norm("v.post_ln", tower.width, "image")
    yield TensorSpec("v.head.probe", (tower.width,), "probe", "image")
    yield from _norm("v.head.ln", tower.width, "image")
    yield from _block_tensors("v.head", tower, "image", None)


def _text_tensors(tower: TextTower) -> Iterator[TensorSpec]:
    yield TensorSpec("t.token_embd.weight", (tower.vocabulary, tower.width), "token", "text")
    yield TensorSpec("t.position_embd.weight", (tower.context, tower.width), "position", "text")
    yield from _layers("t", tower, "text")
    yield from _norm("t.post_ln", tower.width, "text")
    yield TensorSpec("t.head.weight", (tower.projection, tower.width), "linear", "text")
    yield TensorSpec("t.head.bias", (tower.projection,), "bias", "text")
