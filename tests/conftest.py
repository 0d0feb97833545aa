"""Artifacts that many tests share, exported once a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import export
from sigrun_recipes import Recipe, load
from tests import checkpoints


def roomy(name: str) -> Recipe:
    """A recipe without its limit: in a model this small the f32 norms and biases outweigh the matrices."""
    return dataclasses.replace(load(name), max_bits_per_weight=32.0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with random weights."""
    return checkpoints.write(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_q4(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random checkpoint as Q4_K_M."""
    return export(open_checkpoint(str(tiny)), roomy("q4_k_m"), tmp_path_factory.mktemp("models")).path


@pytest.fixture(scope="session")
def emoji_f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled trained model, every number as it is."""
    return export(
        open_checkpoint(str(checkpoints.EMOJI)), load("f32"), tmp_path_factory.mktemp("models")
    ).path


@pytest.fixture(scope="session")
def emoji_q4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled trained model as Q4_K_M."""
    return export(
        open_checkpoint(str(checkpoints.EMOJI)), load("q4_k_m"), tmp_path_factory.mktemp("models")
    ).path
