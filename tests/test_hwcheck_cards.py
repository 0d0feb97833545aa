"""Our table of cards: sane figures, names that mean one card or are refused, and machines supposed to have them."""

from __future__ import annotations

import functools
import itertools
import re
import tomllib
from importlib import resources
from urllib.parse import urlsplit

import pytest

from sigrun_hwcheck import CardReport, check, on_cards, predicted, suppose
from sigrun_hwcheck import cards as exported
from sigrun_hwcheck.cards import CardModel, CardNameError, cards, find, rates_of, words
from sigrun_hwcheck.devices import devices
from sigrun_hwcheck.machine import Card
from sigrun_hwcheck.units import GIB
from sigrun_hwcheck.whatif import Supposed, card_memory
from tests.hwcheck_golden import machine

FAMILIES = [
    list(group) for _, group in itertools.groupby(cards(), key=lambda card: (card.vendor, card.series))
]
CAPABILITIES = {
    (5, 3),
    (6, 0),
    (6, 1),
    (7, 0),
    (7, 2),
    (7, 5),
    (8, 0),
    (8, 6),
    (8, 7),
    (8, 9),
    (9, 0),
    (10, 0),
    (11, 0),
}
CAPABILITIES |= {(12, 0), (12, 1)}
HOMES = {"nvidia": "nvidia.com", "amd": "amd.com", "intel": "intel.com", "apple": "apple.com"}


@functools.cache
def everything() -> CardReport:
    """Every variant on every card."""
    return on_cards(predicted())


def named(name: str) -> CardModel:
    (card,) = (card for card in cards() if card.name == name)
    return card


def test_there_are_enough_and_each_once() -> None:
    assert exported() is cards()
    assert len(cards()) >= 80
    assert len({card.name for card in cards()}) == len(cards())
    assert {card.vendor for card in cards()} == set(HOMES)
    assert len(FAMILIES) == len({card.series for card in cards()})


@pytest.mark.parametrize("card", cards(), ids=lambda card: card.name)
def test_figures_are_sane(card: CardModel) -> None:
    assert card.memory_gib and sorted(card.memory_gib) == list(card.memory_gib)
    assert all(1 <= gib <= 512 for gib in card.memory_gib)
    assert len(card.memory_gib) == 1 or card.unified
    assert card.bandwidth is None or 20 <= card.bandwidth <= 8000
    assert card.float16 is None or 0.2 <= card.float16 <= 2500
    if card.float16 and card.int8:  # twice the rate, or four times where float32 sums cost half of it
        assert min(abs(card.int8 / card.float16 / ratio - 1) for ratio in (1, 2, 4)) < 0.02
    assert (card.compute_capability is None) == (card.vendor != "nvidia")
    assert card.compute_capability is None or card.compute_capability in CAPABILITIES
    page = urlsplit(card.source)
    assert page.scheme == "https" and (page.hostname or "").endswith(HOMES[card.vendor])
    named_size = re.search(r"(\d+)GB", card.name)
    assert named_size is None or int(named_size[1]) in card.memory_gib


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0].series)
def test_families_go_from_slow_to_fast(family: list[CardModel]) -> None:
    if "laptops" in family[0].series:
        return
    rates = [card.float16 for card in family if card.float16 is not None]
    assert rates == sorted(rates)
    if family[0].vendor == "nvidia" and "GeForce" in family[0].series:  # laptops are left out above
        moved = [
            card.bandwidth for card in family if card.bandwidth is not None and "GTX 16" not in card.series
        ]
        assert moved == sorted(moved)


def test_later_generations_are_no_slower() -> None:
    for tier in ("70", "80", "90"):
        rates = [
            c.float16
            for c in cards()
            if re.fullmatch(rf"GeForce RTX [2345]0{tier}( \d+GB)?", c.name) and c.float16
        ]
        assert len(rates) >= 2
        assert rates == sorted(rates)


def test_the_file_has_no_field_that_nobody_reads() -> None:
    table = tomllib.loads(resources.files("sigrun_hwcheck").joinpath("cards.toml").read_text("utf-8"))
    families = {"series", "vendor", "memory", "compute_capability", "source", "cards"}
    assert {key for family in table["family"] for key in family} == families
    fields = {key for family in table["family"] for card in family["cards"] for key in card}
    assert fields == {"name", "memory", "bandwidth", "fp16", "int8", "reported"}
    assert {family.get("memory") for family in table["family"]} == {None, "unified"}


