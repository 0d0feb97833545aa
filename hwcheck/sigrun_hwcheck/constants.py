"""The part of a prediction that no file tells: constants, measured or estimated, in ``constants.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

FORMAT = 1

Provider = Literal["cpu", "cuda"]
Handover = Literal["copied", "shared", "moved"]
"""What a session does with the arrays it is given. ``copied``: it holds a copy, and the arrays are let go of once
it stands; ``shared``: it works on them, and packs dense matrices besides; ``moved``: they go to a device."""

Source = Literal["exact", "measured", "estimated"]
"""How a figure is known. ``exact``: follows from the bytes of the file; ``measured``: on a machine of ours;
``estimated``: computed from the model's shape, or taken from what others report."""


@dataclass(frozen=True)
class Range:
    """A number of bytes with bounds: ``low_bytes <= best_bytes <= high_bytes``."""

    low_bytes: int
    best_bytes: int
    high_bytes: int

    @classmethod
    def exactly(cls, nbytes: int) -> Range:
        """A figure without doubt."""
        return cls(nbytes, nbytes, nbytes)

    def at_most(self, nbytes: int) -> Range:
        """The range cut off at a number of bytes."""
        return Range(min(self.low_bytes, nbytes), min(self.best_bytes, nbytes), min(self.high_bytes, nbytes))

    def __add__(self, other: Range) -> Range:
        return Range(
            self.low_bytes + other.low_bytes,
            self.best_bytes + other.best_bytes,
            self.high_bytes + other.high_bytes,
        )


@dataclass(frozen=True)
class Constant:
    """A range of bytes and how it is known."""

    bytes: Range
    source: Source


@dataclass(frozen=True)
class Factor:
    """Bounds on a factor, and how it is known."""

    low: float
    best: float
    high: float
    source: Source

    def of(self, nbytes: int) -> Range:
        """The factor applied to a computed number of bytes."""
        return Range(round(nbytes * self.low), round(nbytes * self.best), round(nbytes * self.high))


@dataclass(frozen=True)
class Constants:
    """What a provider costs.

    Attributes:
        label: the provider in words.
        micro_batch_tokens: the runtime cuts a batch into parts of at most so many tokens.
        handover: what a session does with the arrays it is given.
        runtime: once a process: the interpreter and its libraries, or a card's context.
        session: once a tower.
        mapped: pages of the file in work while a tower is unpacked.
        retained: share of the unpacked arrays that is not given back when they are freed.
        activations: factor on the computed peak of live activations.
    """

    label: str
    micro_batch_tokens: int
    handover: Handover
    runtime: Constant
    session: Constant
    mapped: Constant
    retained: Factor
    activations: Factor


@cache
def constants(provider: Provider) -> Constants:
    """The constants of a provider."""
    table = tomllib.loads(resources.files("sigrun_hwcheck").joinpath("constants.toml").read_text("utf-8"))
    if table["format"] != FORMAT:
        raise ValueError(f"constants.toml: format is {table['format']!r}; this version reads format {FORMAT}")
    entry = table[provider]
    return Constants(
        label=entry["label"],
        micro_batch_tokens=entry["micro_batch_tokens"],
        handover=entry["handover"],
        runtime=_constant(entry["runtime"]),
        session=_constant(entry["session"]),
        mapped=_constant(entry["mapped"]),
        retained=_factor(entry["retained"]),
        activations=_factor(entry["activations"]),
    )


def _constant(entry: dict[str, Any]) -> Constant:
    return Constant(Range(entry["low_bytes"], entry["best_bytes"], entry["high_bytes"]), entry["source"])


def _factor(entry: dict[str, Any]) -> Factor:
    return Factor(entry["low"], entry["best"], entry["high"], entry["source"])
