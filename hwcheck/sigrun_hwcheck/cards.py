"""Our own table of graphics cards, ``cards.toml``: what they have on paper, for machines that nobody sits at.

Memory of a card that is there is always read. Names are matched word by word, and never guessed: what could mean
several cards is refused, with their names.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from sigrun.errors import SigrunError
from sigrun_hwcheck.machine import Card
from sigrun_hwcheck.speed import CardRates
from sigrun_hwcheck.units import GIB

FORMAT = 1
Vendor = Literal["nvidia", "amd", "intel", "apple"]


class CardNameError(SigrunError):
    """No card, or more than one, is meant by a name."""


@dataclass(frozen=True)
class CardModel:
    """A card on paper. Unknown is ``None``.

    Attributes:
        name: as its vendor calls it; with its memory where there are several of that name.
        vendor: who makes it.
        series: its family.
        memory_gib: of a card its memory; of unified memory the sizes of main memory that there are, ascending.
        unified: whether it works in main memory.
        bandwidth: of its memory, 1e9 bytes a second.
        float16: 1e12 operations a second with dense float16 matrices.
        int8: the same with int8 matrices.
        compute_capability: CUDA's.
        source: the vendor's page of the family.
        reported: what its driver calls it, where that is another name.
    """

    name: str
    vendor: Vendor
    series: str
    memory_gib: tuple[int, ...]
    unified: bool
    bandwidth: float | None
    float16: float | None
    int8: float | None
    compute_capability: tuple[int, int] | None
    source: str
    reported: tuple[str, ...] = ()

    @property
    def rates(self) -> CardRates:
        """What it can do, as far as it is known."""
        return CardRates(self.float16, None, self.bandwidth)

    @property
    def words(self) -> frozenset[str]:
        """The words of its name."""
        return words(self.name)


@cache
def cards() -> tuple[CardModel, ...]:
    """Every card of the table, by family, from the slowest to the fastest."""
    table = tomllib.loads(resources.files("sigrun_hwcheck").joinpath("cards.toml").read_text("utf-8"))
    if table["format"] != FORMAT:
        raise ValueError(f"cards.toml: format is {table['format']!r}; this version reads format {FORMAT}")
    return tuple(_model(family, entry) for family in table["family"] for entry in family["cards"])


def _model(family: dict[str, object], entry: dict[str, object]) -> CardModel:
    memory = entry["memory"]
    reported = entry.get("reported", ())
    capability = family.get("compute_capability")
    figures = {name: entry.get(name) for name in ("bandwidth", "fp16", "int8")}
    numbers = {name: None if value is None else float(str(value)) for name, value in figures.items()}
    return CardModel(
        name=str(entry["name"]),
        vendor=family["vendor"],  # type: ignore[arg-type]  # a test looks
        series=str(family["series"]),
        memory_gib=tuple(memory) if isinstance(memory, list) else (int(str(memory)),),
        unified=family.get("memory") == "unified",
        bandwidth=numbers["bandwidth"],
        float16=numbers["fp16"],
        int8=numbers["int8"],
        compute_capability=_capability(None if capability is None else str(capability)),
        source=str(family["source"]),
        reported=tuple(str(name) for name in reported) if isinstance(reported, list) else (),
    )


def _capability(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    major, minor = text.split(".")
    return int(major), int(minor)


_VENDORS = frozenset({"nvidia", "amd", "intel", "ati", "gpu", "graphics", "card", "corporation", "inc"})
_SERIES = frozenset(
    {"geforce", "gtx", "rtx", "gt", "radeon", "rx", "arc", "instinct", "tesla", "quadro", "apple"}
)
_SLOTS = frozenset({"pcie", "sxm", "sxm2", "nvl"})
_TIERS = frozenset({"ti", "super", "xt", "xtx", "gre", "d", "laptop", "pro", "max", "ultra", "sff"})
"""Words that make another card of the same number: an RX 6700 is no RX 6700 XT."""
_SAME = {"mobile": "laptop", "generation": ""}


def words(name: str) -> frozenset[str]:
    """The words of a card's name in small letters; vendors left out, ``3060ti`` taken apart, ``12 GB`` joined."""
    text = re.sub(r"\((?:tm|r)\)|[®™]", " ", name.lower())
    text = re.sub(r"[^a-z0-9.]+", " ", text)
    text = re.sub(r"\b(rtx|gtx|rx|gt)(\d)", r"\1 \2", text)
    text = re.sub(r"(\d)(ti|super|xtx|xt|gre|laptop|mobile|g[i]?b)\b", r"\1 \2", text)
    text = re.sub(r"\b(\d+) gi?b\b", r"\1gb", text)
    found = (_SAME.get(word, word) for word in text.split())
    return frozenset(word for word in found if word and word not in _VENDORS)


