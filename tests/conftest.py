"""Artifacts that many tests share, exported once a run."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import tests.torchvision_without_cuda  # noqa: F401  # before anything that imports torchvision
from sigrun_exporters.checkpoint import open_checkpoint
from sigrun_exporters.export import Exported, Settings, export
from sigrun_recipes import Recipe, load
from tests import checkpoints

os.environ["SIGRUN_CACHE"] = "off"  # no test, nor a process that one starts, touches the user's cache

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell, whose children would not hear the interrupts that tests send them.
    signal.signal(signal.SIGINT, signal.default_int_handler)

UNVERIFIED = Settings(verify=False)
"""For tests of something else than the verification."""


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
    return export(
        open_checkpoint(str(tiny)), roomy("q4_k_m"), tmp_path_factory.mktemp("models"), UNVERIFIED
    ).path


@pytest.fixture(scope="session")
def emoji_variant(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """The bundled trained model as any variant, verified, as a GGUF file and as ONNX files."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def variant(name: str) -> Exported:
        settings = Settings(formats=("gguf", "onnx"))
        return export(open_checkpoint(str(checkpoints.EMOJI)), load(name), folder, settings)

    return variant


@pytest.fixture(scope="session")
def emoji_f32(emoji_variant: Callable[[str], Exported]) -> Path:
    """The bundled trained model, every number as it is."""
    return emoji_variant("f32").path


@pytest.fixture(scope="session")
def emoji_q4(emoji_variant: Callable[[str], Exported]) -> Path:
    """The bundled trained model as Q4_K_M."""
    return emoji_variant("q4_k_m").path
