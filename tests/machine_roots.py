"""Folders that look like the /proc, /sys and /dev of machines, for the readers of sigrun_hwcheck.probe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def tree(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a root; ``link`` in front of the content makes a symbolic link."""
    if sys.platform == "win32" and any(":" in name for name in files):
        pytest.skip("folders of /sys have names that Windows forbids")
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content.startswith("link "):
            path.symlink_to(root / content.removeprefix("link "))
        else:
            path.write_text(content, "utf-8")
    return root


def pci_card(
    slot: str, vendor: int, device: int, *, kind: int = 0x030000, power: str = "active"
) -> dict[str, str | bytes]:
    """A device on the PCI bus."""
    folder = f"sys/bus/pci/devices/{slot}"
    return {
        f"{folder}/vendor": f"0x{vendor:04x}\n",
        f"{folder}/device": f"0x{device:04x}\n",
        f"{folder}/class": f"0x{kind:06x}\n",
        f"{folder}/power/runtime_status": f"{power}\n",
    }


def drm_card(
    number: int, slot: str, vendor: int, device: int, driver: str, files: dict[str, str | bytes], **more: str
) -> dict[str, str | bytes]:
    """A graphics card with a driver; ``files`` lie in its device's folder."""
    folder = f"sys/bus/pci/devices/{slot}"
    return {
        **pci_card(slot, vendor, device, power=more.get("power", "active")),
        f"sys/bus/pci/drivers/{driver}/bind": "",
        f"{folder}/driver": f"link sys/bus/pci/drivers/{driver}",
        f"sys/class/drm/card{number}/dev": "226:0\n",
        f"sys/class/drm/card{number}/device": f"link {folder}",
        f"sys/class/drm/card{number}-DP-1/device": f"link sys/class/drm/card{number}",
        **{f"{folder}/{name}": content for name, content in files.items()},
    }