def find(name: str, memory_gib: float | None = None) -> CardModel:
    """The one card that a name means.

    A card whose name has no other words than the given ones comes before one that has more: ``RTX 4070`` is not the
    ``RTX 4070 Ti``. Words such as GeForce or RTX may be left out. What a driver reports is known too.

    Args:
        name: as the user wrote it.
        memory_gib: only cards of so much memory.

    Raises:
        CardNameError: no card is meant, or several; the message names them.
    """
    asked = words(name)
    fitting = [
        card for card in cards() if asked and asked <= card.words | {_size(g) for g in card.memory_gib}
    ]
    alike = [card for card in cards() if _reports(card, asked)] or [c for c in fitting if _same(c, asked)]
    if not alike and (len(fitting) > 1 or not any((card.words - asked) & _TIERS for card in fitting)):
        alike = fitting
    if memory_gib is not None:
        alike_sizes = [card for card in alike if memory_gib in card.memory_gib]
        if alike and not alike_sizes:
            sizes = _listed(sorted({_size(g).upper() for card in alike for g in card.memory_gib}))
            raise CardNameError(
                f"there is no '{name}' of {memory_gib:g} GiB in our table: it comes with {sizes}",
                hint="a card that is not in the table: give its memory alone, with --vram",
            )
        alike = alike_sizes
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise CardNameError(
            f"'{name}' could be any of {len(alike)}: {_listed(card.name for card in alike[:8])}"
            f"{' ...' if len(alike) > 8 else ''}",
            hint="give more of the name, or its memory with --vram",
        )
    near = _near(name)
    raise CardNameError(
        f"there is no '{name}' in our table of cards" + (f"; near to it: {_listed(near)}" if near else ""),
        hint="hwcheck gpus --all lists the table; for another card give its memory alone, such as --vram 6GiB",
    )


def rates_of(card: Card) -> CardRates | None:
    """What a card that is there can do on paper, if its name is one of the table's."""
    if card.name is None:
        return None
    asked = words(card.name)
    fitting = [model for model in cards() if _reports(model, asked)]
    fitting = fitting or [m for m in cards() if _bare(m) == asked - {_size(g) for g in m.memory_gib}]
    if card.total_bytes is not None:
        # Makers count memory in binary units, drivers keep a little of it.
        near = [
            m
            for m in fitting
            if any(0.9 * g * GIB <= card.total_bytes <= 1.05 * g * GIB for g in m.memory_gib)
        ]
        fitting = fitting if fitting and fitting[0].unified else near
    return fitting[0].rates if len(fitting) == 1 else None


def _same(card: CardModel, asked: frozenset[str]) -> bool:
    """Whether a card's name has no words besides the asked ones; its series, its memory and its slot left aside."""
    aside = _SERIES | _SLOTS | {_size(g) for g in card.memory_gib}
    return card.words - aside == asked - aside


def _reports(card: CardModel, asked: frozenset[str]) -> bool:
    """Whether this is what the card's driver calls it."""
    return any(words(name) == asked for name in card.reported)


def _bare(card: CardModel) -> frozenset[str]:
    return card.words - {_size(g) for g in card.memory_gib}


def _size(gib: int) -> str:
    return f"{gib}gb"


def _near(name: str) -> list[str]:
    """Names that are written alike, those with all the words first; series and memory, which people leave away, left
    aside."""

    def bare(these: Iterable[str]) -> str:
        return " ".join(sorted(set(these) - _SERIES))

    whole, asked = words(name), bare(words(name))
    more = {card.name for card in cards() if whole and whole <= card.words}
    alike = {card.name: difflib.SequenceMatcher(None, bare(_bare(card)), asked).ratio() for card in cards()}
    return sorted((n for n in alike if alike[n] >= 0.6), key=lambda n: (n not in more, -alike[n]))[:4]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
