"""Processors for neural networks: listed, so that nobody wonders whether they were overlooked."""

from __future__ import annotations

from pathlib import Path

from sigrun_hwcheck.machine import Npu
from sigrun_hwcheck.probe import tree

# Linux's drivers below drivers/accel, and what they drive.
NAMES = {
    "intel_vpu": "Intel NPU",
    "amdxdna": "AMD Ryzen AI NPU",
    "habanalabs": "Intel Gaudi",
    "qaic": "Qualcomm Cloud AI",
    "rocket": "Rockchip NPU",
    "ethosu": "Arm Ethos-U",
}


def read(root: Path, system: str, architecture: str) -> tuple[Npu, ...]:
    """The machine's, as far as the system tells without asking a vendor's library.

    Windows tells only through ONNX Runtime; see ``probe.runtime``.
    """
    if system == "Darwin":
        return (Npu("Apple Neural Engine", None),) if architecture == "arm64" else ()
    if system != "Linux":
        return ()
    found = []
    for entry in tree.entries(root / "sys/class/accel", r"accel\d+"):
        driver = tree.link_name(entry / "device/driver")
        found.append(Npu(NAMES.get(driver or "", "NPU of unknown make"), driver))
    if tree.entries(root / "dev", r"fastrpc-cdsp.*"):
        found.append(Npu("Qualcomm Hexagon", "fastrpc"))
    return tuple(found)
