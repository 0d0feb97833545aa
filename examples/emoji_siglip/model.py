"""The architecture: transformers' SiglipModel at 3.1 M parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from examples.emoji_siglip.augment import IMAGE
from examples.emoji_siglip.tokenizer import CONTEXT, VOCABULARY

if TYPE_CHECKING:
    from transformers import SiglipConfig, SiglipModel

WIDTH = 160
MLP = 752
"""23.5 x 32, as SO400M's 4304 is 134.5 x 32."""
HEADS = 4
IMAGE_LAYERS = 5
TEXT_LAYERS = 2
PATCH = 10


def build_config() -> SiglipConfig:
    """The configuration of the model."""
    from transformers import SiglipConfig

    tower = {"hidden_size": WIDTH, "intermediate_size": MLP, "num_attention_heads": HEADS}
    text = {
        "vocab_size": VOCABULARY,
        "num_hidden_layers": TEXT_LAYERS,
        "max_position_embeddings": CONTEXT,
        "projection_size": WIDTH,
    }
    vision = {"num_hidden_layers": IMAGE_LAYERS, "image_size": IMAGE, "patch_size": PATCH}
    return SiglipConfig(text_config={**tower, **text}, vision_config={**tower, **vision})


def build_model(seed: int, scale: float = 10.0, bias: float = -8.0) -> SiglipModel:
    """A fresh model with small random weights."""
    from transformers import SiglipModel

    torch.manual_seed(seed)
    model = SiglipModel(build_config())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embedding" not in name:
                torch.nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
            elif name.endswith("patch_embedding.weight"):
                torch.nn.init.normal_(weight, std=1 / math.sqrt(3 * PATCH * PATCH))
            elif "embedding" in name and weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.1 if "position" in name else 0.3)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(weight)
        for layer in (*model.text_model.encoder.layers, *model.vision_model.encoder.layers):
            layer.self_attn.out_proj.weight.mul_(0.3)
            layer.mlp.fc2.weight.mul_(0.3)
        model.logit_scale.fill_(math.log(scale))
        model.logit_bias.fill_(bias)
    return model
