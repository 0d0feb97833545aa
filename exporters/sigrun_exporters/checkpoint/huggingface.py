"""Opens checkpoints laid out as Hugging Face ``SiglipModel`` folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import ArtifactError, CheckpointError
from sigrun.manifest import Source
from sigrun.pixels import Preprocessing
from sigrun.scores import Scoring
from sigrun_exporters.checkpoint.hub import Folder
from sigrun_exporters.checkpoint.model import Checkpoint
from sigrun_exporters.checkpoint.safetensors_file import SafetensorsFile
from sigrun_exporters.tokenizer import read_spiece
from sigrun_recipes import Architecture, ImageTower, TensorSpec, TextTower

WEIGHTS = "model.safetensors"
PICKLED = ("pytorch_model.bin", "model.pt", "model.pth", "open_clip_pytorch_model.bin")
MOST_LAYERS = 512
SETTINGS = {  # of preprocessor_config.json; where one is not given it is as here
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_center_crop": False,
    "do_pad": False,
    "resample": 3,
    "rescale_factor": 1 / 255,
}
PREFIX = {"image": "vision_model", "text": "text_model"}
_PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
_NAMES = {
    "v.patch_embd": "vision_model.embeddings.patch_embedding",
    "v.position_embd": "vision_model.embeddings.position_embedding",
    "v.post_ln": "vision_model.post_layernorm",
    "v.head.ln": "vision_model.head.layernorm",
    "v.head.attn_out": "vision_model.head.attention.out_proj",
    "v.head.ffn_up": "vision_model.head.mlp.fc1",
    "v.head.ffn_down": "vision_model.head.mlp.fc2",
    "t.token_embd": "text_model.embeddings.token_embedding",
    "t.position_embd": "text_model.embeddings.position_embedding",
    "t.post_ln": "text_model.final_layer_norm",
    "t.head": "text_model.head",
}
_STACKED = {"v.head.attn_q": 0, "v.head.attn_k": 1, "v.head.attn_v": 2}  # thirds of attention.in_proj


def open_huggingface(folder: Folder) -> Checkpoint:
    """Open a ``SiglipModel`` folder and check every tensor against the architecture its config describes.

    Raises:
        CheckpointError: a file is missing or damaged, the config is of another architecture, or a tensor is
            missing, superfluous or of a wrong shape or dtype.
    """
    config = _json(folder.path, "config.json")
    architecture = read_architecture(config, str(folder.path / "config.json"))
    weights = _open_weights(folder.path)
    _check(weights, architecture)
    assert architecture.image is not None and architecture.text is not None
    specs = {t.name: t for t in architecture.tensors()}

    def read(name: str) -> NDArray[np.float32]:
        spec = specs[name]
        source, part = source_name(spec)
        rows = None if part is None else slice(part * spec.shape[0], (part + 1) * spec.shape[0])
        values = weights.read(source, rows).reshape(spec.shape)
        if not np.isfinite(values).all():
            raise CheckpointError(
                f"{weights.path}: tensor '{source}' holds values that are not finite numbers"
            )
        return values

    tokenizer_config = _json(folder.path, "tokenizer_config.json")
    if tokenizer_config.get("tokenizer_class") not in ("SiglipTokenizer", "SiglipTokenizerFast"):
        raise CheckpointError(
            f"{folder.path / 'tokenizer_config.json'}: tokenizer_class is "
            f"{tokenizer_config.get('tokenizer_class')!r}; this version reads SiglipTokenizer"
        )
    spiece = folder.path / "spiece.model"
    try:
        model_proto = spiece.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{spiece}: cannot read the tokenizer: {error.strerror or error}") from error
    return Checkpoint(
        name=folder.model.rsplit("/", 1)[-1],
        architecture=architecture,
        preprocessing=read_preprocessing(folder.path, architecture.image),
        tokenizer=read_spiece(
            model_proto, canonicalisation="hf", context=architecture.text.context, eos_id=1, pad_id=1
        ),
        scoring=_scoring(weights),
        read=read,
        source=lambda: Source(
            model=folder.model,
            revision=folder.revision,
            licence=_licence(folder.path),
            files={name: _sha256(folder.path / name) for name in (WEIGHTS, "spiece.model")},
        ),
        nbytes=weights.nbytes,
    )


def read_architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """Both towers from a ``config.json``; fields it leaves out have the defaults of transformers' SiglipConfig."""
    kind = config.get("model_type")
    if kind != "siglip":
        raise CheckpointError(
            f"{where}: model_type is {kind!r}; Sigrun exports 'siglip' (image and text tower in one checkpoint)",
            hint="google/siglip-so400m-patch14-384 is the model this is made for",
        )
    vision = _part(config, "vision_config", where)
    text = _part(config, "text_config", where)
    for name, part in (("vision_config", vision), ("text_config", text)):
        act = part.get("hidden_act", "gelu_pytorch_tanh")
        if act != "gelu_pytorch_tanh":
            raise CheckpointError(f"{where}: {name}.hidden_act is {act!r}; SigLIP has 'gelu_pytorch_tanh'")
    if vision.get("num_channels", 3) != 3:
        raise CheckpointError(f"{where}: vision_config.num_channels is {vision['num_channels']}, not 3")
    if vision.get("vision_use_head", True) is not True:
        raise CheckpointError(
            f"{where}: vision_config.vision_use_head is false: there is no MAP head to export"
        )

    def whole(part: Mapping[str, Any], name: str, key: str, default: int) -> int:
        value = part.get(key, default)
        if type(value) is not int or not 0 < value < 2**31:
            raise CheckpointError(f"{where}: {name}.{key} must be a positive whole number, not {value!r}")
        return value

    def shared(part: Mapping[str, Any], name: str) -> dict[str, Any]:
        eps = part.get("layer_norm_eps", 1e-6)
        if not isinstance(eps, float) or not 0 < eps < 1:
            raise CheckpointError(f"{where}: {name}.layer_norm_eps must lie between 0 and 1, not {eps!r}")
        fields: dict[str, Any] = {
            "layers": whole(part, name, "num_hidden_layers", 12),
            "width": whole(part, name, "hidden_size", 768),
            "heads": whole(part, name, "num_attention_heads", 12),
            "mlp": whole(part, name, "intermediate_size", 3072),
            "eps": eps,
        }
        if fields["layers"] > MOST_LAYERS:
            raise CheckpointError(
                f"{where}: {name}.num_hidden_layers is {fields['layers']}, more than {MOST_LAYERS}"
            )
        if fields["width"] % fields["heads"]:
            raise CheckpointError(
                f"{where}: {name}: {fields['heads']} heads do not divide a width of {fields['width']}"
            )
        return fields

    image = ImageTower(
        **shared(vision, "vision_config"),
        image_size=whole(vision, "vision_config", "image_size", 224),
        patch_size=whole(vision, "vision_config", "patch_size", 16),
    )
    if image.patch_size > image.image_size:
        raise CheckpointError(f"{where}: vision_config: a patch of {image.patch_size} exceeds the picture")
    fields = shared(text, "text_config")
    projection = whole(text, "text_config", "projection_size", fields["width"])
    if projection != image.embedding:
        raise CheckpointError(
            f"{where}: text embeddings have {projection} numbers, image embeddings {image.embedding}: "
            "they could not be compared"
        )
    return Architecture(
        image,
        TextTower(
            **fields,
            vocabulary=whole(text, "text_config", "vocab_size", 32000),
            context=whole(text, "text_config", "max_position_embeddings", 64),
            projection=projection,
        ),
    )