@pytest.mark.parametrize("card", cards(), ids=lambda card: card.name)
def test_every_card_is_found_by_its_own_name(card: CardModel) -> None:
    for name in (card.name, card.name.lower(), f"NVIDIA {card.name}", card.name.replace(" ", "  ")):
        assert find(name) is card


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("rtx 4090", "GeForce RTX 4090"),
        ("4090", "GeForce RTX 4090"),
        ("RTX4090", "GeForce RTX 4090"),
        ("3060ti", "GeForce RTX 3060 Ti"),
        ("RTX 3060 12 GB", "GeForce RTX 3060 12GB"),
        ("3060 12gib", "GeForce RTX 3060 12GB"),
        ("3060 laptop", "GeForce RTX 3060 Laptop GPU"),
        ("3060 mobile", "GeForce RTX 3060 Laptop GPU"),
        ("4070 Ti Super", "GeForce RTX 4070 Ti Super"),
        ("7900xtx", "Radeon RX 7900 XTX"),
        ("t4", "Tesla T4"),
        ("M2", "Apple M2"),
        ("h100 sxm", "H100 SXM"),
        ("Intel(R) Arc(TM) B580 Graphics", "Arc B580"),
        ("AMD Radeon RX 7800 XT", "Radeon RX 7800 XT"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB SXM"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H200", "H200 SXM"),
        ("Tesla V100-SXM2-32GB", "Tesla V100 SXM2 32GB"),
    ],
)
def test_names_as_people_write_them(asked: str, name: str) -> None:
    assert find(asked).name == name


@pytest.mark.parametrize(
    ("asked", "candidates"),
    [
        ("3060", ("GeForce RTX 3060 8GB", "GeForce RTX 3060 12GB")),
        ("RTX 3060", ("GeForce RTX 3060 8GB", "GeForce RTX 3060 12GB")),
        ("A100", ("A100 40GB", "A100 80GB PCIe", "A100 80GB SXM")),
        ("H100", ("H100 PCIe", "H100 NVL", "H100 SXM")),
        ("Orin Nano", ("Jetson Orin Nano 4GB", "Jetson Orin Nano 8GB")),
    ],
)
def test_a_name_that_means_several_is_refused_with_all_of_them(
    asked: str, candidates: tuple[str, ...]
) -> None:
    with pytest.raises(CardNameError) as raised:
        find(asked)
    message = raised.value.message
    assert f"any of {len(candidates)}: {', '.join(candidates)}" in message
    assert raised.value.hint


def test_memory_tells_cards_of_one_name_apart() -> None:
    assert find("RTX 3060", 12).name == "GeForce RTX 3060 12GB"
    assert find("RTX 3060", 8).name == "GeForce RTX 3060 8GB"
    with pytest.raises(CardNameError, match="12GB, 8GB"):
        find("RTX 3060", 6)


@pytest.mark.parametrize(
    "asked", ["", " ", "banana", "RTX 9999", "GTX 4090", "Voodoo 2", "nvidia", "\0", "12GB", "RX 6700"]
)
def test_no_such_card(asked: str) -> None:
    with pytest.raises(CardNameError):
        find(asked)


def test_the_nearest_names_are_offered() -> None:
    with pytest.raises(CardNameError, match=r"near to it: .*GeForce RTX 4090"):
        find("GTX 4090")


def test_another_card_of_the_same_number_is_no_guess() -> None:
    """There is an RX 6700, of 10 GB; the table has the RX 6700 XT, of 12."""
    with pytest.raises(CardNameError, match=r"no 'RX 6700' .* near to it: Radeon RX 6700 XT"):
        find("RX 6700")


def test_words() -> None:
    assert words("NVIDIA GeForce RTX 3060 Ti") == {"geforce", "rtx", "3060", "ti"}
    assert words("RTX3060ti 8 GB") == {"rtx", "3060", "ti", "8gb"}
    assert words("Intel(R) Arc(TM) A770 Graphics") == {"arc", "a770"}


