"""Checkpoints that Sigrun knows by name, read from ``models.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from sigrun_recipes.architecture import Architecture


@dataclass(frozen=True)
class Reference:
    """Where a published figure is from: what it is, and an address that does not change."""

    title: str
    url: str


@dataclass(frozen=True)
class ZeroShot:
    """A published figure of zero-shot classification, of the checkpoint in full precision.

    Attributes:
        imagenet_top1: share of ImageNet-1k's validation pictures whose best label is right, in per cent.
        source: who says so.
        row: what the model is called there.
    """

    imagenet_top1: float
    source: Reference
    row: str


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
        family: which of Google's releases it belongs to: ``SigLIP`` or ``SigLIP 2``.
        multilingual: whether its texts may be in other languages than English.
        zero_shot: a published figure, if a source has one.
    """

    repo: str
    licence: str
    architecture: Architecture
    default: bool
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    tokenizer_bytes: int | None = None
    family: str = "SigLIP"
    multilingual: bool = False
    zero_shot: ZeroShot | None = None


def known() -> tuple[KnownModel, ...]:
    """All known checkpoints."""
    table = tomllib.loads(resources.files("sigrun_recipes").joinpath("models.toml").read_text("utf-8"))
    sources = {name: Reference(s["title"], s["url"]) for name, s in table["sources"].items()}
    return tuple(
        KnownModel(
            m["repo"],
            m["licence"],
            Architecture.from_json(m),
            m.get("default", False),
            m.get("revision"),
            m.get("files", {}),
            m.get("tokenizer_bytes"),
            m["family"],
            m["multilingual"],
            _zero_shot(m.get("zero_shot"), sources),
        )
        for m in table["models"]
    )


def _zero_shot(told: Mapping[str, Any] | None, sources: Mapping[str, Reference]) -> ZeroShot | None:
    return None if told is None else ZeroShot(told["imagenet_top1"], sources[told["source"]], told["row"])


def default_model() -> KnownModel:
    """The checkpoint that commands mean when none is named."""
    return next(m for m in known() if m.default)
