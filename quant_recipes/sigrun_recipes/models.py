"""Checkpoints that Sigrun knows by name, read from ``models.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources

from sigrun_recipes.architecture import Architecture


@dataclass(frozen=True)
class KnownModel:
    """A published checkpoint.

    Attributes:
        repo: its hub id.
        licence: its SPDX licence, lower case as the hub writes it.
        architecture: its towers.
        default: whether commands mean it when no model is named.
    """

    repo: str
    licence: str
    architecture: Architecture
    default: bool


def known() -> tuple[KnownModel, ...]:
    """All known checkpoints."""
    table = tomllib.loads(resources.files("sigrun_recipes").joinpath("models.toml").read_text("utf-8"))
    return tuple(
        KnownModel(m["repo"], m["licence"], Architecture.from_json(m), m.get("default", False))
        for m in table["models"]
    )


def default_model() -> KnownModel:
    """The checkpoint that commands mean when none is named."""
    return next(m for m in known() if m.default)
