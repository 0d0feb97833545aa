"""A tower in form int8: run on a fixed batch, with or without a file of its matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sigrun.artifact import Artifact
from sigrun.int8 import largest
from sigrun.manifest import TowerName
from sigrun.prepared import Matrices
from sigrun.sessions import TowerSession

Floats = NDArray[np.float32]


def batch(artifact: Artifact, tower: TowerName) -> Floats:
    rng = np.random.default_rng(3)
    if tower == "image":
        side = artifact.manifest.preprocessing.height
        return rng.uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
    text = artifact.manifest.architecture["text"]
    ids = rng.integers(0, text["vocabulary"], (2, text["context"]))
    return artifact.token_rows(ids)


def embed(artifact: Artifact, cache: Path | None, tower: TowerName = "image") -> Floats:
    return TowerSession(artifact, tower, "int8", 2, cache=cache).embed(batch(artifact, tower))


def no_file(*_: object) -> None:
    """Stands for ``prepare`` where no disk takes the file."""


def matrices(artifact: Artifact, tower: TowerName = "image", most: int | None = None) -> Matrices:
    weights = artifact.manifest.graphs[tower]["int8"].weights
    return Matrices(artifact, [n for n, p in weights.items() if p == "int8"], most or largest(), 2)
