"""Words for what a prediction is made of, the same wherever they are printed."""

from __future__ import annotations

from sigrun_hwcheck.constants import Source
from sigrun_hwcheck.memory import TowerChoice
from sigrun_hwcheck.speed import Speed
from sigrun_hwcheck.terms import TermName

TERMS: dict[TermName, str] = {
    "weights": "weights that the session uses as they are stored",
    "packed": "weights laid out for the kernels",
    "unpacked": "weights on their way to being laid out",
    "rounding": "int8 weights on their way to the cache",
    "retained": "memory that the C library keeps of what was freed",
    "activations": "activations of what runs at once",
    "workspace": "scratch in which packed weights are decoded",
    "tokenizer": "the vocabulary",
    "session": "the session itself",
    "runtime": "Python and its libraries, or a card's context",
    "mapped": "pages of the file, which the system takes back at need",
    "libraries": "pages of libraries, which the system takes back at need",
    "process": "the process, measured as a whole",
}

SOURCES: dict[Source, str] = {
    "exact": "follows from the bytes of the file",
    "measured here": "measured on this machine with this file",
    "measured": "measured on another machine with the same instructions",
    "estimated": "estimated",
}

ITEMS: dict[TowerChoice, str] = {"image": "images", "text": "texts", "both": "items"}


def pace(speed: Speed, tower: TowerChoice) -> str:
    """A speed in words: ``60 to 210 images/s, estimated``."""
    return f"{rate(speed)} {ITEMS[tower]}/s, {SOURCES_SHORT[speed.source]}"


SOURCES_SHORT: dict[Source, str] = {
    "exact": "exact",
    "measured here": "measured here",
    "measured": "as measured elsewhere",
    "estimated": "estimated",
}


def rate(speed: Speed) -> str:
    """Items a second, at worst and at best: ``0.42 - 1.3``."""
    low, _, high = speed.items_per_s
    first, second = figure(low), figure(high)
    return first if first == second else f"{first}-{second}"


def figure(value: float) -> str:
    """A number with two figures that count: ``0.42``, ``3.1``, ``210``."""
    if value >= 10:
        digits = len(str(int(value))) - 2
        return str(int(round(value, -digits)))
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2g}"
