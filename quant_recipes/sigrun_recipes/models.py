"""Checkpoints that Sigrun knows by name, read from ``models.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        revision: the commit that ``files`` are of.
        files: SHA-256 of its files by name, as far as they are known.
        tokenizer_bytes: what its tokenizer takes in a GGUF file, if that is known.
    """

    repo: str
    licence: str
    architecture: Architecture
    default: bool
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    tokenizer_bytes: int | None = None


def known() -> tuple[KnownModel, ...]:
    """All known checkpoints."""
    table = tomllib.loads(resources.files("sigrun_recipes").joinpath("models.toml").read_text("utf-8"))
    return tuple(
        KnownModel(
            m["repo"],
            m["licence"],
            Architecture.from_json(m),
            m.get("default", False),
            m.get("revision"),
            m.get("files", {}),
            m.get("tokenizer_bytes"),
        )
        for m in table["models"]
    )


def default_model() -> KnownModel:
    """The checkpoint that commands mean when none is named."""
    return next(m for m in known() if m.default)