def read_preprocessing(folder: Path, tower: ImageTower) -> Preprocessing:
    """How the checkpoint's ``preprocessor_config.json`` makes pixel values; other ways than SigLIP's are refused."""
    data = _json(folder, "preprocessor_config.json")
    where = folder / "preprocessor_config.json"
    size = data.get("size")
    if (
        not isinstance(size, dict)
        or size.get("height") != tower.image_size
        or size.get("width") != tower.image_size
    ):
        raise CheckpointError(
            f"{where}: size is {size!r}, but the image tower takes {tower.image_size} x {tower.image_size}"
        )
    for key, wanted in SETTINGS.items():
        if data.get(key, wanted) != wanted:
            raise CheckpointError(f"{where}: {key} is {data[key]!r}; this version does {wanted!r}")
    try:
        return Preprocessing.from_json(
            {
                "height": tower.image_size,
                "width": tower.image_size,
                "mean": data.get("image_mean", [0.5] * 3),
                "std": data.get("image_std", [0.5] * 3),
                "resample": "bicubic",
                "geometry": "squash",
            }
        )
    except ArtifactError as error:
        raise CheckpointError(f"{where}: {error.message}") from error


def source_name(spec: TensorSpec) -> tuple[str, int | None]:
    """The checkpoint's name of a tensor, and which third of it if it is part of a stacked one."""
    stem, _, leaf = spec.name.rpartition(".")
    if spec.name == "v.head.probe":
        return "vision_model.head.probe", None
    if stem in _STACKED:
        return f"vision_model.head.attention.in_proj_{leaf}", _STACKED[stem]
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{leaf}", None
    part = stem.rsplit(".", 1)[-1]
    return f"{PREFIX[spec.tower]}.encoder.layers.{spec.layer}.{_PARTS[part]}.{leaf}", None


