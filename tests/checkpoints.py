"""Small checkpoints with seeded random weights, written the way Hugging Face lays them out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from benchmarks.synthetic import preprocessor_config
from sigrun_exporters.checkpoint.huggingface import source_name, source_shape
from sigrun_recipes import Architecture, ImageTower, TextTower

ROOT = Path(__file__).parent.parent
EMOJI = ROOT / "examples" / "emoji_siglip" / "emoji-siglip-patch10-60"
EMOJI_VOCABULARY = json.loads((EMOJI / "config.json").read_text("utf-8"))["text_config"]["vocab_size"]

# Small, with the shape traps of SO400M: width a multiple of 32 but not of 256, an MLP that is a multiple of 16
# but not of 32, heads of an odd size, patches whose pixels are no multiple of 32, pixels left over at the edge.
TINY = Architecture(
    ImageTower(layers=2, width=96, heads=3, mlp=240, eps=1e-6, image_size=33, patch_size=10),
    TextTower(
        layers=2, width=96, heads=3, mlp=240, eps=1e-6, vocabulary=EMOJI_VOCABULARY, context=64, projection=96
    ),
)


def weights(architecture: Architecture, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a checkpoint under its Hugging Face name."""
    rng = np.random.default_rng(seed)
    found = {"logit_scale": np.array([2.5], np.float32), "logit_bias": np.array([-3.0], np.float32)}
    for spec in architecture.tensors():
        name, _ = source_name(spec)
        if name in found:
            continue
        shape = source_shape(spec, architecture.tower(spec.tower))
        values = rng.standard_normal(shape, np.float32)
        if spec.kind == "norm":
            values = values * np.float32(0.2) + np.float32(name.endswith("weight"))
        elif spec.kind in ("linear", "patch"):
            values *= np.float32(np.prod(shape[1:]) ** -0.5)
        else:
            values *= np.float32(0.3)
        found[name] = values
    return found


def settings(architecture: Architecture) -> dict[str, dict[str, object]]:
    """The JSON files of a checkpoint by name."""
    image, text = architecture.image, architecture.text
    assert image is not None and text is not None
    shared = [
        {
            "hidden_size": tower.width,
            "intermediate_size": tower.mlp,
            "num_attention_heads": tower.heads,
            "num_hidden_layers": tower.layers,
            "layer_norm_eps": tower.eps,
        }
        for tower in (image, text)
    ]
    return {
        "config.json": {
            "architectures": ["SiglipModel"],
            "model_type": "siglip",
            "vision_config": {**shared[0], "image_size": image.image_size, "patch_size": image.patch_size},
            "text_config": {
                **shared[1],
                "vocab_size": text.vocabulary,
                "max_position_embeddings": text.context,
                "projection_size": text.projection,
            },
        },
        "preprocessor_config.json": preprocessor_config(image),
    }


def write(folder: Path, architecture: Architecture = TINY, seed: int = 0) -> Path:
    """Write a checkpoint with the bundled model's tokenizer."""
    folder.mkdir(parents=True)
    for name, data in settings(architecture).items():
        (folder / name).write_text(json.dumps(data), "utf-8")
    for name in ("spiece.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(EMOJI / name, folder / name)
    save_file(weights(architecture, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
