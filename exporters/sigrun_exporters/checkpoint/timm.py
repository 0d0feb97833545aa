"""Opens image towers laid out by timm, such as ``timm/vit_so400m_patch14_siglip_384``: no text tower, no scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sigrun_exporters.checkpoint import pictures, timm_towers
from sigrun_exporters.checkpoint.config import Config
from sigrun_exporters.checkpoint.files import read_json, source
from sigrun_exporters.checkpoint.hub import Folder
from sigrun_exporters.checkpoint.model import Checkpoint
from sigrun_exporters.checkpoint.weights import open_weights, reader
from sigrun_recipes import Architecture, ImageTower

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
HOLDS = f"{CONFIG}, {WEIGHTS}"


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is of timm's kind."""
    return "architecture" in config and "model_type" not in config


def open_timm(folder: Folder) -> Checkpoint:
    """Open a timm folder and check every tensor against the tower it names.

    Raises:
        CheckpointError: a file is missing or damaged, the tower is none of SigLIP's, or a tensor is missing,
            superfluous or of a wrong shape or dtype.
    """
    config = Config(read_json(folder.path, CONFIG, HOLDS), str(folder.path / CONFIG))
    if config.data.get("num_classes", 0) != 0:
        raise config.fail(
            "num_classes",
            f"is {config.data['num_classes']!r}: the tower was trained on to sort pictures into fixed classes, and its "
            "embeddings are no longer SigLIP's",
            hint="timm's towers whose names end in .webli or .v2_webli are SigLIP's own",
        )
    arguments = config.part("model_args")
    image: ImageTower = timm_towers.named_tower(config, "architecture", arguments)
    architecture = Architecture(image, None)
    weights = open_weights(folder.path, WEIGHTS)
    return Checkpoint(
        name=folder.model.rsplit("/", 1)[-1],
        architecture=architecture,
        preprocessing=pictures.from_timm(config.part("pretrained_cfg", needed=True), image),
        tokenizer=None,
        scoring=None,
        read=reader(weights, architecture, lambda spec: timm_towers.place(spec, image)),
        source=lambda: source(folder, weights.names),
        nbytes=weights.nbytes,
    )
