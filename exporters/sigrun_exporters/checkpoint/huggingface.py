"""Opens checkpoints laid out as Hugging Face ``SiglipModel`` folders: SigLIP, and SigLIP 2 at a fixed resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sigrun_exporters.checkpoint import pictures, texts
from sigrun_exporters.checkpoint.config import WAY_OUT, Config
from sigrun_exporters.checkpoint.files import read_json, source
from sigrun_exporters.checkpoint.hub import Folder
from sigrun_exporters.checkpoint.model import Checkpoint
from sigrun_exporters.checkpoint.weights import Place, open_weights, reader
from sigrun_recipes import Architecture, ImageTower, TensorSpec, TextTower

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
HOLDS = f"{CONFIG}, {PREPROCESSOR}, {texts.CONFIG}, spiece.model (or tokenizer.model), {WEIGHTS}"
PREFIX = {"image": "vision_model", "text": "text_model"}
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
_OTHERS = {
    "siglip2": "SigLIP 2 in its NaFlex form, which takes pictures of any shape; its fixed-resolution checkpoints, "
    "such as google/siglip2-so400m-patch14-384, are exported",
    "siglip_vision_model": "the image tower alone; timm publishes such towers in a form that is exported, such as "
    "timm/vit_so400m_patch14_siglip_384",
    "siglip_text_model": "the text tower alone",
    "paligemma": "a vision-language model, whose image tower has been trained on and has no head for embeddings",
    "llava": "a vision-language model, whose image tower has no head for embeddings",
    "idefics2": "a vision-language model, whose image tower has no head for embeddings",
    "idefics3": "a vision-language model, whose image tower has no head for embeddings",
    "clip": "CLIP, which is another architecture",
}
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
    path = folder.path
    architecture = read_architecture(read_json(path, CONFIG, HOLDS), str(path / CONFIG))
    image, text = architecture.image, architecture.text
    assert image is not None and text is not None
    weights = open_weights(path, WEIGHTS)

    def place(spec: TensorSpec) -> Place:
        name, part = source_name(spec)
        return Place(name, source_shape(spec, architecture.tower(spec.tower)), part)

    read = reader(weights, architecture, place, scalars=("logit_scale", "logit_bias"))
    prepared = Config(read_json(path, PREPROCESSOR, HOLDS), str(path / PREPROCESSOR))
    tokenizer, tokenizer_file = texts.of_huggingface(path, text)
    return Checkpoint(
        name=folder.model.rsplit("/", 1)[-1],
        architecture=architecture,
        preprocessing=pictures.from_huggingface(prepared, image),
        tokenizer=tokenizer,
        scoring=weights.scoring(),
        read=read,
        source=lambda: source(folder, (*weights.names, tokenizer_file)),
        nbytes=weights.nbytes,
    )


def read_architecture(data: Mapping[str, Any], where: str) -> Architecture:
    """Both towers from a ``config.json``; fields it leaves out have the defaults of transformers' SiglipConfig."""
    config = Config(data, where)
    kind = data.get("model_type")
    if kind != "siglip":
        raise config.fail(
            "model_type",
            f"is {kind!r}, {_OTHERS.get(str(kind), 'another architecture')}; Sigrun exports 'siglip' (image and "
            "text tower in one checkpoint)",
            hint=WAY_OUT,
        )
    vision, text = config.part("vision_config"), config.part("text_config")
    for part in (vision, text):
        act = part.text("hidden_act", "gelu_pytorch_tanh")
        if act not in _ACTIVATIONS:
            raise part.fail("hidden_act", f"is {act!r}; SigLIP has 'gelu_pytorch_tanh'")
    vision.must_be({"num_channels": 3})
    if vision.data.get("vision_use_head", True) is not True:
        raise vision.fail("vision_use_head", "is false: there is no MAP head to export", hint=WAY_OUT)
    image = ImageTower(
        **_shared(vision),
        image_size=vision.whole("image_size", 224),
        patch_size=vision.whole("patch_size", 16),
    )
    if image.patch_size > image.image_size:
        raise vision.fail("patch_size", f"is {image.patch_size}, more than the picture has")
    fields = _shared(text)
    projection = text.whole("projection_size", fields["width"])
    if projection != image.embedding:
        raise text.fail(
            "projection_size",
            f"makes text embeddings of {projection} numbers, image embeddings have {image.embedding}: they could "
            "not be compared",
        )
    return Architecture(
        image,
        TextTower(
            **fields,
            vocabulary=text.whole("vocab_size", 32000),
            context=text.whole("max_position_embeddings", 64),
            projection=projection,
        ),
    )


def _shared(part: Config) -> dict[str, Any]:
    return {
        **part.tower(
            layers=part.whole("num_hidden_layers", 12),
            width=part.whole("hidden_size", 768),
            heads=part.whole("num_attention_heads", 12),
        ),
        "mlp": part.whole("intermediate_size", 3072),
        "eps": part.number("layer_norm_eps", 1e-6, 0, 1),
        "activation": _ACTIVATIONS[part.data.get("hidden_act", "gelu_pytorch_tanh")],
    }


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
