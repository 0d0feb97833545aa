"""Graphics cards on the PCI bus, as Linux lists them: there before any driver or library is asked.

This tells a card that is in the machine but not in the container, and one that is powered down. Nothing read here
wakes a card: vendor, class and power state are kept by the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sigrun_hwcheck.probe import tree

NVIDIA, AMD, INTEL = 0x10DE, 0x1002, 0x8086
DISPLAY_CLASS = 0x03  # display controllers: VGA, 3D and others

NAME_FILES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")


@dataclass(frozen=True)
class Slot:
    """A display controller: its address, such as ``0000:01:00.0``, its vendor's and its own number, its state."""

    address: str
    vendor: int
    device: int
    asleep: bool


def cards(root: Path, vendor: int) -> list[Slot]:
    """The vendor's display controllers, in the order of their addresses."""
    found = []
    for folder in tree.entries(root / "sys/bus/pci/devices", r"[0-9a-f]+:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"):
        kind = tree.number(folder / "class", 16)
        if kind is None or kind >> 16 != DISPLAY_CLASS or tree.number(folder / "vendor", 16) != vendor:
            continue
        device = tree.number(folder / "device", 16) or 0
        found.append(Slot(folder.name, vendor, device, asleep(folder)))
    return sorted(found, key=lambda slot: slot.address)


def asleep(device: Path) -> bool:
    """Whether the kernel has powered a device down, so that asking it anything would wake it."""
    return tree.text(device / "power/runtime_status") in ("suspended", "suspending")


def name(root: Path, vendor: int, device: int) -> str | None:
    """What the system's list of PCI numbers calls a device: ``Navi 31 [Radeon RX 7900 XT/7900 XTX]``."""
    for file in NAME_FILES:
        inside = False
        for line in (tree.text(root / file) or "").splitlines():
            if inside and line.startswith(f"\t{device:04x} "):
                return line[5:].strip()
            if line and not line.startswith(("\t", "#")):
                inside = line.startswith(f"{vendor:04x} ")
    return None
