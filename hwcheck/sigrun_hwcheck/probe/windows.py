"""Graphics adapters of Windows: from DXGI, else from the registry. NVIDIA's are left to NVML where that answers."""

from __future__ import annotations

from collections.abc import Callable

from sigrun_hwcheck.machine import Card, Gpus
from sigrun_hwcheck.probe import pci
from sigrun_hwcheck.probe.dxgi import Adapter
from sigrun_hwcheck.probe.registry import DisplayDriver

VENDORS = {
    pci.NVIDIA: "nvidia",
    pci.AMD: "amd",
    pci.INTEL: "intel",
    0x4D4F4351: "qualcomm",
    0x5143: "qualcomm",
}
"""By PCI number; Qualcomm's graphics are not on the bus, and bear a number of ACPI's."""

GIB = 1 << 30

OWN_AT_LEAST = 1 * GIB
"""Graphics in a processor have less set aside; Windows does not say what has a memory of its own."""


def read(
    adapters: Callable[[], list[Adapter]],
    display_drivers: Callable[[], list[DisplayDriver]],
    nvidia_known: bool,
) -> tuple[Gpus, ...]:
    """One entry a vendor.

    Args:
        adapters: what DXGI tells; an ``OSError`` if it does not.
        display_drivers: what the registry tells.
        nvidia_known: whether NVML has answered for NVIDIA's cards.
    """
    cards: dict[str, list[Card]] = {}
    try:
        for one in adapters():
            vendor = VENDORS.get(one.vendor)
            if vendor is not None:
                own = cards.setdefault(vendor, [])
                own.append(_from_dxgi(len(own), one, vendor))
    except OSError:
        for driver in display_drivers():
            vendor = VENDORS.get(driver.vendor or 0)
            if vendor is not None:
                own = cards.setdefault(vendor, [])
                own.append(_from_registry(len(own), driver))
    return tuple(
        Gpus(vendor, "ok", None, None, tuple(found))
        for vendor, found in sorted(cards.items())
        if not (vendor == "nvidia" and nvidia_known)
    )


def _from_dxgi(index: int, one: Adapter, vendor: str) -> Card:
    integrated = vendor != "nvidia" and one.dedicated_bytes < OWN_AT_LEAST
    free = _left(one.local_budget, one.local_usage)
    problem = None if free is not None else "Windows does not tell what is free"
    if integrated:
        # The local group of integrated graphics is main memory with what is set aside; its budget bounds both.
        return Card(
            index, one.name, None, None, None, None, problem, "integrated", "shared",
            shared_total_bytes=one.dedicated_bytes + one.shared_bytes,
            shared_free_bytes=free,
        )  # fmt: skip
    return Card(
        index=index,
        name=one.name,
        total_bytes=one.dedicated_bytes or None,
        free_bytes=free,
        used_bytes=None,
        compute_capability=None,
        problem=problem,
    )


def _from_registry(index: int, driver: DisplayDriver) -> Card:
    problem = "Windows does not tell what is free"
    if driver.memory_bytes is None or driver.memory_bytes < OWN_AT_LEAST:
        return Card(
            index, driver.name, None, None, None, None, problem, kind="unknown", memory="shared"
        )  # fmt: skip
    return Card(index, driver.name, driver.memory_bytes, None, None, None, problem)


def _left(budget: int | None, usage: int | None) -> int | None:
    return None if budget is None or usage is None else max(0, budget - usage)