@pytest.mark.parametrize(
    ("name", "total", "expected"),
    [
        ("NVIDIA GeForce RTX 4090", 24564 << 20, "GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 3060", 12288 << 20, "GeForce RTX 3060 12GB"),
        ("NVIDIA GeForce RTX 3060", 8192 << 20, "GeForce RTX 3060 8GB"),
        ("NVIDIA GeForce RTX 3060", None, None),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", 6144 << 20, "GeForce RTX 3060 Laptop GPU"),
        ("NVIDIA GeForce RTX 4090", 8 << 30, None),  # another card that calls itself so
        ("Tesla T4", 15360 << 20, "Tesla T4"),
        ("NVIDIA A100-SXM4-40GB", 40960 << 20, "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", 81920 << 20, "A100 80GB SXM"),
        ("NVIDIA A100 80GB PCIe", 81920 << 20, "A100 80GB PCIe"),
        ("NVIDIA H100 80GB HBM3", 81559 << 20, "H100 SXM"),
        ("NVIDIA H100 PCIe", 81559 << 20, "H100 PCIe"),
        ("NVIDIA H200", 143771 << 20, "H200 SXM"),
        ("Tesla V100-SXM2-16GB", 16384 << 20, "Tesla V100 SXM2 16GB"),
        ("Tesla V100-PCIE-16GB", 16384 << 20, "Tesla V100 PCIe 16GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97887 << 20, "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX 6000 Ada Generation", 49140 << 20, "RTX 6000 Ada Generation"),
        ("Apple M1", None, "Apple M1"),
        ("Navi 31 [Radeon RX 7900 XT/7900 XTX/7900 GRE/7900M]", 24 << 30, None),
        (None, 24 << 30, None),
    ],
)
def test_the_rates_of_a_card_that_is_there(name: str | None, total: int | None, expected: str | None) -> None:
    found = rates_of(Card(0, name, total, total, 0, None))
    assert found == (None if expected is None else named(expected).rates)


@pytest.mark.parametrize(
    "name", ["two_rtx_4090", "jetson_orin_nano", "mac_m1_8gb", "rx_7900_xtx", "card_lost"]
)
def test_the_table_never_overrides_a_reading(name: str) -> None:
    there = machine(name)
    found = check(machine=there)
    assert tuple(place.device for place in found.places) == devices(there)
    assert found.machine == there
    assert found.supposed == Supposed()


@pytest.mark.parametrize("base", ["laptop_8gb", "mac_m2_16gb"])
@pytest.mark.parametrize(
    "card",
    [find(n) for n in ("GT 1030", "GTX 1650", "RX 7600", "H200", "GB10", "M1")],
    ids=lambda card: card.name,
)
def test_the_list_of_cards_agrees_with_supposing_each(card: CardModel, base: str) -> None:
    """Two ways to ask the same question; one goes through a whole machine."""
    listed = everything()
    for gib in card.memory_gib:
        ram = gib * GIB if card.unified else None
        there, supposed = suppose(machine(base), gpus=[card.name], ram=ram)
        found = check(machine=there, supposed=supposed)
        (place,) = [p for p in found.places if p.key in found.judged]
        of_list = [one for one in listed.on_cards if (one.card, one.gib) == (card, gib)]
        total, free = card_memory(card, gib)
        assert (place.device.total_bytes, place.device.free_bytes) == (total, free)
        for one, stored in zip(of_list, found.variants, strict=True):
            mine = {r.tower: r for r in found.rows if r.place is place and r.stored is stored}
            assert {r.compute for r in mine.values()} == {one.form}
            assert {t: r.last.verdict for t, r in mine.items()} == one.verdicts
            assert mine["image"].speed == one.speed


def test_the_least_memory_is_the_least_size_of_card_that_fits() -> None:
    for least in everything().least[::11]:
        for gib in (3, 4, 6):
            there, supposed = suppose(machine("laptop_8gb"), vram=[gib * GIB])
            found = check(machine=there, supposed=supposed, compute=least.form)
            (row,) = [
                r
                for r in found.rows
                if r.place.key == "nvidia:0"
                and r.tower == least.tower
                and r.stored.variant == least.stored.variant
            ]
            fits = least.fits_gib is not None and gib >= least.fits_gib
            tight = least.tight_gib is not None and gib >= least.tight_gib
            assert row.last.verdict == ("fits" if fits else "tight" if tight else "does not fit")


def test_more_memory_never_runs_less() -> None:
    order = ("fits", "tight", "does not fit")
    for stored in everything().variants:
        own = [o for o in everything().on_cards if o.card.vendor == "nvidia" and not o.card.unified]
        of_it = [o for o in own if o.stored is stored]
        of_form = sorted((o for o in of_it if o.form == "f16"), key=lambda o: o.gib)
        for tower in ("image", "text", "both"):
            ranks = [order.index(o.verdicts[tower]) for o in of_form]  # type: ignore[index]
            assert ranks == sorted(ranks, reverse=True)
