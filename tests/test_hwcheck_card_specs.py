"""Our table of cards beside a second source: each figure computed anew from bus, clocks and units of another table."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

from sigrun_hwcheck.cards import CardModel, cards

BITS_A_CYCLE = {
    "GDDR5": 4,
    "GDDR5X": 8,
    "GDDR6": 8,
    "GDDR6X": 16,
    "GDDR7": 16,
    "HBM2": 2,
    "HBM2e": 2,
    "HBM3": 2,
    "HBM3e": 2,
    "LPDDR4": 2,
    "LPDDR4X": 2,
    "LPDDR5": 8,
    "LPDDR5X": 8,
}
"""What each kind of memory moves over one wire in a cycle of the clock that is listed."""

OPERATIONS: dict[str, tuple[int, int]] = {
    "GeForce GTX 10": (2, 8),
    "GeForce GTX 16": (2, 8),
    "GeForce RTX 20": (8, 32),
    "GeForce RTX 30": (4, 16),
    "GeForce RTX 30, laptops": (4, 16),
    "GeForce RTX 40": (4, 16),
    "GeForce RTX 50": (4, 16),
    "RTX A, workstations": (8, 16),
    "RTX Ada, workstations": (8, 16),
    "RTX PRO Blackwell, workstations": (8, 16),
    "Tesla P": (2, 8),
    "Tesla P100": (2, 8),
    "Tesla V100": (16, 16),
    "Tesla T4": (16, 32),
    "A, data centres": (8, 16),
    "A30 and A100": (32, 64),
    "L, data centres": (8, 16),
    "H100 and H200": (32, 64),
    "Jetson Nano": (2, 2),
    "Jetson Orin": (16, 32),
    "Radeon RX 6000": (4, 8),
    "Radeon RX 7000": (8, 8),
    "Radeon RX 9000": (16, 32),
}
"""Operations that a unit does in a cycle with float16 (sums in float32) and int8 matrices, by architecture."""

OPERATIONS_OF_CARD = {
    "TITAN RTX": (16, 32),  # the one card of its family whose float32 sums are not slowed down
    "L40": (4, 8),  # NVIDIA states half of the L40S's rate for it
    "Instinct MI100": (16, 16),
    "Instinct MI210": (16, 16),
    "Instinct MI300X": (32, 64),
    "Instinct MI325X": (32, 64),
}

RATE_AS_STATED = {
    "GeForce RTX 5090 D": "slowed down to meet a limit on exports",
    "A10G": "NVIDIA's figure for the card that AWS rents out, of fewer units than TechPowerUp lists",
    "H100 PCIe": "NVIDIA reckons with a lower clock than the boost clock",
    "H100 NVL": "NVIDIA reckons with a lower clock than the boost clock",
    "H100 SXM": "NVIDIA reckons with a lower clock than the boost clock",
    "H200 SXM": "NVIDIA reckons with a lower clock than the boost clock",
    "Tesla V100 SXM2 16GB": "TechPowerUp lists the clocks of a later card of that name",
    "B200": "TechPowerUp lists one of its two dies",
    "Tesla P4": "NVIDIA reckons with a lower clock than the boost clock",
}
LAPTOPS_AT_MOST = ("GeForce RTX 40, laptops", "GeForce RTX 50, laptops")
MATRIX_UNITS = ("Arc A", "Arc B", "Arc Pro B")

BANDWIDTH_AS_STATED = {
    "RTX 2000 Ada Generation": (224, "NVIDIA's data sheet; TechPowerUp lists faster memory"),
    "Tesla V100 SXM2 16GB": (900, "TechPowerUp lists the clocks of a later card of that name"),
    "B200": (8000, "TechPowerUp lists one of its two dies"),
    "H100 SXM": (3350, "TechPowerUp lists half of the memory's clock"),
    "H100 PCIe": (2000, "NVIDIA rounds"),
    "H100 NVL": (3900, "NVIDIA rounds"),
    "H200 SXM": (4800, "NVIDIA states less than the memory's clock allows"),
    "Radeon RX 9060 XT 8GB": (320, "20 Gbit/s a wire as AMD states it, 20.1 listed"),
    "Radeon RX 9060 XT 16GB": (320, "20 Gbit/s a wire as AMD states it, 20.1 listed"),
    "Radeon RX 9070": (640, "20 Gbit/s a wire as AMD states it, 20.1 listed"),
    "Radeon RX 9070 XT": (640, "20 Gbit/s a wire as AMD states it, 20.1 listed"),
    "Instinct MI300X": (5300, "AMD's; TechPowerUp lists a clock of twice the rate"),
    "Instinct MI325X": (6000, "AMD's; TechPowerUp lists a clock of twice the rate"),
    "Arc A770 16GB": (560, "Intel states 17.5 Gbit/s for the card of 16 GB; 16 listed for both"),
    "Radeon 8060S": (256, "main memory: 256 bits at 8 Gbit/s"),
}
MEMORY_AS_STATED = {
    "B200": "TechPowerUp lists one of its two dies; 180 GB in a DGX",
    "Instinct MI325X": "256 GB as sold, 288 as announced",
    "Arc A770 8GB": "TechPowerUp lists the card of 16 GB alone",
    "GeForce RTX 3080 Laptop GPU 16GB": "TechPowerUp lists the one of 8 GB alone",
    "Radeon 8060S": "works in main memory",
}
UNLISTED = {"Jetson AGX Thor", *(card.name for card in cards() if card.vendor == "apple")}


@dataclass(frozen=True)
class Listed:
    """A card as the other source lists it."""

    card: CardModel
    memory_gib: float | None
    bandwidth: float | None  # 1e9 bytes a second
    cycles: float  # 1e12 a second, of all units together
    cuda: tuple[int, ...] | None


def _listed() -> list[Listed]:
    by_name = {card.name: card for card in cards()}
    path = Path(__file__).parent / "data" / "card_specs.csv"
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            bandwidth = None
            if row["bus_bits"]:
                bits = BITS_A_CYCLE[row["memory_kind"]] * float(row["memory_mhz"]) * int(row["bus_bits"])
                bandwidth = bits / 8 / 1000
            cycles = int(row["units"]) * float(row["boost_mhz"]) / 1e6
            cuda = tuple(int(part) for part in row["cuda"].split(".")) if row["cuda"] else None
            memory = float(row["memory_gib"]) if row["memory_gib"] else None
            found.append(Listed(by_name[row["card"]], memory, bandwidth, cycles, cuda))
    return found


LISTED = _listed()
each = pytest.mark.parametrize("listed", LISTED, ids=lambda one: one.card.name)


def test_every_card_has_a_second_source_or_is_named() -> None:
    assert {card.name for card in cards()} - {one.card.name for one in LISTED} == UNLISTED


def test_no_exception_outlives_its_card() -> None:
    named = {*OPERATIONS_OF_CARD, *RATE_AS_STATED, *BANDWIDTH_AS_STATED, *MEMORY_AS_STATED}
    assert named <= {one.card.name for one in LISTED}
    assert {*OPERATIONS, *LAPTOPS_AT_MOST, *MATRIX_UNITS} <= {one.card.series for one in LISTED}


@each
def test_memory(listed: Listed) -> None:
    agrees = listed.memory_gib in listed.card.memory_gib
    assert agrees != (listed.card.name in MEMORY_AS_STATED)


@each
def test_bandwidth(listed: Listed) -> None:
    """Bits of the bus times what a wire moves, within the rounding of vendors."""
    known = BANDWIDTH_AS_STATED.get(listed.card.name)
    if known is not None:
        assert listed.card.bandwidth == known[0]
        assert listed.bandwidth is None or abs(listed.bandwidth / known[0] - 1) > 0.006
    elif listed.card.bandwidth is not None:
        assert listed.bandwidth == pytest.approx(listed.card.bandwidth, rel=0.006)


@each
def test_rates(listed: Listed) -> None:
    """Units times clock times what a unit does in a cycle, by architecture."""
    card = listed.card
    rates = (card.float16, card.int8)
    if card.series in LAPTOPS_AT_MOST:
        # Of "AI TOPS", at a clock that few laptops reach: never below the usual one, never above twice that.
        assert card.float16 is not None and card.int8 is not None
        assert 1 <= card.float16 / (listed.cycles * 4) <= 2
        assert card.int8 / card.float16 == pytest.approx(4, rel=0.01)
    elif card.series in MATRIX_UNITS:
        assert (card.float16 is None) == (card.int8 is None)
        assert card.int8 is None or card.float16 == card.int8 / 2
    elif card.name not in RATE_AS_STATED:
        series = OPERATIONS.get(card.series)
        operations = OPERATIONS_OF_CARD.get(card.name, series)
        assert operations is not None or rates == (None, None)
        for rate, of_unit in zip(rates, operations or (), strict=False):
            if rate is not None:
                assert rate == pytest.approx(listed.cycles * of_unit, rel=0.015)


@pytest.mark.parametrize("name", [name for name in RATE_AS_STATED if name.startswith("H")])
def test_rates_stated_at_a_lower_clock_are_somewhat_lower(name: str) -> None:
    (listed,) = (one for one in LISTED if one.card.name == name)
    assert listed.card.float16 is not None
    assert 0.8 < listed.card.float16 / (listed.cycles * OPERATIONS["H100 and H200"][0]) < 1


@each
def test_compute_capability(listed: Listed) -> None:
    assert listed.card.compute_capability == listed.cuda
