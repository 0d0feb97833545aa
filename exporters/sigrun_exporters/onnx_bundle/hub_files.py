"""The JSON files beside the graphs in the layout of the Hugging Face hub, from an export's manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sigrun.manifest import Manifest
from sigrun.spm import TokenizerSpec, model_proto
from sigrun_exporters.onnx_bundle.tokenizer_json import tokenizer_json

_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
_ACTIVATION = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu"}


def config(
    manifest: Manifest, tokenizer: TokenizerSpec | None, dtype: str, chunks: Mapping[str, int]
) -> bytes:
    """``config.json``.

    Args:
        manifest: what the export says of itself.
        tokenizer: what cuts text into tokens, if the model takes text.
        dtype: what transformers.js calls the files' kind.
        chunks: model file → number of data files beside it, where there are any.
    """
    towers = manifest.architecture
    vision, text = _vision(towers.get("image")), _text(towers.get("text"), tokenizer)
    hosts: dict[str, Any] = {"dtype": dtype}
    if chunks:
        hosts["use_external_data_format"] = dict(chunks)
    whole: dict[str, Any]
    if vision is not None and text is not None:
        whole = {
            "architectures": ["SiglipModel"],
            "model_type": "siglip",
            "text_config": text,
            "vision_config": vision,
        }
    elif vision is not None:
        whole = {"architectures": ["SiglipVisionModel"], **vision}
    else:
        whole = {"architectures": ["SiglipTextModel"], **(text or {})}
    return _json({**whole, "torch_dtype": "float32", "transformers.js_config": hosts})


def _tower(tower: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": tower["width"],
        "intermediate_size": tower["mlp"],
        "num_attention_heads": tower["heads"],
        "num_hidden_layers": tower["layers"],
        "layer_norm_eps": tower["eps"],
        "hidden_act": _ACTIVATION[tower.get("activation", "gelu_tanh")],
    }


def _vision(tower: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if tower is None:
        return None
    sizes = {"image_size": tower["image_size"], "patch_size": tower["patch_size"], "num_channels": 3}
    return {"model_type": "siglip_vision_model", **_tower(tower), **sizes}


def _text(tower: Mapping[str, Any] | None, tokenizer: TokenizerSpec | None) -> dict[str, Any] | None:
    if tower is None or tokenizer is None:
        return None
    return {
        "model_type": "siglip_text_model",
        **_tower(tower),
        "vocab_size": tower["vocabulary"],
        "max_position_embeddings": tower["context"],
        "projection_size": tower["projection"],
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }


def preprocessor_config(manifest: Manifest, *, text: bool) -> bytes:
    """``preprocessor_config.json``, for models with and without a text tower."""
    preprocessing = manifest.preprocessing
    size = {"height": preprocessing.height, "width": preprocessing.width}
    content: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(preprocessing.mean),
        "image_processor_type": "SiglipImageProcessor",
        "image_std": list(preprocessing.std),
        "resample": _RESAMPLE[preprocessing.resample],
        "rescale_factor": 1 / 255,
        "size": size,
    }
    if preprocessing.short_side is not None:  # SigLIP's own processor cannot crop
        content |= {
            "crop_size": size,
            "do_center_crop": True,
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": preprocessing.short_side},
        }
    return _json(content | ({"processor_class": "SiglipProcessor"} if text else {}))


def tokenizer_files(tokenizer: TokenizerSpec) -> dict[str, bytes]:
    """The tokenizer's files by name: of transformers' SiglipTokenizer, or of GemmaTokenizer for SigLIP 2's kind."""
    roles = {"eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id, "unk_token": tokenizer.unk_id}
    siglip = tokenizer.kind == "unigram"
    tokens = {role: _special(tokenizer, token, strips=siglip) for role, token in roles.items()}
    settings: dict[str, Any] = {
        "added_tokens_decoder": {
            str(token): {**tokens[role], "special": True} for role, token in roles.items()
        },
        "additional_special_tokens": [],
        "clean_up_tokenization_spaces": siglip,
        **{role: token["content"] for role, token in tokens.items()},
        "model_input_names": ["input_ids"],
        "model_max_length": tokenizer.context,
        "processor_class": "SiglipProcessor",
        "sp_model_kwargs": {},
        "tokenizer_class": "SiglipTokenizer" if siglip else "GemmaTokenizer",
    }
    if siglip:
        settings["do_lower_case"] = tokenizer.canonicalisation != "none"
    else:
        settings |= {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    return {
        "special_tokens_map.json": _json(tokens),
        "spiece.model" if siglip else "tokenizer.model": model_proto(tokenizer),
        "tokenizer.json": tokenizer_json(tokenizer),
        "tokenizer_config.json": _json(settings),
    }


def _special(tokenizer: TokenizerSpec, token: int, *, strips: bool) -> dict[str, Any]:
    return {
        "content": tokenizer.pieces[token],
        "lstrip": strips,
        "normalized": False,
        "rstrip": strips,
        "single_word": False,
    }


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")
