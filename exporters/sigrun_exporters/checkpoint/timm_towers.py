"""timm's SigLIP image towers: what their names stand for, and how timm lays out their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sigrun_exporters.checkpoint.config import Config
from sigrun_exporters.checkpoint.weights import Place
from sigrun_recipes import ImageTower, TensorSpec

EPS: Final = 1e-6  # of every norm of timm's ViT
_SIZES: Final = {  # width, layers, heads, MLP width by share of the width
    "base": (768, 12, 12, 4.0),
    "large": (1024, 24, 16, 4.0),
    "so400m": (1152, 27, 16, 3.7362),
    "giantopt": (1536, 40, 16, 4.0),
}
_TANH: Final = {  # towers that timm runs with GELU's tanh approximation; the others with GELU itself
    ("base", 32, 256),
    ("large", 16, 512),
    ("so400m", 16, 256),
    ("so400m", 16, 384),
    ("so400m", 16, 512),
    ("giantopt", 16, 256),
    ("giantopt", 16, 384),
}
_PUBLISHED: Final = (
    *(("base", 16, side) for side in (224, 256, 384, 512)),
    ("base", 32, 256),
    *(("large", 16, side) for side in (256, 384, 512)),
    *(("so400m", 14, side) for side in (224, 378, 384)),
    *(("so400m", 16, side) for side in (256, 384, 512)),
    *(("giantopt", 16, side) for side in (256, 384)),
)


def _arguments(size: str, patch: int, side: int) -> Mapping[str, Any]:
    width, layers, heads, share = _SIZES[size]
    return {
        "img_size": side,
        "patch_size": patch,
        "embed_dim": width,
        "depth": layers,
        "num_heads": heads,
        "mlp_ratio": share,
        "act_layer": "gelu_tanh" if (size, patch, side) in _TANH else "gelu",
    }


TOWERS: dict[str, Mapping[str, Any]] = {
    f"vit_{size}_patch{patch}_siglip_{side}": _arguments(size, patch, side)
    for size, patch, side in _PUBLISHED
}
"""Name → the arguments of timm's VisionTransformer, of towers with a MAP head."""

_FIXED: Final = {
    "class_token": False,
    "global_pool": "map",
    "num_classes": 0,
    "in_chans": 3,
    "qkv_bias": True,
    "dynamic_img_size": False,
}
_ONLY_FOR_TRAINING: Final = (
    "drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "proj_drop_rate",
    "attn_drop_rate",
)
_PARTS: Final = {
    "attn_out": "attn.proj",
    "ln1": "norm1",
    "ln2": "norm2",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
_NAMES: Final = {
    "v.patch_embd": "patch_embed.proj",
    "v.post_ln": "norm",
    "v.head.ln": "attn_pool.norm",
    "v.head.attn_q": "attn_pool.q",
    "v.head.attn_out": "attn_pool.proj",
    "v.head.ffn_up": "attn_pool.mlp.fc1",
    "v.head.ffn_down": "attn_pool.mlp.fc2",
}
_STACKED: Final = {"attn_q": 0, "attn_k": 1, "attn_v": 2}  # thirds of attn.qkv
_HEAD_STACKED: Final = {"v.head.attn_k": 0, "v.head.attn_v": 1}  # halves of attn_pool.kv


def named_tower(config: Config, key: str, arguments: Config | None = None) -> ImageTower:
    """The tower whose name ``config`` gives under ``key``, changed by timm's own ``arguments``.

    Raises:
        CheckpointError: it is none of SigLIP's with a MAP head, or an argument makes it another architecture.
    """
    name = config.text(key)
    known = TOWERS.get(name.partition(".")[0])
    if known is None:
        why = (
            "which averages its tokens and has no MAP head, so its embeddings are not SigLIP's"
            if "siglip_gap" in name
            else "which is none of timm's SigLIP towers with a MAP head"
        )
        raise config.fail(
            key, f"is {name!r}, {why}", hint="such as vit_so400m_patch14_siglip_384; see timm's siglip models"
        )
    part = arguments or Config({}, config.where, "model_args")
    part.only((*known, *_FIXED, *_ONLY_FOR_TRAINING))
    part.must_be({key: value for key, value in _FIXED.items() if part.data.get(key) is not None})
    chosen = Config({**known, **{k: v for k, v in part.data.items() if v is not None}}, part.where, part.name)
    activation = chosen.data["act_layer"]
    if activation not in ("gelu", "gelu_tanh"):
        raise chosen.fail("act_layer", f"is {activation!r}; Sigrun has 'gelu' and 'gelu_tanh'")
    width = chosen.whole("embed_dim")
    tower = ImageTower(
        **chosen.tower(layers=chosen.whole("depth"), width=width, heads=chosen.whole("num_heads")),
        mlp=int(width * chosen.number("mlp_ratio", None, 0, 64)),
        eps=EPS,
        image_size=chosen.side("img_size"),
        patch_size=chosen.side("patch_size"),
        activation="gelu_tanh" if activation == "gelu_tanh" else "gelu",
    )
    if tower.patch_size > tower.image_size or not tower.mlp:
        raise chosen.fail("patch_size", f"is {tower.patch_size}, more than the picture has")
    return tower


def place(spec: TensorSpec, tower: ImageTower, prefix: str = "") -> Place:
    """Where timm keeps a tensor of the image tower, its names behind ``prefix``."""
    stem, _, leaf = spec.name.rpartition(".")
    if spec.name == "v.head.probe":
        return Place(f"{prefix}attn_pool.latent", (1, 1, *spec.shape))
    if stem == "v.position_embd":
        return Place(f"{prefix}pos_embed", (1, *spec.shape))
    if spec.kind == "patch":
        return Place(f"{prefix}{_NAMES[stem]}.{leaf}", (tower.width, 3, tower.patch_size, tower.patch_size))
    if stem in _HEAD_STACKED:
        return Place(
            f"{prefix}attn_pool.kv.{leaf}", (2 * spec.shape[0], *spec.shape[1:]), _HEAD_STACKED[stem]
        )
    if stem in _NAMES:
        return Place(f"{prefix}{_NAMES[stem]}.{leaf}", spec.shape)
    part = stem.rsplit(".", 1)[-1]
    block = f"{prefix}blocks.{spec.layer}"
    if part in _STACKED:
        return Place(f"{block}.attn.qkv.{leaf}", (3 * spec.shape[0], *spec.shape[1:]), _STACKED[part])
    return Place(f"{block}.{_PARTS[part]}.{leaf}", spec.shape)
