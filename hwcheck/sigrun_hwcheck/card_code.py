"""For which NVIDIA cards ONNX Runtime's package has code: others cannot run a model with it, whatever their memory.

Read from the machine code in ``onnxruntime-gpu`` 1.31.1 as pip installs it (for Linux on x86-64 and arm64, and Windows;
none of it is code that a driver could compile for other cards, but for a few kernels on Windows). Code for a compute
capability runs on cards of the same first number and no lower second one. A build of one's own may differ.
"""

from __future__ import annotations

from sigrun_hwcheck.machine import Card

PACKAGE = "onnxruntime-gpu"
CODE: dict[str, tuple[tuple[int, int], ...]] = {
    "x86_64": ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)),
    "arm64": ((8, 9), (9, 0), (12, 0), (12, 1)),
}
"""Architecture of the CPU → compute capabilities."""


def objection(capability: tuple[int, int] | None, architecture: str) -> str | None:
    """Why a card cannot run what the package holds, in words; ``None`` if it can, or nobody knows."""
    code = CODE.get(architecture)
    if capability is None or code is None:
        return None
    major, minor = capability
    if any(major == first and minor >= second for first, second in code):
        return None
    return f"{PACKAGE} as pip installs it has no code for cards of compute capability {major}.{minor}"


def of_card(card: Card, architecture: str) -> str | None:
    """The same of a card; one that works in main memory has its own kind of CPU beside it."""
    return objection(card.compute_capability, "arm64" if card.memory == "unified" else architecture)
