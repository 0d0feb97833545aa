"""The part of a prediction that no file tells: constants, measured or estimated, in ``constants.toml``.

A table belongs to a provider, a version of ONNX Runtime, a system and an instruction set (on a card: a compute
capability). Elsewhere its measured figures are estimates, and their high end is raised.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.stored import Form

FORMAT = 4
ELSEWHERE = 1.25
"""What the high end is raised by where a table was measured under other conditions."""

Provider = Literal["cpu", "cuda"]
Handover = Literal["shared", "moved"]
"""What a session does with the arrays it is given. ``shared``: it works on them, and lays dense matrices out anew
besides; ``moved``: they go to a device."""

Source = Literal["exact", "measured here", "measured", "estimated"]
"""How a figure is known. ``exact``: follows from the bytes of the file; ``measured here``: on this machine, with
this file; ``measured``: on a machine of ours under the same conditions; ``estimated``: computed from the model's shape,
or measured elsewhere."""


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

    def or_more(self, other: Range) -> Range:
        """The larger of both, bound by bound."""
        return Range(
            max(self.low_bytes, other.low_bytes),
            max(self.best_bytes, other.best_bytes),
            max(self.high_bytes, other.high_bytes),
        )

    def __add__(self, other: Range) -> Range:
        return Range(
            self.low_bytes + other.low_bytes,
            self.best_bytes + other.best_bytes,
            self.high_bytes + other.high_bytes,
        )


@dataclass(frozen=True)
class Factor:
    """Bounds on a factor, and how it is known. A constant number of bytes is a factor on 1."""

    low: float
    best: float
    high: float
    source: Source

    def of(self, nbytes: int) -> Range:
        """The factor applied to a number of bytes."""
        return Range(round(nbytes * self.low), round(nbytes * self.best), round(nbytes * self.high))

    def elsewhere(self) -> Factor:
        """The same under other conditions than it was measured."""
        if self.source != "measured":
            return self
        return replace(self, high=self.high * ELSEWHERE, source="estimated")


@dataclass(frozen=True)
class FormConstants:
    """What a compute form costs.

    Attributes:
        activations: factor on the activations that the session's memory holds places for.
        workspace: factor on the largest quantized matrix as float32, or piece of one, which MatMulNBits decodes.
        lost: factor on the same, or on the largest piece if that is less: heaps hold it at other places besides.
        retained: factor on small dense arrays: what of them is left once they are laid out anew.
        converted: factor on float16 scales: what else a provider without float16 makes of them.
        rounding: factor on the largest int8 matrix and the threads: what rounding and writing them leaves.
        reading: the same where the matrices are in the cache.
    """

    activations: Factor
    workspace: Factor
    lost: Factor
    retained: Factor
    converted: Factor
    rounding: Factor
    reading: Factor


@dataclass(frozen=True)
class Constants:
    """What a provider costs.

    Attributes:
        provider: its name.
        label: the same in words.
        conditions: under which the figures were measured.
        same: whether they are the ones asked for.
        micro_batch_tokens: the runtime cuts a batch into parts of at most so many tokens.
        alone: compute forms in which each item runs alone.
        handover: what a session does with the arrays it is given.
        runtime: once a process: the interpreter and its libraries, or a card's context.
        session: once a tower.
        layer: for each layer of a tower: its share of graph and manifest, and what lies lost between arrays.
        pieces: for each piece of a matrix that is multiplied in pieces: its share of the graph.
        libraries: pages of libraries that are first needed when a tower is loaded.
        kernels: pages of libraries that are first needed when a tower runs.
        vocabulary: for each piece of the vocabulary, once a file is open.
        tokenizer: once a text is embedded, whatever the vocabulary.
        pictures: once a picture is embedded.
        forms: compute form → its costs.
    """

    provider: Provider
    label: str
    conditions: Conditions
    same: bool
    micro_batch_tokens: int
    alone: tuple[Form, ...]
    handover: Handover
    runtime: Factor
    session: Factor
    layer: Factor
    pieces: Factor
    libraries: Factor
    kernels: Factor
    vocabulary: Factor
    tokenizer: Factor
    pictures: Factor
    forms: Mapping[Form, FormConstants]


def constants(provider: Provider, conditions: Conditions | None = None) -> Constants:
    """The constants of a provider that fit some conditions best.

    Args:
        provider: what runs the model.
        conditions: where; none asks for no particular conditions, and takes the first table as it stands.
    """
    tables = [table for table in _tables() if table.provider == provider]
    if conditions is None:
        return tables[0]
    table = max(tables, key=lambda t: t.conditions.likeness(conditions))
    if table.conditions.covers(conditions):
        return table
    return replace(
        table,
        same=False,
        **{name: getattr(table, name).elsewhere() for name in _COSTS},
        forms={form: _elsewhere(costs) for form, costs in table.forms.items()},
    )


_COSTS = (
    "runtime",
    "session",
    "layer",
    "pieces",
    "libraries",
    "kernels",
    "vocabulary",
    "tokenizer",
    "pictures",
)


def _elsewhere(costs: FormConstants) -> FormConstants:
    return FormConstants(**{name: factor.elsewhere() for name, factor in vars(costs).items()})


@cache
def document() -> dict[str, Any]:
    """``constants.toml``, checked for its format."""
    table = tomllib.loads(resources.files("sigrun_hwcheck").joinpath("constants.toml").read_text("utf-8"))
    if table["format"] != FORMAT:
        raise ValueError(f"constants.toml: format is {table['format']!r}; this version reads format {FORMAT}")
    return table


@cache
def _tables() -> tuple[Constants, ...]:
    return tuple(_constants(entry) for entry in document()["memory"])


def _constants(entry: dict[str, Any]) -> Constants:
    return Constants(
        provider=entry["provider"],
        label=entry["label"],
        conditions=Conditions(**entry["conditions"]),
        same=True,
        micro_batch_tokens=entry["micro_batch_tokens"],
        alone=tuple(entry["alone"]),
        handover=entry["handover"],
        **{name: factor(entry[name]) for name in _COSTS},
        forms={
            form: FormConstants(**{name: factor(value) for name, value in costs.items()})
            for form, costs in entry["forms"].items()
        },
    )


def factor(entry: list[Any]) -> Factor:
    """A factor as it stands in the file: ``[low, best, high, source]``."""
    low, best, high, source = entry
    return Factor(low, best, high, source)
