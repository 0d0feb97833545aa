"""Small checkpoints with seeded random weights, in every layout that is read."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from benchmarks.synthetic import preprocessor_config
from sigrun.spm import TokenizerSpec
from sigrun_exporters.checkpoint import openclip, timm_towers
from sigrun_exporters.checkpoint.huggingface import source_name, source_shape
from sigrun_exporters.checkpoint.weights import Place
from sigrun_exporters.tokenizer import read_spiece, read_tokenizer_json
from sigrun_recipes import Architecture, ImageTower, TensorSpec, TextTower

ROOT = Path(__file__).parent.parent
EMOJI = ROOT / "examples" / "emoji_siglip" / "emoji-siglip-patch10-60"
GEMMA = ROOT / "tests" / "data" / "gemma_style"  # a small tokenizer of SigLIP 2's kind
EMOJI_VOCABULARY = json.loads((EMOJI / "config.json").read_text("utf-8"))["text_config"]["vocab_size"]

# Small, with the shape traps of SO400M: width a multiple of 32 but not of 256, an MLP that is a multiple of 16
# but not of 32, heads of an odd size, patches whose pixels are no multiple of 32, pixels left over at the edge.
TINY = Architecture(
    ImageTower(layers=2, width=96, heads=3, mlp=240, eps=1e-6, image_size=33, patch_size=10),
    TextTower(
        layers=2, width=96, heads=3, mlp=240, eps=1e-6, vocabulary=EMOJI_VOCABULARY, context=64, projection=96
    ),
)
# A SigLIP 2 with towers of two widths, as siglip2-giant-opt has.
SIGLIP2 = Architecture(
    ImageTower(layers=2, width=96, heads=3, mlp=240, eps=1e-6, image_size=33, patch_size=10),
    TextTower(layers=1, width=64, heads=2, mlp=160, eps=1e-6, vocabulary=1400, context=64, projection=96),
)
SMALL_TOWER = "vit_small_patch10_siglip_33"  # nobody publishes it
SMALL_TOWERS: dict[str, dict[str, Any]] = {
    SMALL_TOWER: {
        "img_size": 33,
        "patch_size": 10,
        "embed_dim": 96,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 2.5,
        "act_layer": "gelu_tanh",
    }
}
SMALL_IMAGE = ImageTower(layers=2, width=96, heads=3, mlp=240, eps=1e-6, image_size=33, patch_size=10)
SMALL_TEXT = TextTower(
    layers=2,
    width=64,
    heads=2,
    mlp=160,
    eps=1e-6,
    vocabulary=1400,
    context=64,
    projection=96,
    activation="gelu",
)


@cache
def gemma_spec(file: str = "tokenizer.model") -> TokenizerSpec:
    """The small tokenizer of SigLIP 2's kind, read from one of its two files."""
    if file == "tokenizer.model":
        return read_spiece(
            (GEMMA / file).read_bytes(),
            canonicalisation="lower",
            context=64,
            eos_id="<eos>",
            pad_id="<pad>",
            file=file,
        )
    return read_tokenizer_json(
        gemma_json(), canonicalisation="lower", context=64, eos_id="<eos>", pad_id="<pad>", control=("<bos>",)
    )


@cache
def gemma_json() -> bytes:
    """Its ``tokenizer.json``, as transformers converts it."""
    return gzip.decompress((GEMMA / "tokenizer.json.gz").read_bytes())


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


def values(architecture: Architecture, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Every tensor under its GGUF name."""
    rng = np.random.default_rng(seed)
    return {
        spec.name: rng.standard_normal(spec.shape, np.float32) * np.float32(spec.shape[-1] ** -0.5)
        for spec in architecture.tensors()
    }


def laid_out(
    architecture: Architecture, place: Callable[[TensorSpec], Place], seed: int = 0
) -> dict[str, NDArray[np.float32]]:
    """The same tensors under the names and in the shapes of another layout, parts stacked."""
    found: dict[str, NDArray[np.float32]] = {}
    ours = values(architecture, seed)
    for spec in architecture.tensors():
        there = place(spec)
        if there.part is None:
            found[there.name] = ours[spec.name].reshape(there.shape)
        else:
            whole = found.setdefault(there.name, np.full(there.shape, np.nan, np.float32))
            whole[there.part * spec.shape[0] : (there.part + 1) * spec.shape[0]] = ours[spec.name]
    return found


def write_siglip2(folder: Path, tokenizer: str = "tokenizer.model", seed: int = 0) -> Path:
    """Write a checkpoint in SigLIP 2's manner: Gemma's kind of tokenizer, pictures made smaller bilinearly."""
    write(folder, SIGLIP2, seed)
    (folder / "spiece.model").unlink()
    shutil.copy(GEMMA / "tokenizer_config.json", folder)
    if tokenizer == "tokenizer.model":
        shutil.copy(GEMMA / tokenizer, folder)
    else:
        (folder / tokenizer).write_bytes(gemma_json())
    change_json(folder / "preprocessor_config.json", resample=2)
    return folder


def write_split(folder: Path, source: Path) -> Path:
    """Write a Hugging Face checkpoint anew with its weights split over three files."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    home = {name: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in sorted(set(home.values())):
        save_file({n: tensors[n] for n, f in home.items() if f == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": home}), "utf-8"
    )
    return folder


def write_timm(folder: Path, seed: int = 0) -> Path:
    """Write an image tower the way timm does, made small by arguments."""
    folder.mkdir(parents=True)
    config = {
        "architecture": "vit_so400m_patch14_siglip_384",
        "num_classes": 0,
        "num_features": 96,
        "global_pool": "map",
        "model_args": {**SMALL_TOWERS[SMALL_TOWER], "global_pool": "map", "act_layer": "gelu"},
        "pretrained_cfg": {
            "input_size": [3, 33, 33],
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
        },
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    image = replace(SMALL_IMAGE, activation="gelu")
    tensors = laid_out(Architecture(image, None), lambda spec: timm_towers.place(spec, image), seed)
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_openclip(folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint the way OpenCLIP does. Its image tower has a name that tests must add to ours."""
    folder.mkdir(parents=True)
    text = SMALL_TEXT
    model = {
        "embed_dim": SMALL_IMAGE.width,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": SMALL_IMAGE.image_size,
            "timm_model_name": SMALL_TOWER,
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": text.context,
            "vocab_size": text.vocabulary,
            "hf_tokenizer_name": "timm/made-up",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "width": text.width,
            "heads": text.heads,
            "layers": text.layers,
            "mlp_ratio": text.mlp / text.width,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": text.eps},
        },
    }
    prepare = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": prepare}), "utf-8"
    )
    (folder / "tokenizer.json").write_bytes(gemma_json())
    shutil.copy(GEMMA / "tokenizer_config.json", folder)

    def place(spec: TensorSpec) -> Place:
        if spec.tower == "image":
            return timm_towers.place(spec, SMALL_IMAGE, "visual.trunk.")
        return openclip.text_place(spec)

    tensors = laid_out(Architecture(SMALL_IMAGE, text), place, seed)
    tensors |= {"logit_scale": np.array(2.5, np.float32), "logit_bias": np.array(-3.0, np.float32)}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def change_json(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; ``a__b`` is field ``b`` of object ``a``, and None takes a field away."""
    data = json.loads(path.read_text("utf-8"))
    for key, value in changes.items():
        *way, last = key.split("__")
        part = data
        for step in way:
            part = part[step]
        if value is None:
            part.pop(last, None)
        else:
            part[last] = value
    path.write_text(json.dumps(data), "utf-8")
