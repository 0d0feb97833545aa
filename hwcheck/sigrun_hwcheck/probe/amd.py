"""AMD cards, as Linux's driver amdgpu tells of them in /sys; ROCm is not needed.

An integrated card (APU) has a small part of main memory set aside, and borrows more of it through a table (GTT). How
large the table may grow says nothing of what the card is: for small cards it is three quarters of main memory. What a
card is follows from its number, from the vendor of its memory chips, which only a card of its own has, or from the
form of its measurements. Free is what is not used; what HIP calls free leaves out what the desktop uses.
"""

from __future__ import annotations

from pathlib import Path

from sigrun_hwcheck.machine import Card, CardKind, CardMemory, Gpus, Surroundings
from sigrun_hwcheck.probe import drm, pci, tree

VENDOR = "amd"

# Device numbers of integrated cards, from the kernel's and the PCI list's names for them.
INTEGRATED = {
    0x15DD: "Radeon Vega (Raven Ridge)",
    0x15D8: "Radeon Vega (Picasso)",
    0x1636: "Radeon Vega (Renoir)",
    0x1638: "Radeon Vega (Cezanne)",
    0x164C: "Radeon Vega (Lucienne)",
    0x163F: "Radeon (Van Gogh)",
    0x1506: "Radeon 610M (Mendocino)",
    0x164D: "Radeon 680M (Rembrandt)",
    0x1681: "Radeon 680M (Rembrandt)",
    0x164E: "Radeon (Raphael)",
    0x15BF: "Radeon 780M (Phoenix)",
    0x15C8: "Radeon 740M (Phoenix)",
    0x1900: "Radeon 780M (Hawk Point)",
    0x1901: "Radeon 740M (Hawk Point)",
    0x150E: "Radeon 890M (Strix Point)",
    0x1586: "Radeon 8060S (Strix Halo)",
    0x1114: "Radeon 860M (Krackan Point)",
    0x13C0: "Radeon (Granite Ridge)",
}


def read(root: Path = Path("/"), surroundings: Surroundings = "native") -> Gpus | None:
    """Every AMD card; ``None`` if there is none."""
    slots = pci.cards(root, pci.AMD)
    found = drm.cards(root, pci.AMD)
    cards = tuple(_card(root, i, one) for i, one in enumerate(found))
    return drm.gpus(VENDOR, root, slots, cards, surroundings, "amdgpu", ("dev/kfd", "dev/dri"))


def _card(root: Path, index: int, one: drm.Node) -> Card:
    name = INTEGRATED.get(one.device) or drm.name(root, one, "AMD")
    if one.asleep:
        kind: CardKind = "integrated" if one.device in INTEGRATED else "unknown"
        memory: CardMemory = "shared" if kind == "integrated" else "own"
        return Card(
            index, name, None, None, None, None, drm.ASLEEP, kind=kind, memory=memory, slot=one.address
        )  # fmt: skip
    total, used = _pool(one.folder, "vram")
    borrowed, borrowed_used = _pool(one.folder, "gtt")
    kind = _kind(one)
    integrated = kind == "integrated"
    problem = None if total is not None else "amdgpu tells no memory for it"
    return Card(
        index=index,
        name=name,
        total_bytes=total,
        free_bytes=_left(total, used),
        used_bytes=used,
        compute_capability=None,
        problem=problem
        if problem or total is None or used is not None
        else "amdgpu does not tell what is used",
        kind=kind,
        memory="shared" if integrated else "own",
        shared_total_bytes=borrowed if integrated else None,
        shared_free_bytes=_left(borrowed, borrowed_used) if integrated else None,
        slot=one.address,
    )


def _pool(folder: Path, pool: str) -> tuple[int | None, int | None]:
    total = tree.number(folder / f"mem_info_{pool}_total")
    return (total or None), tree.number(folder / f"mem_info_{pool}_used")


def _left(total: int | None, used: int | None) -> int | None:
    return None if total is None or used is None else max(0, total - used)


def _kind(one: drm.Node) -> CardKind:
    if one.device in INTEGRATED:
        return "integrated"
    if tree.text(one.folder / "mem_info_vram_vendor") not in (None, "", "unknown"):
        return "discrete"
    header = tree.raw(one.folder / "gpu_metrics", 4)  # size in 16 bits, form, revision
    if header is not None and len(header) == 4:
        form = header[2]
        return "discrete" if form == 1 else "integrated" if form in (2, 3) else "unknown"
    return "unknown"
