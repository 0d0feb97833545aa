"""What an exporter needs of a checkpoint, whatever layout it came in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sigrun.manifest import Source
from sigrun.pixels import Preprocessing
from sigrun.scores import Scoring
from sigrun.tokens import TokenizerSpec
from sigrun_recipes import Architecture


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint, its tensors checked by name and shape but not yet read.

    Attributes:
        name: short name for files, such as ``siglip-so400m-patch14-384``.
        architecture: its towers.
        preprocessing: how pictures become pixel values.
        tokenizer: what cuts text into tokens; none without a text tower.
        scoring: logit scale and bias; none without both towers.
        read: one tensor by its GGUF name as float32 of the architecture's shape.
        source: where it came from; called once, it hashes the files.
        nbytes: bytes of its weights.
    """

    name: str
    architecture: Architecture
    preprocessing: Preprocessing
    tokenizer: TokenizerSpec | None
    scoring: Scoring | None
    read: Callable[[str], NDArray[np.float32]]
    source: Callable[[], Source]
    nbytes: int
