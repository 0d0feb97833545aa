"""timm and OpenCLIP, and small SigLIPs of theirs. Needs the extra ``reference``."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

import tests.torchvision_without_cuda  # noqa: F401


@cache
def timm() -> ModuleType:
    """The library timm, with the small towers of this module registered."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm as library
        from timm.models.vision_transformer import VisionTransformer

    def register(name: str, arguments: dict[str, Any]) -> None:
        from timm.models import build_model_with_cfg, register_model

        def create(pretrained: bool = False, **kwargs: Any) -> Any:
            return build_model_with_cfg(
                VisionTransformer, name, pretrained, **{**arguments, "class_token": False, **kwargs}
            )

        create.__name__ = name
        register_model(create)

    for name, arguments in SMALL.items():
        register(name, {**arguments, "global_pool": "map"})
    return library


@cache
def open_clip() -> ModuleType:
    """The library OpenCLIP."""
    timm()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import open_clip as library
        import open_clip.push_to_hf_hub
    return library


SMALL: dict[str, dict[str, Any]] = {
    # SO400M's widths, one layer, few patches.
    "vit_so400m_patch14_siglip_56": {
        "img_size": 56,
        "patch_size": 14,
        "embed_dim": 1152,
        "depth": 1,
        "num_heads": 16,
        "mlp_ratio": 3.7362,
        "act_layer": "gelu",
    },
    "vit_small_patch16_siglip_64": {
        "img_size": 64,
        "patch_size": 16,
        "embed_dim": 192,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 4.0,
        "act_layer": "gelu_tanh",
    },
}
"""Towers that nobody publishes, of a size for tests: name → arguments of timm's VisionTransformer."""


def randomise(model: Any, seed: int) -> Any:
    """Seeded weights of a size that leaves no part of the model without effect."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if name.endswith("logit_scale"):
                value.fill_(2.5)
            elif name.endswith("logit_bias"):
                value.fill_(-3.0)
            elif "norm" in name or ".ln" in name:
                value.copy_(drawn * 0.2 + name.endswith("weight"))
            elif value.ndim >= 2 and not any(part in name for part in ("embed", "latent", "probe", "pos")):
                value.copy_(drawn * value[0].numel() ** -0.5)
            else:
                value.copy_(drawn * 0.3)
    return model.eval()


def pictures() -> list[Image.Image]:
    """Noise in the shapes that preparing pictures may get wrong."""
    rng = np.random.default_rng(3)
    sizes = [(40, 90), (64, 64), (56, 56), (151, 60), (61, 62), (9, 5), (201, 300)]
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]


TEXTS = [
    "Red apple!",
    "a fire engine, at NIGHT",
    "owl",
    "x " * 90,
    "The quick brown fox jumps over 13 lazy dogs",
    "snow_man without snow?",
]


def folder_of(parent: Path, name: str) -> Path:
    """A new folder."""
    path = parent / name
    path.mkdir(parents=True)
    return path
