"""What the readers of AMD's and Intel's cards share: Linux's list of cards in /sys/class/drm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sigrun_hwcheck.machine import Card, Gpus, Surroundings
from sigrun_hwcheck.probe import pci, tree

ASLEEP = "powered down; it was not woken to ask for its memory"


@dataclass(frozen=True)
class Node:
    """A card with a driver: ``card`` and ``folder`` are its folders of /sys/class/drm and of its device."""

    card: Path
    folder: Path
    device: int
    address: str | None
    driver: str | None
    asleep: bool


def cards(root: Path, vendor: int) -> list[Node]:
    """The vendor's cards, each once, in the order of their slots; connectors (``card0-DP-1``) are none."""
    found: dict[str, Node] = {}
    for card in tree.entries(root / "sys/class/drm", r"card\d+"):
        folder = card / "device"
        if tree.number(folder / "vendor", 16) != vendor:
            continue
        address = tree.link_name(folder)
        node = Node(
            card,
            folder,
            tree.number(folder / "device", 16) or 0,
            address if address and address.count(":") == 2 else None,
            tree.link_name(folder / "driver"),
            pci.asleep(folder),
        )
        found.setdefault(address or card.name, node)
    return sorted(found.values(), key=lambda node: node.address or "")


def name(root: Path, one: Node, vendor: str) -> str:
    """The card's name: the product's, else the PCI list's, else its number."""
    product = tree.text(one.folder / "product_name")
    if product:
        return product
    number = {"AMD": pci.AMD, "Intel": pci.INTEL}[vendor]
    return pci.name(root, number, one.device) or f"{vendor} card {one.device:04x}"


def gpus(
    vendor: str,
    root: Path,
    slots: list[pci.Slot],
    cards: tuple[Card, ...],
    surroundings: Surroundings,
    driver: str,
    doors: tuple[str, ...],
) -> Gpus | None:
    """A vendor's entry: its cards, or why those on the bus cannot be used; ``None`` if it has none.

    Args:
        vendor: its name.
        root: the folder that holds ``dev``.
        slots: its cards on the PCI bus.
        cards: its cards that have a driver.
        surroundings: whether this is a container.
        driver: what its driver is called.
        doors: device files of which a program needs at least one.
    """
    if not slots and not cards:
        return None
    if surroundings == "container" and not any(tree.there(root / door) for door in doors):
        what = " or ".join(f"/{door}" for door in doors)
        detail = f"a card is in this machine, but not passed into this container (no {what})"
        return Gpus(vendor, "not_passed_in", detail, None, ())
    if not cards:
        return Gpus(
            vendor, "no_driver", f"a card is in this machine, but no driver runs it ({driver})", None, ()
        )
    if all(card.problem == ASLEEP for card in cards):
        return Gpus(vendor, "asleep", None, None, cards)
    return Gpus(vendor, "ok", None, None, cards)
