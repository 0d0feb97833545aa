"""How long an item will take: as measured here, else from measured rates of a CPU's instruction set, else by roofline.

The work follows from the architecture: each matrix meets every token once, and each layer's attention grows with the
square of the tokens. Pictures are taken to be decoded already.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sigrun_hwcheck.conditions import Conditions
from sigrun_hwcheck.constants import Factor, Provider, Source, constants, document, factor
from sigrun_hwcheck.measured import Measurements
from sigrun_hwcheck.quantities import KEPT, quantities
from sigrun_hwcheck.stored import Form, Stored, Tensor
from sigrun_hwcheck.terms import micro_batch
from sigrun_recipes import TowerName

MEASURED_DOUBT = 0.15
"""What a repeated run may differ from a measured one: clocks and neighbours change."""
FEW_CORES = 4
GIGA = 1e9


@dataclass(frozen=True)
class CardRates:
    """What a card can do on paper. Unknown is ``None``.

    Attributes:
        float16: 1e12 operations a second with float16.
        float32: the same with float32.
        bandwidth: of its memory, 1e9 bytes a second.
    """

    float16: float | None
    float32: float | None
    bandwidth: float | None


@dataclass(frozen=True)
class Speed:
    """Seconds for one item; ``low_s`` is the fastest that is plausible.

    Attributes:
        low_s: at best.
        best_s: as expected.
        high_s: at worst.
        source: how it is known.
        basis: the same in words.
    """

    low_s: float
    best_s: float
    high_s: float
    source: Source
    basis: str

    @property
    def items_per_s(self) -> tuple[float, float, float]:
        """Items a second: at worst, as expected, at best."""
        return 1 / self.high_s, 1 / self.best_s, 1 / self.low_s


@dataclass(frozen=True)
class Work:
    """Floating-point operations for one item: with matrices, and between tokens."""

    linear: int
    attention: int


@lru_cache(KEPT)
def work(stored: Stored, tower: TowerName) -> Work:
    """The work of one item in a tower that the variant has."""
    shape = stored.architecture.tower(tower)
    assert shape is not None  # the caller asked for a tower that is there
    linear = sum(
        2 * t.size * _rows(t, shape.tokens) for t in stored.of(tower) if t.kind in ("linear", "patch")
    )
    return Work(linear, shape.layers * 4 * shape.tokens**2 * shape.width)


def _rows(tensor: Tensor, tokens: int) -> int:
    """Tokens that a matrix meets. Of the heads', only keys and values of the pooling meet every token."""
    pooled = ".blk." not in tensor.name and tensor.kind == "linear"
    return 1 if pooled and not tensor.name.endswith(("attn_k.weight", "attn_v.weight")) else tokens


def speed(
    stored: Stored,
    tower: TowerName,
    form: Form,
    batch: int,
    provider: Provider,
    where: Conditions,
    *,
    card: CardRates | None = None,
    measured: Measurements | None = None,
) -> Speed | None:
    """Seconds an item takes.

    Args:
        stored: the variant.
        tower: which tower.
        form: the compute form.
        batch: items handed over at once.
        provider: what runs it.
        where: the instruction set and threads of a CPU; what identifies the device, to find what was measured.
        card: figures of a card.
        measured: what was measured on this machine.

    Returns:
        The speed, or ``None`` where nothing is known of the CPU's instructions or the card, or the variant lacks the
        tower or form.
    """
    if form not in stored.forms.get(tower, ()):
        return None
    items = min(batch, micro_batch(quantities(stored, tower, form), constants(provider), form))
    if measured is not None:
        for cached in (True, False):
            seen = measured.find(stored, tower, form, provider, where, items, cached=cached)
            if seen is not None and seen.item_s > 0:
                low, high = seen.item_s * (1 - MEASURED_DOUBT), seen.item_s * (1 + MEASURED_DOUBT)
                return Speed(
                    low, seen.item_s, high, "measured here", "measured on this machine with this file"
                )
    if provider == "cpu":
        return _on_cpu(stored, tower, form, items, where)
    return None if card is None else _on_card(stored, tower, form, items, card)


def _on_cpu(stored: Stored, tower: TowerName, form: Form, items: int, where: Conditions) -> Speed | None:
    entry = next((e for e in document()["speed"] if e["instructions"] == where.instructions), None)
    if entry is None or not where.threads:
        return None
    float32, int8, decode = (factor(entry[name]) for name in ("float32", "int8", "decode"))
    matrices = int8 if form == "int8" else float32
    cores = _cores(where.threads)
    done = work(stored, tower)
    weights = sum(t.size for t in stored.of(tower) if t.packings.get(form) in ("nbits", "nbits16"))

    def seconds(linear: float, between: float, per_weight_ns: float, used: float) -> float:
        once = weights * per_weight_ns / GIGA / items
        return (once + done.linear / (linear * GIGA) + done.attention / (between * GIGA)) / used

    same = where.threads <= FEW_CORES and form in ("exact", "int8")
    source: Source = "measured" if matrices.source == cores.source == "measured" and same else "estimated"
    return Speed(
        seconds(matrices.high, float32.high, decode.low, cores.high),
        seconds(matrices.best, float32.best, decode.best, cores.best),
        # Forms with float16 are cast to and fro besides.
        seconds(matrices.low, float32.low, decode.high, cores.low) * (1 if same else 1.5),
        source,
        f"{where.instructions} rates for {where.threads} threads",
    )


def _cores(threads: int) -> Factor:
    """How many cores' rates so many threads reach together."""
    scaling = document()["scaling"]
    few, many = factor(scaling["few"]), factor(scaling["many"])
    more = max(0, threads - FEW_CORES)
    some = min(threads, FEW_CORES)
    return Factor(
        some * few.low + more * many.low,
        some * few.best + more * many.best,
        some * few.high + more * many.high,
        many.source if more else few.source,
    )


def _on_card(stored: Stored, tower: TowerName, form: Form, items: int, card: CardRates) -> Speed | None:
    rate = card.float16 if form in ("f16", "w4f16") else card.float32
    if not rate or not card.bandwidth:
        return None
    table = document()["card"]
    reached, moved, start = (factor(table[name]) for name in ("rate", "bandwidth", "start_s"))
    done = work(stored, tower)
    operations = (done.linear + done.attention) / (rate * 1000 * GIGA)
    of = quantities(stored, tower, form)
    reading = (of.used + of.viewed + of.dense + of.dense16 + of.int8) / (card.bandwidth * GIGA) / items

    def seconds(share: float, read: float, least: float) -> float:
        return max(operations / share, reading / read) + least / items

    return Speed(
        seconds(reached.high, moved.high, start.low),
        seconds(reached.best, moved.best, start.best),
        seconds(reached.low, moved.low, start.high),
        "estimated",
        "roofline from the card's figures on paper",
    )