def source_shape(spec: TensorSpec, tower: ImageTower | TextTower | None) -> tuple[int, ...]:
    """The shape that :func:`source_name`'s tensor has in the checkpoint."""
    _, part = source_name(spec)
    if part is not None:
        return (3 * spec.shape[0], *spec.shape[1:])
    if spec.name == "v.head.probe":
        return (1, 1, *spec.shape)
    if spec.kind == "patch" and isinstance(tower, ImageTower):
        return (tower.width, 3, tower.patch_size, tower.patch_size)
    return spec.shape


def _check(weights: SafetensorsFile, architecture: Architecture) -> None:
    expected: dict[str, tuple[int, ...]] = {"logit_scale": (1,), "logit_bias": (1,)}
    for spec in architecture.tensors():
        expected[source_name(spec)[0]] = source_shape(spec, architecture.tower(spec.tower))
    have = weights.entries
    missing = sorted(set(expected) - set(have))
    if missing:
        raise CheckpointError(
            f"{weights.path}: {len(missing)} of {len(expected)} tensors are missing, the first is '{missing[0]}'",
            hint="config.json may describe another checkpoint than model.safetensors",
        )
    superfluous = sorted(n for n in set(have) - set(expected) if not n.endswith("position_ids"))
    if superfluous:
        raise CheckpointError(
            f"{weights.path}: {len(superfluous)} tensors are not part of a SigLIP, the first is '{superfluous[0]}'"
        )
    for name, shape in expected.items():
        entry = have[name]
        scalar = name.startswith("logit_")
        if entry.shape != shape and not (scalar and entry.shape == ()):
            raise CheckpointError(
                f"{weights.path}: tensor '{name}' has shape {list(entry.shape)}, config.json asks for {list(shape)}"
            )
        if entry.dtype not in ("F32", "F16", "BF16"):
            raise CheckpointError(
                f"{weights.path}: tensor '{name}' is {entry.dtype}; Sigrun reads F32, F16 and BF16"
            )


def _open_weights(folder: Path) -> SafetensorsFile:
    path = folder / WEIGHTS
    if path.exists():
        return SafetensorsFile(path)
    for name in PICKLED:
        if (folder / name).exists():
            raise CheckpointError(
                f"{folder / name}: pickled checkpoints are refused, because opening one runs the code in it",
                hint=f"use the model's {WEIGHTS}, or save it again with save_pretrained(safe_serialization=True)",
            )
    if (folder / f"{WEIGHTS}.index.json").exists():
        raise CheckpointError(
            f"{folder}: the weights are split into several files, which this version does not read",
            hint=f"merge them into one {WEIGHTS}: save_pretrained(folder, max_shard_size='100GB')",
        )
    raise CheckpointError(f"{folder}: has no {WEIGHTS}")


def _scalar(weights: SafetensorsFile, name: str) -> float:
    value = float(weights.read(name).reshape(-1)[0])
    if not np.isfinite(value):
        raise CheckpointError(f"{weights.path}: {name} is not a finite number")
    return value


def _scoring(weights: SafetensorsFile) -> Scoring:
    try:
        return Scoring(_scalar(weights, "logit_scale"), _scalar(weights, "logit_bias"))
    except ArtifactError as error:
        raise CheckpointError(f"{weights.path}: {error.message}") from error


def _json(folder: Path, name: str) -> Mapping[str, Any]:
    path = folder / name
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: is not a file")
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot read: {error.strerror or error}",
            hint="a checkpoint folder holds "
            + ", ".join(
                ("config.json", "preprocessor_config.json", "tokenizer_config.json", "spiece.model", WEIGHTS)
            ),
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return data


def _part(config: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    part = config.get(name, {})
    if not isinstance(part, dict):
        raise CheckpointError(f"{where}: {name} is not an object")
    return part


def _licence(folder: Path) -> str | None:
    """The licence that the model card's front matter names."""
    try:
        lines = (folder / "README.md").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        key, _, value = line.partition(":")
        if key.strip() == "license":
            return value.strip() or None
    return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read: {error.strerror or error}") from error
