"""Intel's graphics, as Linux's drivers i915 and xe tell of them in /sys.

Graphics in the processor are always in slot 0000:00:02.0 and have no memory of their own: what they use is main
memory, and is never added to it. Of cards of its own, xe tells the size and i915 only in Intel's own version; what is
free neither tells a normal user.
"""

from __future__ import annotations

from pathlib import Path

from sigrun_hwcheck.machine import Card, Gpus, Surroundings
from sigrun_hwcheck.probe import drm, pci, tree

VENDOR = "intel"
INTEGRATED_SLOT = "0000:00:02.0"


def read(root: Path = Path("/"), surroundings: Surroundings = "native") -> Gpus | None:
    """Every Intel card; ``None`` if there is none."""
    slots = pci.cards(root, pci.INTEL)
    found = drm.cards(root, pci.INTEL)
    cards = tuple(_card(root, i, one) for i, one in enumerate(found))
    return drm.gpus(VENDOR, root, slots, cards, surroundings, "i915 or xe", ("dev/dri",))


def _card(root: Path, index: int, one: drm.Node) -> Card:
    name = drm.name(root, one, "Intel")
    if one.address == INTEGRATED_SLOT:
        return Card(
            index,
            name,
            None,
            None,
            None,
            None,
            kind="integrated",
            memory="shared",
            slot=one.address,
            estimated=True,
        )
    if one.asleep:
        return Card(index, name, None, None, None, None, drm.ASLEEP, slot=one.address)
    tiles = tree.entries(one.folder, r"tile\d+")
    sizes = [tree.number(tile / "physical_vram_size_bytes") for tile in tiles]
    total = sum(s for s in sizes if s is not None) or tree.number(one.card / "lmem_total_bytes") or None
    free = tree.number(one.card / "lmem_avail_bytes")
    problem = None
    if total is None:
        problem = f"its driver{f' ({one.driver})' if one.driver else ''} does not tell its memory"
    elif free is None:
        problem = "its driver does not tell"
    used = None if total is None or free is None else max(0, total - free)
    return Card(index, name, total, free, used, None, problem, slot=one.address)
