"""Opens checkpoints laid out by OpenCLIP, such as ``timm/ViT-SO400M-14-SigLIP-384``.

The image tower is timm's under ``visual.trunk.``, the text tower OpenCLIP's own TextTransformer under ``text.``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigrun.errors import CheckpointError
from sigrun_exporters.checkpoint import pictures, texts, timm_towers
from sigrun_exporters.checkpoint.config import Config
from sigrun_exporters.checkpoint.files import read_json, source
from sigrun_exporters.checkpoint.hub import Folder
from sigrun_exporters.checkpoint.model import Checkpoint
from sigrun_exporters.checkpoint.weights import Place, open_weights, reader
from sigrun_recipes import Architecture, TensorSpec, TextTower
from sigrun_recipes.architecture import Activation

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
HOLDS = f"{CONFIG}, {texts.CONFIG}, {texts.JSON}, {WEIGHTS}"
SIGLIP = "timm/ViT-SO400M-14-SigLIP-384 is such a checkpoint"
_MODEL = ("embed_dim", "init_logit_bias", "init_logit_scale", "custom_text", "vision_cfg", "text_cfg")
_VISION = ("image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj")
_TEXT = {  # what else a SigLIP's text tower is, where it is not OpenCLIP's default
    "no_causal_mask": True,
    "pool_type": "last",
}
_DEFAULTS = {  # settings of OpenCLIP's TextTransformer that must be as they are when left out
    "embed_cls": False,
    "use_pad_mask": False,
    "output_tokens": False,
    "quick_gelu": False,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
_READ = [
    "context_length",
    "vocab_size",
    "hf_tokenizer_name",
    "tokenizer_kwargs",
    "width",
    "heads",
    "layers",
    "mlp_ratio",
    "proj_type",
    "proj_bias",
    "norm_kwargs",
    "act_kwargs",
    "pad_id",
    "eos_id",
]
_PARTS = {
    "attn_out": "attn.out_proj",
    "ln1": "ln_1",
    "ln2": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_STACKED = {"attn_q": 0, "attn_k": 1, "attn_v": 2}  # thirds of attn.in_proj


def is_openclip(folder: Path) -> bool:
    """Whether to read a folder as OpenCLIP's: it has the config, and the weights too or no other config."""
    whole = any(folder.glob("open_clip_model*.safetensors"))
    return (folder / CONFIG).exists() and (whole or not (folder / "config.json").exists())


def open_openclip(folder: Folder) -> Checkpoint:
    """Open an OpenCLIP folder and check every tensor against the architecture its config describes.

    Raises:
        CheckpointError: a file is missing or damaged, the config is of another architecture, or a tensor is
            missing, superfluous or of a wrong shape or dtype.
    """
    path = folder.path
    config = Config(read_json(path, CONFIG, HOLDS), str(path / CONFIG))
    model = config.part("model_cfg", needed=True)
    architecture = read_architecture(model)
    image, text = architecture.image, architecture.text
    assert image is not None and text is not None
    weights = open_weights(path, WEIGHTS)
    if "logit_bias" not in weights.entries:
        raise CheckpointError(
            f"{weights.path}: has no logit_bias, so the model was trained as a CLIP, not as a SigLIP",
            hint=SIGLIP,
        )

    def place(spec: TensorSpec) -> Place:
        if spec.tower == "image":
            return timm_towers.place(spec, image, "visual.trunk.")
        return text_place(spec)

    read = reader(
        weights,
        architecture,
        place,
        config=CONFIG,
        scalars=("logit_scale", "logit_bias"),
        buffers=(".attn_mask",),
        made=_left_out(model, text),
    )
    tokenizer, tokenizer_file = texts.of_openclip(path, text)
    return Checkpoint(
        name=folder.model.rsplit("/", 1)[-1],
        architecture=architecture,
        preprocessing=pictures.from_openclip(config.part("preprocess_cfg"), image),
        tokenizer=tokenizer,
        scoring=weights.scoring(),
        read=read,
        source=lambda: source(folder, (*weights.names, tokenizer_file)),
        nbytes=weights.nbytes,
    )


