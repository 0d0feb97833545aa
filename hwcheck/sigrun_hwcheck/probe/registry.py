"""Windows' registry on graphics adapters, for systems on which DXGI does not answer; not tested on Windows yet."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

CLASS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
"""The class of display adapters."""


@dataclass(frozen=True)
class DisplayDriver:
    """An installed driver: of which adapter, of which vendor, and the memory it noted at the last start."""

    name: str
    vendor: int | None
    memory_bytes: int | None


def display_drivers(winreg: Any = None) -> list[DisplayDriver]:
    """Every driver of a display adapter. A card that was taken out may still be listed.

    Args:
        winreg: the module of that name; ``None``: Python's.
    """
    try:
        winreg = importlib.import_module("winreg") if winreg is None else winreg  # Windows only
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, CLASS) as drivers:
            names = [winreg.EnumKey(drivers, i) for i in range(winreg.QueryInfoKey(drivers)[0])]
            return [_driver(winreg, drivers, name) for name in names if re.fullmatch(r"\d{4}", name)]
    except (ImportError, OSError):
        return []


def _driver(winreg: Any, drivers: Any, name: str) -> DisplayDriver:
    with winreg.OpenKey(drivers, name) as key:
        hardware = _value(winreg, key, "MatchingDeviceId")
        vendor = re.search(r"ven_([0-9a-f]{4})", hardware.lower()) if isinstance(hardware, str) else None
        # 64 bits; HardwareInformation.MemorySize and WMI's AdapterRAM have 32, and stop at 4 GiB.
        memory = _value(winreg, key, "HardwareInformation.qwMemorySize")
        if isinstance(memory, bytes):
            memory = int.from_bytes(memory, "little")
        called = _value(winreg, key, "DriverDesc")
        return DisplayDriver(
            called if isinstance(called, str) else "graphics adapter",
            int(vendor.group(1), 16) if vendor else None,
            memory if isinstance(memory, int) and memory > 0 else None,
        )


def _value(winreg: Any, key: Any, name: str) -> object:
    try:
        return winreg.QueryValueEx(key, name)[0]
    except OSError:
        return None