def read_architecture(model: Config) -> Architecture:
    """Both towers from the ``model_cfg`` of an ``open_clip_config.json``."""
    vision, text = model.part("vision_cfg", needed=True), model.part("text_cfg", needed=True)
    if "timm_model_name" not in vision.data:
        raise vision.fail(
            "timm_model_name", "is missing: the image tower is CLIP's own, not SigLIP's", hint=SIGLIP
        )
    if "hf_model_name" in text.data:
        raise text.fail(
            "hf_model_name", f"is {text.data['hf_model_name']!r}: the text tower is not SigLIP's", SIGLIP
        )
    model.only(_MODEL)
    model.must_be({"custom_text": True})
    vision.only(_VISION)
    image = timm_towers.named_tower(vision, "timm_model_name")
    for key, wanted in {"timm_pool": "map", "timm_proj": "none"}.items():
        if vision.data.get(key) != wanted:
            raise vision.fail(key, f"is {vision.data.get(key)!r}; SigLIP's is {wanted!r}", hint=SIGLIP)
    if vision.side("image_size") != image.image_size:
        raise vision.fail(
            "image_size", f"is {vision.data['image_size']!r}, but the tower takes {image.image_size}"
        )
    projection = model.whole("embed_dim")
    if projection != image.embedding:
        raise model.fail(
            "embed_dim",
            f"is {projection}, image embeddings have {image.embedding}: they could not be compared",
        )
    return Architecture(image, _text_tower(text, projection))


def _text_tower(text: Config, projection: int) -> TextTower:
    text.only((*_READ, *_TEXT, *_DEFAULTS))
    text.must_be(_DEFAULTS)
    for key, wanted in _TEXT.items():
        if text.data.get(key) != wanted:
            raise text.fail(key, f"is {text.data.get(key)!r}; SigLIP's is {wanted!r}", hint=SIGLIP)
    if not text.data.get("hf_tokenizer_name"):
        raise text.fail(
            "hf_tokenizer_name", "is missing: texts would go through CLIP's tokenizer", hint=SIGLIP
        )
    cleaning = text.part("tokenizer_kwargs")
    cleaning.only(("clean",))
    if cleaning.data.get("clean") != "canonicalize":
        raise cleaning.fail(
            "clean", f"is {cleaning.data.get('clean')!r}; SigLIP's is 'canonicalize'", hint=SIGLIP
        )
    norm, act = text.part("norm_kwargs"), text.part("act_kwargs")
    norm.only(("eps",))
    act.only(("approximate",))
    approximate = act.data.get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise act.fail("approximate", f"is {approximate!r}; known are 'none' and 'tanh'")
    activation: Activation = "gelu_tanh" if approximate == "tanh" else "gelu"
    width = text.whole("width", 512)
    tower = TextTower(
        **text.tower(layers=text.whole("layers", 12), width=width, heads=text.whole("heads", 8)),
        mlp=int(width * text.number("mlp_ratio", 4.0, 1 / width, 64)),
        eps=norm.number("eps", 1e-5, 0, 1),
        vocabulary=text.whole("vocab_size", 49408),
        context=text.whole("context_length", 77),
        projection=projection,
        activation=activation,
    )
    if _has_head(text):
        if text.data.get("proj_bias") is not True:
            raise text.fail("proj_bias", f"is {text.data.get('proj_bias')!r}; SigLIP's is true", hint=SIGLIP)
    elif width != projection:
        raise text.fail(
            "proj_type", f"is 'none', but texts have a width of {width} and embeddings {projection}"
        )
    return tower


def _has_head(text: Config) -> bool:
    kind = text.data.get("proj_type", "linear")
    if kind not in ("linear", "none"):
        raise text.fail("proj_type", f"is {kind!r}; known are 'linear' and 'none'")
    return bool(kind == "linear")


def _left_out(model: Config, tower: TextTower) -> dict[str, NDArray[np.float32]]:
    """The head that changes nothing, of checkpoints without one (SO400M i18n)."""
    if _has_head(model.part("text_cfg")):
        return {}
    return {
        "t.head.weight": np.eye(tower.projection, dtype=np.float32),
        "t.head.bias": np.zeros(tower.projection, np.float32),
    }


def text_place(spec: TensorSpec) -> Place:
    """Where OpenCLIP keeps a tensor of the text tower."""
    stem, _, leaf = spec.name.rpartition(".")
    whole = {
        "t.token_embd": f"text.token_embedding.{leaf}",
        "t.position_embd": "text.positional_embedding",
        "t.post_ln": f"text.ln_final.{leaf}",
        "t.head": f"text.text_projection.{leaf}",
    }
    if stem in whole:
        return Place(whole[stem], spec.shape)
    part = stem.rsplit(".", 1)[-1]
    block = f"text.transformer.resblocks.{spec.layer}"
    if part in _STACKED:
        return Place(f"{block}.attn.in_proj_{leaf}", (3 * spec.shape[0], *spec.shape[1:]), _STACKED[part])
    return Place(f"{block}.{_PARTS[part]}.{leaf}", spec.shape)
